"""Data sets as the hub holds them: written by the real `datasets` where it is installed, and by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tagmask.data import find_kind, make_source, open_dataset
from tagmask.data.datasets.hub import data_folder
from tagmask.errors import ConfigError, DataError
from tagmask.pipeline.config import read_config
from tagmask.pipeline.flags import data_first

NAMES = ["cat", "dog", "fish"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def picture(path: Path, number: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 10, 3), number * 20, np.uint8)).save(path)
    return path


def inside(path: Path) -> dict[str, object]:
    """A picture as shards hold it."""
    return {"bytes": path.read_bytes(), "path": path.name}


def tags(dataset) -> dict[str, list[str]]:
    return {item.name: [dataset.classes.names[k] for k in item.tags or ()] for item in dataset.items}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    for split, names in (("train", "ab"), ("validation", "c")):
        rows = [{"file_name": f"{name}.png", "tags": ["cat", "dog"][: 1 + n]} for n, name in enumerate(names)]
        for n, row in enumerate(rows):
            picture(root / split / row["file_name"], n)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (root / split / "metadata.jsonl").write_text(lines)
    return root


def test_a_metadata_file_in_every_part_is_read(folder: Path):
    assert find_kind(make_source(folder, None, False, None, None, None)) == "hugging_face"
    assert tags(open_dataset(folder, split="train")) == {"train/a": ["cat"], "train/b": ["cat", "dog"]}
    assert tags(open_dataset(folder, split="val")) == {"validation/c": ["cat"]}
    assert tags(open_dataset(f"hf:{folder}", split="validation")) == {"validation/c": ["cat"]}
    assert len(open_dataset(folder).items) == 3


def test_a_table_beside_the_pictures_is_read(tmp_path: Path):
    for n, name in enumerate("ab"):
        picture(tmp_path / "x" / "images" / f"{name}.png", n)
    (tmp_path / "x" / "metadata.csv").write_text("file_name,tags\nimages/a.png,cat;dog\nimages/b.png,dog\n")
    assert tags(open_dataset(tmp_path / "x", split="train")) == {"a": ["cat", "dog"], "b": ["dog"]}


def test_folders_of_classes_below_parts_that_the_hub_calls_so(tmp_path: Path):
    for split in ("train", "validation"):
        for name in NAMES[:2]:
            picture(tmp_path / "x" / split / name / "1.png")
    assert tags(open_dataset(tmp_path / "x", split="val")) == {
        "validation/cat/1": ["cat"],
        "validation/dog/1": ["dog"],
    }


def test_shards_of_the_real_package_are_unpacked(tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "tags": datasets.List(datasets.ClassLabel(names=NAMES))}
    )
    files = [inside(picture(tmp_path / f"{n}.png", n)) for n in range(4)]
    for split, chosen in (("train", slice(0, 3)), ("validation", slice(3, 4))):
        rows = {"image": files[chosen], "tags": [[0, 2], [1], [], [2]][chosen]}
        made = datasets.Dataset.from_dict(rows, features=features)
        (tmp_path / "x" / "data").mkdir(parents=True, exist_ok=True)
        made.to_parquet(str(tmp_path / "x" / "data" / f"{split}-00000-of-00001.parquet"))
    found = open_dataset(f"hf:{tmp_path / 'x'}", split="train")
    assert sorted(tags(found).values()) == [[], ["cat", "fish"], ["dog"]]
    assert list(tags(open_dataset(tmp_path / "x", split="val")).values()) == [["fish"]]
    pixels = {int(found.image(n)[0, 0, 0]) for n in range(3)}
    assert pixels == {0, 20, 40}
    # A second look unpacks nothing anew and finds the same.
    assert tags(open_dataset(tmp_path / "x", split="train")) == tags(found)


def test_one_label_a_row_as_most_data_sets_have_it(tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    files = [inside(picture(tmp_path / f"{n}.png", n)) for n in range(2)]
    (tmp_path / "x").mkdir()
    made = datasets.Dataset.from_dict({"image": files, "label": [2, 0]}, features=features)
    made.to_parquet(str(tmp_path / "x" / "train.parquet"))
    assert sorted(tags(open_dataset(tmp_path / "x")).values()) == [["cat"], ["fish"]]


def test_the_real_package_sees_the_same_folder(folder: Path):
    datasets = pytest.importorskip("datasets")
    theirs = datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(folder.parent / "c"))
    ours = tags(open_dataset(folder, split="train"))
    assert sorted(row["tags"] for row in theirs["train"]) == sorted(ours.values())


def test_a_run_takes_such_data_in_the_place_of_the_recipe(folder: Path):
    recipe, data = data_first(f"hf:{folder}", None)
    assert recipe == "auto"
    assert read_config(recipe, {"data.root": data}).data.root == folder
    with pytest.raises(ConfigError, match="two data sets"):
        data_first(f"hf:{folder}", "other")


@pytest.mark.parametrize("name", ["hf:../x", "hf:", "hf:a/b/c", "hf:a b", "hf:..%2f"])
def test_names_that_cannot_be_a_data_set_are_refused(name: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="neither a folder nor the name"):
        data_folder(name)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"file_name": "../../secret.png", "tags": ["cat"]}', "path outside"),
        ('{"tags": ["cat"]}', "without 'file_name'"),
        ('{"file_name": "a.png"}', "no column of tags"),
        ('{"file_name": "a.png", "tags": {"x": 1}}', "names or numbers"),
        ("[1]", "no object"),
        ("{", "cannot be read"),
    ],
)
def test_metadata_that_cannot_be_trusted_is_refused(tmp_path: Path, row: str, said: str):
    picture(tmp_path / "x" / "a.png")
    (tmp_path / "x" / "metadata.jsonl").write_text(row + "\n")
    with pytest.raises(DataError, match=said):
        open_dataset(tmp_path / "x")


def test_a_shard_that_is_none_is_refused(tmp_path: Path):
    pytest.importorskip("pyarrow")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "train-0.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="no readable Parquet file"):
        open_dataset(tmp_path / "x")

"""Masks and tags in a real FiftyOne data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tagmask.data import ClassTable
from tagmask.models.trained import build_method, save_method
from tests.contract.test_methods import TINY

fiftyone = pytest.importorskip("fiftyone")
from tagmask.integrations.fiftyone import predict, tags_of, write_zoo, zoo_model  # noqa: E402
from tagmask.model import load  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture
def model(tmp_path: Path) -> Path:
    method = build_method("more", TINY["more"], 2)
    save_method(tmp_path / "model", method, "more", ClassTable(("cat", "dog")), {}, {})
    return tmp_path / "model"


@pytest.fixture
def samples(tmp_path: Path):
    rng = np.random.default_rng(0)
    try:
        dataset = fiftyone.Dataset("tagmask-test", overwrite=True)
    except fiftyone.core.config.FiftyOneConfigError as error:
        pytest.skip(f"FiftyOne's database does not start: {error}")
    for n, tags in enumerate((["cat"], ["cat", "dog"], [])):
        path = tmp_path / "pictures" / f"{n}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).save(path)
        each = [fiftyone.Classification(label=tag) for tag in tags]
        dataset.add_sample(
            fiftyone.Sample(filepath=str(path), tags_seen=fiftyone.Classifications(classifications=each))
        )
    yield dataset
    dataset.delete()


def test_masks_and_tags_go_both_ways(samples, model: Path, tmp_path: Path):
    assert tags_of(samples, "tags_seen", tmp_path / "pictures") == {
        "0.png": ["cat"],
        "1.png": ["cat", "dog"],
        "2.png": [],
    }
    ours = load(model, "cpu")
    assert predict(samples, ours, "mine", tags="tags_seen") == 3
    assert samples.mask_targets["mine"] == {0: "background", 1: "cat", 2: "dog"}
    for sample, tags in zip(samples, (["cat"], ["cat", "dog"], []), strict=True):
        assert np.array_equal(sample.mine.mask, ours.predict(sample.filepath, tags=tags, maps=False).mask)
        assert {one.label for one in sample.mine_tags.classifications} == {"cat", "dog"}
    samples.apply_model(zoo_model(model, "cpu"), label_field="applied")
    first = samples.first()
    assert np.array_equal(first.applied.mask, ours.predict(first.filepath, maps=False).mask)


def test_the_zoo_finds_the_model_by_its_manifest(model: Path, tmp_path: Path, monkeypatch):
    import fiftyone.zoo as zoo

    monkeypatch.setattr(fiftyone.config, "model_zoo_dir", str(tmp_path / "zoo"))
    write_zoo(tmp_path / "zoo" / "tagmask", model, "pets")
    assert "pets" in zoo.list_zoo_models()
    assert zoo.load_zoo_model("pets", device="cpu").predict(np.zeros((40, 40, 3), np.uint8)).mask.shape == (
        40,
        40,
    )

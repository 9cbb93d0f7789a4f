"""Layouts of other programs: parts under other names, Roboflow's folders, flags for tags, odd colours."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tagmask.data import open_dataset
from tagmask.data.check import check
from tagmask.data.classes import voc_palette
from tagmask.data.parts import DataConfig, Parts
from tagmask.data.readers.images import read_indices
from tagmask.errors import DataError
from tests.unit.annotations.scenario import BOX, MASK, coco
from tests.unit.data.test_meaning import fatal, mask, notes, pictures, tags


def picture(path, value=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 60, 3), value, np.uint8)).save(path)


def names(root, part):
    return sorted(Parts(DataConfig(root=root)).open(part).names)


@pytest.mark.parametrize(
    ("learn", "score"), [("training", "Validation"), ("TRAIN", "VAL"), ("train", "valid")]
)
def test_parts_are_known_by_all_their_names(tmp_path, learn, score):
    pictures(tmp_path, *(f"{k}.png" for k in range(4)))
    tags(
        tmp_path,
        *(f"{k}.png,{'ab'[k % 2]},{score if k > 1 else learn}" for k in range(4)),
        head="image,tags,split",
    )
    assert (names(tmp_path, "train"), names(tmp_path, "val")) == (["0", "1"], ["2", "3"])
    assert "splits: train 2, val 2" in check(tmp_path).text()
    (tmp_path / "tags.csv").unlink()
    tags(tmp_path, "0.png,a", "1.png,b", name=f"tags_{learn.lower()}.csv")
    tags(tmp_path, "2.png,a", "3.png,b", name=f"tags_{score.lower()}.csv")
    assert (names(tmp_path, "train"), names(tmp_path, "val")) == (["0", "1"], ["2", "3"])


def test_a_split_that_nobody_asks_for_is_said(tmp_path):
    pictures(tmp_path, *(f"{k}.png" for k in range(3)))
    tags(tmp_path, "0.png,a,train", "1.png,b,val", "2.png,b,fold 3", head="image,tags,split")
    assert "1 images are of this split" in notes(check(tmp_path), "split of another name")["fold 3"]
    assert len(open_dataset(tmp_path, split="fold 3")) == 1


@pytest.mark.parametrize("above", ["", "images/"])
def test_class_folders_below_valid_are_scored_on(tmp_path, above):
    for part, count in (("train", 2), ("valid", 1)):
        for name in ("cat", "dog"):
            for k in range(count):
                picture(tmp_path / f"{above}{part}" / name / f"{part}{k}{name}.png")
    assert len(names(tmp_path, "train")) == 4
    assert len(names(tmp_path, "val")) == 2
    assert check(tmp_path).num_images == 6


def test_a_folder_of_trains_is_a_class(tmp_path):
    for name in ("car", "train"):
        picture(tmp_path / name / f"{name}.png")
    assert open_dataset(tmp_path).classes.names == ("car", "train")
    picture(tmp_path / "val" / "car" / "car.png")
    with pytest.raises(DataError, match="neither a tag file"):
        open_dataset(tmp_path, split="train")


def test_parts_are_never_classes(tmp_path):
    for part in ("train", "val"):
        picture(tmp_path / "images" / part / f"{part}.png")
        (tmp_path / "labels" / part).mkdir(parents=True)
        (tmp_path / "labels" / part / f"{part}.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.6\n")
    with pytest.raises(DataError, match="YOLO's labels are read as masks"):
        open_dataset(tmp_path)


def test_roboflows_coco_folders_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for part in ("train", "valid", "test"):
        for k in range(2):
            picture(tmp_path / part / f"{part}{k}.jpg")
        picture(tmp_path / part / "new.jpg")
        found = [*((f"{part}{k}.jpg", 60, 40) for k in range(2)), ("seen.jpg", 60, 40)]
        content = coco(found, [(1, 1, [BOX]), (2, 2, [BOX])], ((0, "pets"), (1, "dog"), (2, "cat")))
        content["categories"][1]["supercategory"] = content["categories"][2]["supercategory"] = "pets"
        (tmp_path / part / "_annotations.coco.json").write_text(json.dumps(content))
    report = check(tmp_path)
    assert report.kind == "coco"
    assert list(notes(report, "image without annotation")) == ["1 images"]
    assert notes(report, "image that is not listed")["1 images"].startswith("new.jpg")
    assert (names(tmp_path, "train"), names(tmp_path, "val")) == (["train0", "train1"], ["valid0", "valid1"])
    data = open_dataset(tmp_path, split="test", masks=True)
    assert (data.classes.names, len(data)) == (("dog", "cat"), 2)
    assert np.unique(data.mask(1)).tolist() == [0, 2]
    assert open_dataset(tmp_path / "valid").names == ("valid0", "valid1")
    with pytest.raises(DataError, match="for train, val, test, not for the split 'fold'"):
        open_dataset(tmp_path, split="fold")


def test_roboflows_table_of_flags_is_named(tmp_path):
    picture(tmp_path / "train" / "a.jpg")
    (tmp_path / "train" / "_classes.csv").write_text("filename, cat, dog\na.jpg, 1, 0\n")
    with pytest.raises(DataError, match=r"_classes.csv is a table of Roboflow"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("row", ["{} 1 1", '"[{}, 1, 1]"', "{};1;1", '"{},1,1"'])
def test_flags_are_no_class_names(tmp_path, row):
    pictures(tmp_path, "0.png", "1.png")
    tags(tmp_path, *(f"{k}.png,{row.format(k)}" for k in range(2)))
    with pytest.raises(DataError, match="whether it is there"):
        open_dataset(tmp_path)


def test_digits_may_be_class_names(tmp_path):
    pictures(tmp_path, "0.png", "1.png", "2.png")
    tags(tmp_path, "0.png,0 1", "1.png,1 0", "2.png,0")
    assert open_dataset(tmp_path).classes.names == ("0", "1")
    (tmp_path / "classes.txt").write_text("0\n1\n")
    tags(tmp_path, "0.png,0 0", "1.png,1 0", "2.png,1 1")
    assert open_dataset(tmp_path).classes.names == ("0", "1")


def shuffled(path, mask, order, palette):
    """An indexed picture whose number k has the colour of label order[k]."""
    image = Image.fromarray(np.argsort(order).astype(np.uint8)[mask])
    image.putpalette(palette[order].tobytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def test_masks_in_the_colours_of_other_numbers_are_refused(tmp_path):
    pictures(tmp_path, "0.png", "1.png")
    tags(tmp_path, "0.png,cat dog", "1.png,cat dog")
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    for k in range(2):
        shuffled(tmp_path / "masks" / f"{k}.png", MASK[:20, :30], np.array([0, 2, 1]), voc_palette())
    assert "by number cat, by colour dog" in fatal(check(tmp_path))["unclear masks"]
    # Said by the user: numbers count.
    values = {"1": "dog", "2": "cat"}
    assert open_dataset(tmp_path, masks=True, mask_values=values).mask(0).max() > 0


def test_colours_of_somebodys_own_say_nothing(tmp_path):
    pictures(tmp_path, "0.png", "1.png")
    tags(tmp_path, "0.png,dog", "1.png,cat")
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    green_first = voc_palette()[[0, 2, 1]]
    for k in range(2):
        image = Image.fromarray(np.where(MASK[:20, :30] > 0, k + 1, 0).astype(np.uint8))
        image.putpalette(green_first.tobytes())
        (tmp_path / "masks").mkdir(exist_ok=True)
        image.save(tmp_path / "masks" / f"{k}.png")
    assert check(tmp_path).ok  # the tags agree with the numbers


def test_pictures_turned_without_a_trace_are_said_where_there_are_masks(tmp_path):
    pictures(tmp_path, "0.png", "1.png")
    turned = Image.Exif()
    turned[0x0112] = 3
    Image.open(tmp_path / "images" / "1.png").save(tmp_path / "images" / "1.png", exif=turned)
    tags(tmp_path, "0.png,cat", "1.png,cat")
    assert notes(check(tmp_path), "image turned by its camera") == {}
    for k in range(2):
        mask(tmp_path, str(k), 0, 1)
    assert list(notes(check(tmp_path), "image turned by its camera")) == ["1"]


def test_a_mask_that_says_it_is_turned_is_refused(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 3
    Image.fromarray(MASK).save(tmp_path / "m.png", exif=turned)
    with pytest.raises(DataError, match="has to be turned"):
        read_indices(tmp_path / "m.png")

"""What a folder of one's own means: masks by their numbers, tags by their file, images by their names."""

from __future__ import annotations

import json
import unicodedata

import numpy as np
import pytest
from PIL import Image

from tagmask.data import open_dataset
from tagmask.data.check import check
from tagmask.errors import DataError


def pictures(root, *files, kind=None):
    for k, file in enumerate(files):
        path = root / "images" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 30, 3), k % 256, np.uint8)).save(path, kind or "PNG")


def tags(root, *rows, name="tags.csv", head="image,tags"):
    (root / name).write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")


def mask(root, name, *values):
    """A mask whose rows hold the values in turn."""
    (root / "masks").mkdir(exist_ok=True)
    rows = np.resize(np.asarray(values, np.uint8), 20)
    Image.fromarray(np.repeat(rows[:, None], 30, 1)).save(root / "masks" / f"{name}.png")


def notes(report, kind):
    return {p.name: p.detail for p in report.problems if p.kind == kind and not p.fatal}


def fatal(report):
    return {p.kind: p.detail for p in report.problems if p.fatal}


@pytest.fixture
def root(tmp_path):
    pictures(tmp_path, *(f"{k}.png" for k in range(6)))
    return tmp_path


def test_0_and_255_with_one_class_that_all_tags_name_is_the_class(root):
    tags(root, *(f"{k}.png,{'cat' if k else ''}" for k in range(6)))
    for k in range(6):
        mask(root, str(k), 0, 255 if k else 0)
    data = open_dataset(root, masks=True)
    assert set(np.unique(data.mask(1))) == {0, 1}
    assert data.about["mask values"] == "0 background, 255 cat"
    report = check(root)
    assert report.ok
    assert "255 is read as 'cat'" in notes(report, "mask values")["255"]
    assert "mask values: 0 background, 255 cat" in report.text()


def test_0_and_255_that_the_tags_do_not_explain_are_refused(root):
    tags(root, "0.png,cat", "1.png,cat", "2.png,", "3.png,cat", "4.png,cat")
    for k in range(5):
        mask(root, str(k), 0, 255)
    assert "'cat' at 255, or ignored pixels" in fatal(check(root))["unclear masks"]
    with pytest.raises(DataError, match=r"mask_values\.json"):
        open_dataset(root, masks=True)
    assert open_dataset(root).names  # training sees no mask
    (root / "mask_values.json").write_text('{"255": "ignore"}')
    assert set(np.unique(open_dataset(root, masks=True).mask(0))) == {0, 255}


def test_ignored_pixels_of_images_without_the_class_stay_ignored(root):
    tags(root, *(f"{k}.png,{'cat' if k == 5 else ''}" for k in range(6)))
    for k in range(6):
        mask(root, str(k), 0, 255)
    assert set(np.unique(open_dataset(root, masks=True).mask(0))) == {0, 255}


NAMES = ("ant", "bee", "cat")


@pytest.mark.parametrize(("shift", "said"), [(-1, "with 0 as 'ant'"), (1, "1 as background and 2 as 'ant'")])
def test_masks_that_count_from_elsewhere_are_refused_with_both_readings(root, shift, said):
    tags(root, *(f"{k}.png,{NAMES[k % 3]}" for k in range(6)))
    for k in range(6):
        mask(root, str(k), k % 3 + 1 + shift, 255 if shift < 0 else 1)
    report = check(root)
    assert said in fatal(report)["unclear masks"]
    assert "0 % of 6 images" in fatal(report)["unclear masks"] or shift < 0
    with pytest.raises(DataError, match=r"mask_values\.json"):
        open_dataset(root, masks=True)


def test_masks_that_agree_with_their_tags_are_read_as_labels(root):
    tags(root, *(f"{k}.png,{NAMES[k % 3]}" for k in range(6)))
    for k in range(6):
        mask(root, str(k), 0, k % 3 + 1, 255)
    report = check(root)
    assert report.ok
    assert "mask values: 0 background, 1 ant, 2 bee, 3 cat, 255 ignored" in report.text()
    assert not notes(report, "tag without mask")


def test_tags_and_masks_are_compared_both_ways(root):
    tags(root, "0.png,ant bee", "1.png,bee", "2.png,ant", "3.png,ant bee")
    for k, values in enumerate([(0, 1, 2), (0, 1, 2), (0, 1), (0, 2)]):
        mask(root, str(k), *values)
    report = check(root)
    assert "shows ant" in notes(report, "mask without tag")["1"]
    assert notes(report, "tag without mask") == {"3": "the tags say ant, the mask does not show it"}
    assert not notes(report, "masks and tags differ")
    for k in range(4):
        mask(root, str(k), 0)
    assert notes(check(root), "masks and tags differ")


def test_class_names_are_found_by_one_rule_for_the_file(root):
    tags(root, "0.png,fire hydrant;traffic light", "1.png,fire hydrant", "2.png,traffic light", "3.png,cat")
    assert open_dataset(root).classes.names == ("cat", "fire hydrant", "traffic light")
    tags(root, '0.png,"cat,dog"', '1.png,"cat, dog"', "2.png,dog")
    assert open_dataset(root).classes.names == ("cat", "dog")


def test_what_nothing_good_is_learned_from_is_a_line_of_the_check(root):
    pictures(root, "extra.png", "sub/more.png")
    tags(
        root,
        "0.png,Cat;tree;big dog;rail;train",
        "1.png,cat;tree",
        "2.png,tree;rail;train",
        "3.png,tree;dog;big",
    )
    report = check(root)
    assert notes(report, "class on every image").keys() == {"tree"}
    assert notes(report, "classes always together").keys() == {"rail + train"}
    alike = notes(report, "class names alike")
    assert "'Cat' (1 images), 'cat' (1 images)" in alike["Cat"]
    assert "may be the classes big, dog" in alike["big dog"]
    assert "1 image, below 10" in notes(report, "class with few images")["cat"]
    assert notes(report, "image without row").keys() == {"4.png", "5.png", "extra.png", "sub/more.png"}
    assert report.ok


def test_images_of_other_splits_have_rows(root):
    tags(root, *(f"{k}.png,cat,{'train' if k < 4 else 'val'}" for k in range(6)), head="image,tags,split")
    assert not notes(check(root, split="train"), "image without row")


def test_other_spellings_and_twins_are_found_and_said(tmp_path):
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    pictures(tmp_path, "Dog.PNG", f"{composed}.png", "Twin.png", "twin.png")
    tags(tmp_path, "dog.png,cat", f"{apart}.png,cat", "twin.png,cat", "Twin,cat")
    data = open_dataset(tmp_path)
    assert data.names == ("Dog", composed, "twin", "Twin")
    report = check(tmp_path)
    assert notes(report, "image of another spelling").keys() == {"dog.png", f"{apart}.png"}
    assert notes(report, "image with a twin").keys() == {"Twin.png", "twin.png"}
    tags(tmp_path, "TWIN.png,cat")
    with pytest.raises(DataError, match=r"could be any of Twin\.png, twin\.png"):
        open_dataset(tmp_path)


def test_pictures_of_every_ending_are_read_or_counted(tmp_path):
    for file in ("a.jpg", "b.jfif", "c.jpe", "e.JPG"):
        pictures(tmp_path, f"cat/{file}", kind="JPEG")
    for file in ("d.jp2", "f.JXL", "g.jp2"):
        (tmp_path / "images" / "cat" / file).write_bytes(b"x")
    report = check(tmp_path)
    assert (report.num_images, report.classes) == (4, {"cat": 4})
    found = notes(report, "picture of an unknown format")
    assert found.keys() == {".jp2", ".jxl"}
    assert found[".jp2"].startswith("2 files, the first images/cat/d.jp2")
    tags(tmp_path, "cat/a.jpg,cat")
    assert notes(check(tmp_path), "picture of an unknown format") == found


def test_a_tag_file_per_split_works_without_a_word(root):
    tags(root, "0.png,zebra", "1.png,ant", name="tags_train.csv")
    tags(root, "2.png,bee;big cat", name="tags_val.csv")
    train, val, both = (open_dataset(root, split=split) for split in ("train", "val", None))
    assert (train.names, val.names, both.names) == (("0", "1"), ("2",), ("0", "1", "2"))
    assert train.classes == val.classes == both.classes
    assert train.classes.names == ("ant", "bee", "big cat", "zebra")
    assert check(root).ok
    with pytest.raises(DataError, match="no rows of split 'test'"):
        open_dataset(root, split="test")


def test_names_that_spreadsheets_would_run_are_found(tmp_path):
    pictures(tmp_path, "=1+1.png", "'-x.png")
    tags(tmp_path, "'=1+1.png,'@cat", "'-x.png,@cat")
    data = open_dataset(tmp_path)
    assert data.names == ("=1+1", "'-x")
    assert data.classes.names == ("@cat",)


def instances(root, cats, entries):
    (root / "annotations").mkdir(exist_ok=True)
    content = {
        "images": [{"id": 1, "file_name": "0.png", "width": 30, "height": 20}],
        "categories": [{"id": k, "name": name, "supercategory": above} for k, name, above in cats],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": c, "segmentation": s, "bbox": [1, 1, 5, 5]}
            for n, (c, s) in enumerate(entries, 1)
        ],
    }
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))


SQUARE = [[2, 2, 12, 2, 12, 12, 2, 12]]


@pytest.mark.parametrize(
    "cats",
    [
        [(0, "pets", "none"), (1, "dog", "pets"), (2, "cat", "pets")],
        [(0, "cat", "none"), (1, "dog", "cat"), (2, "cat", "cat")],
        [(0, "background", ""), (1, "dog", ""), (2, "cat", "")],
        [(0, "_background_", ""), (1, "dog", ""), (2, "cat", ""), (3, "cat", "")],
    ],
)
def test_categories_that_are_no_classes_do_not_matter(root, cats, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(root / "cache"))
    instances(root, cats, [(2, SQUARE)])
    data = open_dataset(root, "coco", masks=True)
    assert data.classes.names in (("dog", "cat"), ("cat", "dog"))
    assert [data.classes.names[k] for k in data.items[0].tags] == ["cat"]
    assert data.classes.labels[data.mask(0).max()] == "cat"
    only = open_dataset(root, "coco", masks=True, classes=["cat"])
    assert only.mask(0).max() == 1


def test_boxes_give_tags_but_no_masks(root, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(root / "cache"))
    instances(root, [(1, "dog", ""), (2, "cat", "")], [(2, [])])
    assert open_dataset(root, "coco").items[0].tags == (1,)
    with pytest.raises(DataError, match="1 of its annotations are boxes without pixels"):
        open_dataset(root, "coco", masks=True)
    report = check(root)
    assert report.num_masks == 0
    assert "missing mask" in {p.kind for p in report.problems}


def test_two_names_for_one_category_and_masks_without_a_size_are_named(root, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(root / "cache"))
    (root / "annotations").mkdir()
    box = [[1, 1, 9, 1, 9, 9]]
    content = {
        "images": [{"id": 1, "file_name": "0.png"}],
        "categories": [{"id": 1, "name": "dog"}, {"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": box}],
    }
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="number 1 is 'cat' and 'dog'"):
        open_dataset(root, "coco")
    content["categories"].pop()
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    assert "image 1 has no height and width" in fatal(check(root, "coco"))["unusable mask"]


def test_rows_without_a_split_and_files_beside_are_a_line_of_the_check(root):
    tags(root, "0.png,cat,train", "1.png,dog,", "2.png,cat,val", head="image,tags,split")
    tags(root, "3.png,dog", name="tags_val.csv")
    report = check(root)
    assert "neither training nor scoring" in notes(report, "image without split")["1.png"]
    assert notes(report, "tag file not read") == {"tags_val.csv": "tags.csv is there and counts"}


def test_names_that_only_look_different_or_stand_for_nothing_are_said(root):
    tags(root, "0.png,cat", "1.png,cat\u200b", "2.png,nan", "3.png,dog", "4.png,cat/dog")
    report = check(root)
    assert {"cat", "cat/dog"} <= notes(report, "class names alike").keys()
    assert "nan" in notes(report, "class named like a missing value")


def test_lists_in_some_cells_only_are_refused(root):
    tags(root, "0.png,\"['cat', 'dog']\"", "1.png,cat")
    with pytest.raises(DataError, match=r"line 2 holds a list .* and line 3 none"):
        open_dataset(root)
    (root / "masks").mkdir()
    (root / "masks" / "mask_values.json").write_text('{"1": "cat", "1": "dog"}')
    tags(root, "0.png,cat", "1.png,dog")
    with pytest.raises(DataError, match="'1' appears twice"):
        open_dataset(root, masks=True)

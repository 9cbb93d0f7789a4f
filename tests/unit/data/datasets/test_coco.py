from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tagmask.data import open_dataset
from tagmask.errors import DataError

SIZE = (24, 32)


def _square(x, y, side):
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def _entry(number, image, category, region, crowd=0):
    fields = {"id": number, "image_id": image, "category_id": category, "iscrowd": crowd}
    return fields | {"segmentation": region}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "val2014").mkdir()
    names = [f"COCO_val2014_{i:012d}.jpg" for i in (1, 2, 3)]
    for name in names:
        Image.new("RGB", SIZE[::-1]).save(root / "val2014" / name)
    crowd = {"counts": [0, SIZE[0] * SIZE[1]], "size": list(SIZE)}
    content = {
        "images": [
            {"id": i, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
            for i, name in enumerate(names, start=1)
        ],
        "categories": [
            {"id": 90, "name": "toothbrush"},
            {"id": 1, "name": "person"},
            {"id": 3, "name": "car"},
        ],
        "annotations": [
            _entry(7, 1, 3, _square(4, 4, 6)),  # the smaller comes first but must lie on top
            _entry(8, 1, 90, _square(2, 2, 16)),
            _entry(9, 2, 1, crowd, crowd=1),
            _entry(10, 2, 3, _square(0, 0, 30)),
        ],
    }
    _write(root, content)
    return root


def _write(root, content):
    (root / "annotations" / "instances_val2014.json").write_text(json.dumps(content))


def _content(root):
    return json.loads((root / "annotations" / "instances_val2014.json").read_text())


def test_classes_follow_the_ids_and_tags_the_objects(root):
    data = open_dataset(root, "auto", "val")
    assert data.classes.names == ("person", "car", "toothbrush")
    assert [item.tags for item in data.items] == [(1, 2), (0, 1)]
    assert open_dataset(root, "coco", "val_all").items[2].tags == ()
    assert len(open_dataset(root, "coco", "val_part")) == 2
    assert open_dataset(root, "coco").split == "val"


def test_small_objects_lie_on_large_ones_and_all_on_crowds(root):
    data = open_dataset(root, "coco", "val", masks=True)
    mask = data.mask(0)
    assert (mask[6, 6], mask[3, 3], mask[12, 12], mask[20, 20]) == (2, 3, 3, 0)
    crowded = data.mask(1)
    assert (crowded[10, 10], crowded[10, 31]) == (2, 1)


def test_masks_and_index_are_kept_outside_the_data_set(root, tmp_path):
    before = sorted(p for p in root.rglob("*"))
    first = open_dataset(root, "coco", "val", masks=True)
    mask = first.mask(0)
    assert sorted(p for p in root.rglob("*")) == before
    kept = first.items[0].mask
    assert kept.is_file()
    assert kept.is_relative_to(tmp_path / "cache")
    np.testing.assert_array_equal(np.array(Image.open(kept)), mask)
    np.testing.assert_array_equal(open_dataset(root, "coco", "val", masks=True).mask(0), mask)
    _write(root, _content(root) | {"annotations": []})
    with pytest.raises(DataError, match="holds no images"):
        open_dataset(root, "coco", "val", masks=True)  # a changed json is read anew


def test_an_unwritable_cache_costs_nothing_but_time(root, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/cache")
    data = open_dataset(root, "coco", "val", masks=True)
    assert data.mask(0)[6, 6] == 2


def test_a_choice_of_classes(root):
    data = open_dataset(root, "coco", "val", masks=True, classes=["toothbrush", "person"])
    assert [item.tags for item in data.items] == [(0,), (1,)]
    assert data.mask(0)[6, 6] == 0
    assert data.mask(0)[3, 3] == 1
    with pytest.raises(DataError, match="Did you mean 'person'"):
        open_dataset(root, "coco", "val", classes=["persno"])


def test_any_instances_file_works_by_name(root):
    path = root / "annotations" / "instances_val2014.json"
    data = open_dataset(root / "val2014", "auto", tags=path)
    assert (len(data), data.about["kind"]) == (2, "coco")


def test_missing_pieces_are_named(root):
    with pytest.raises(DataError, match=r"no instances_train\*\.json .*instances_val2014"):
        open_dataset(root, "coco", "train")
    (root / "val2014" / "COCO_val2014_000000000002.jpg").unlink()
    with pytest.raises(DataError, match="missing image 'COCO_val2014_000000000002'"):
        open_dataset(root, "coco", "val")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"images": 3}, "needs the lists"),
        ({"images": [{"id": 1}]}, "KeyError 'file_name'"),
        ({"images": [{"id": 1, "file_name": "../x.jpg"}], "annotations": []}, "outside the image folder"),
        ({"images": [{"id": i, "file_name": "x.jpg"} for i in (1, 2)], "annotations": []}, "twice"),
        ({"categories": [{"id": 1, "name": "person"}]}, "unknown tag .*category 3"),
        ({"annotations": [{"id": 5, "image_id": 77, "category_id": 1}]}, "unknown image '77'"),
    ],
)
def test_files_that_only_look_like_it_are_refused(root, change, says):
    _write(root, _content(root) | change)
    with pytest.raises(DataError, match=says):
        open_dataset(root, "coco", "val")


def test_a_region_that_cannot_be_drawn_names_file_image_and_annotation(root):
    content = _content(root)
    content["annotations"][0]["segmentation"] = [[1, 2, 3]]
    _write(root, content)
    data = open_dataset(root, "coco", "val", masks=True)
    with pytest.raises(
        DataError, match=r"instances_val2014\.json, image 'COCO_val2014_0+1': annotation 7: .*corners"
    ):
        data.mask(0)
    (root / "annotations" / "instances_val2014.json").write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        open_dataset(root, "coco", "val")

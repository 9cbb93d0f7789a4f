"""What every kind of data set promises, whichever file it comes from."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from tagmask.data import names, open_dataset
from tagmask.data.check import check
from tagmask.errors import DataError
from tests.toy import toy_root


def _folder(tmp_path):
    return toy_root(tmp_path, num_train=3, num_val=3), "val"


def _voc(tmp_path):
    root = tmp_path / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClassAug", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, label in (("2007_000033", 1), ("2007_000042", 19)):
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), np.uint8)).save(root / "JPEGImages" / f"{name}.jpg")
        mask = np.zeros((20, 30), np.uint8)
        mask[5:10], mask[10] = label, 255
        Image.fromarray(mask).save(root / "SegmentationClassAug" / f"{name}.png")
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("2007_000033\n2007_000042\n")
    return root, "val"


def _coco(tmp_path):
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "val2014").mkdir()
    images, entries = [], []
    for number in (1, 2):
        name = f"COCO_val2014_{number:012d}.jpg"
        Image.new("RGB", (30, 20), (9 * number, 0, 0)).save(root / "val2014" / name)
        images.append({"id": number, "file_name": name, "height": 20, "width": 30})
        square = [[2, 2, 12, 2, 12, 12, 2, 12]]
        entries.append({"id": number, "image_id": number, "category_id": 17, "segmentation": square})
    content = {
        "images": images,
        "annotations": entries,
        "categories": [{"id": 17, "name": "cat"}, {"id": 90, "name": "brush"}],
    }
    (root / "annotations" / "instances_val2014.json").write_text(json.dumps(content))
    return root, "val"


def _hugging_face(tmp_path):
    root = tmp_path / "pets"
    (root / "validation").mkdir(parents=True)
    (root / "masks" / "validation").mkdir(parents=True)
    lines = []
    for number, name in enumerate("ab"):
        Image.new("RGB", (30, 20), (9 * number, 0, 0)).save(root / "validation" / f"{name}.jpg")
        mask = np.zeros((20, 30), np.uint8)
        mask[5:10] = number + 1
        Image.fromarray(mask).save(root / "masks" / "validation" / f"{name}.png")
        lines.append(json.dumps({"file_name": f"{name}.jpg", "tags": [["cat", "dog"][number]]}))
    (root / "validation" / "metadata.jsonl").write_text("\n".join(lines))
    return root, "val"


MAKERS = {"folder": _folder, "voc": _voc, "coco": _coco, "hugging_face": _hugging_face}


@pytest.fixture(params=sorted(MAKERS))
def place(request, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return request.param, *MAKERS[request.param](tmp_path)


def test_every_kind_is_in_this_suite():
    assert set(names()) == set(MAKERS)


def test_the_kind_is_found_by_looking(place):
    kind, root, split = place
    assert open_dataset(root, "auto", split).about["kind"] == kind


def test_names_are_unique_and_safe(place):
    kind, root, split = place
    data = open_dataset(root, kind, split)
    assert len(set(data.names)) == len(data) > 0
    for name in data.names:
        assert not name.startswith(("/", "."))
        assert ".." not in name.split("/")
        assert data.names[data.position(name)] == name
    with pytest.raises(DataError, match="no image named"):
        data.position("nobody")


def test_images_tags_sizes_and_masks_fit_together(place):
    kind, root, split = place
    data = open_dataset(root, kind, split, masks=True)
    for index in range(len(data)):
        image, mask = data.image(index), data.mask(index)
        assert image.dtype == mask.dtype == np.uint8
        assert image.shape == (*mask.shape, 3) == (*data.size(index), 3)
        tags = data.tags(index)
        assert tags.shape == (data.num_classes,)
        assert tags.dtype == torch.float32
        present = {int(label) for label in np.unique(mask)} - {0, data.classes.ignore_index}
        assert present <= {int(k) + 1 for k in tags.nonzero()}


def test_training_cannot_reach_a_mask(place):
    kind, root, split = place
    data = open_dataset(root, kind, split)
    assert all(item.mask is None for item in data.items)
    with pytest.raises(DataError, match="opened without"):
        data.mask(0)


def test_opening_twice_gives_the_same_and_writes_nothing_there(place):
    kind, root, split = place
    before = sorted((p, p.stat().st_mtime_ns) for p in root.rglob("*"))
    first, second = (open_dataset(root, kind, split, masks=True) for _ in range(2))
    first.mask(0)
    assert first.items == second.items
    assert first.classes == second.classes
    assert sorted((p, p.stat().st_mtime_ns) for p in root.rglob("*")) == before


def test_data_sets_travel_to_other_processes(place):
    kind, root, split = place
    data = open_dataset(root, kind, split, masks=True)
    copy = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(copy.mask(0), data.mask(0))
    np.testing.assert_array_equal(copy.image(0), data.image(0))


def test_the_check_finds_nothing_wrong_here_and_a_broken_image_there(place):
    kind, root, split = place
    report = check(root, split=split)
    assert report.ok, report.text()
    assert (report.kind, report.num_images) == (kind, len(open_dataset(root, kind, split)))
    broken = open_dataset(root, kind, split).items[0]
    broken.image.write_bytes(broken.image.read_bytes()[:50])
    report = check(root, split=split)
    assert [p.name for p in report.problems if p.kind == "unreadable image"] == [broken.name]


def test_unknown_kinds_and_roots_are_named(place, tmp_path):
    kind, root, _ = place
    with pytest.raises(DataError, match="Did you mean 'folder'"):
        open_dataset(root, "fodler")
    with pytest.raises(DataError, match="does not exist"):
        open_dataset(tmp_path / "nowhere", kind)

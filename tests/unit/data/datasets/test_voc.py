from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tagmask.data import open_dataset
from tagmask.data.datasets.voc import split_names
from tagmask.errors import DataError

XML = "<annotation><object><name>{}</name><difficult>1</difficult></object></annotation>"


@pytest.fixture
def root(tmp_path):
    for folder in ("JPEGImages", "ImageSets/Segmentation", "SegmentationClass", "Annotations"):
        (tmp_path / folder).mkdir(parents=True)
    for name, label, thing in (("2007_000032", 1, "aeroplane"), ("2007_000039", 20, "tvmonitor")):
        mask = np.zeros((9, 12), np.uint8)
        mask[:3], mask[3] = label, 255
        Image.fromarray(mask).save(tmp_path / "SegmentationClass" / f"{name}.png")
        Image.new("RGB", (12, 9)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        (tmp_path / "Annotations" / f"{name}.xml").write_text(XML.format(thing))
    (tmp_path / "ImageSets" / "Segmentation" / "train.txt").write_text("2007_000032\n2007_000039\n")
    return tmp_path


def test_official_lists_have_the_published_lengths():
    lengths = {name: len(split_names(name)) for name in ("train", "train_aug", "val", "trainval", "test")}
    assert lengths == {"train": 1464, "train_aug": 10582, "val": 1449, "trainval": 2913, "test": 1456}
    assert set(split_names("train")) < set(split_names("train_aug"))
    assert not set(split_names("val")) & set(split_names("train_aug"))
    with pytest.raises(DataError, match="Did you mean 'train_aug'"):
        split_names("trainaug")


def test_tags_from_annotations_and_from_masks_agree(root):
    for tags, origin in (
        (None, "Annotations"),
        ("xml", "Annotations"),
        ("masks", "presence in SegmentationClass"),
    ):
        data = open_dataset(root, "auto", "train", tags=tags)
        assert [item.tags for item in data.items] == [(0,), (19,)]
        assert (data.num_classes, data.about["tags"]) == (20, origin)
        with pytest.raises(DataError, match="opened without"):
            data.mask(0)


def test_masks_and_a_choice_of_classes(root):
    data = open_dataset(root, "voc", "train", masks=True, classes=["tvmonitor", "cat"])
    assert [item.tags for item in data.items] == [(), (0,)]
    assert np.unique(data.mask(0)).tolist() == [0, 255]  # aeroplanes are background now
    assert np.unique(data.mask(1)).tolist() == [0, 1, 255]
    with pytest.raises(DataError, match="'television' is not a class of VOC"):
        open_dataset(root, "voc", "train", classes=["television"])


def test_published_label_file(root, tmp_path):
    one_hot = np.zeros(20, np.float32)
    one_hot[14] = 1
    np.save(tmp_path / "labels.npy", {"2007_000032": one_hot, "2007_000039": one_hot}, allow_pickle=True)
    data = open_dataset(root, "voc", "train", tags=tmp_path / "labels.npy", classes=["cat", "person"])
    assert data.tags(0).tolist() == [0, 1]
    np.save(tmp_path / "labels.npy", {"2007_000032": one_hot}, allow_pickle=True)
    with pytest.raises(DataError, match="no entry for '2007_000039'"):
        open_dataset(root, "voc", "train", tags=tmp_path / "labels.npy")


def test_missing_pieces_are_named(root):
    with pytest.raises(DataError, match=r"missing image '2007_000033'.*more"):
        open_dataset(root, "voc", "val")
    (root / "Annotations" / "2007_000039.xml").write_text("<annotation>")
    with pytest.raises(DataError, match=r"missing tags '2007_000039'.*2007_000039\.xml"):
        open_dataset(root, "voc", "train")
    (root / "Annotations" / "2007_000039.xml").write_text(XML.format("dragon"))
    with pytest.raises(DataError, match="'dragon'"):
        open_dataset(root, "voc", "train")
    (root / "SegmentationClass" / "2007_000039.png").unlink()
    with pytest.raises(DataError, match="missing mask '2007_000039'"):
        open_dataset(root, "voc", "train", masks=True, tags="none")
    with pytest.raises(DataError, match="Did you mean 'masks'"):
        open_dataset(root, "voc", "train", tags="mask")
    with pytest.raises(DataError, match="no folder JPEGImages"):
        open_dataset(root / "ImageSets", "voc", "train")


def test_the_development_kit_around_it_is_found(root, tmp_path_factory):
    outer = tmp_path_factory.mktemp("kit") / "VOCdevkit"
    outer.mkdir()
    (outer / "VOC2012").symlink_to(root)
    assert len(open_dataset(outer.parent, "auto", "train")) == 2

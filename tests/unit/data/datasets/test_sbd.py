from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from tagmask.data import open_dataset
from tagmask.data.datasets.sbd import build_voc_aug, read_sbd_mask
from tagmask.errors import DataError


@pytest.fixture
def folders(tmp_path):
    voc, cls = tmp_path / "VOC2012", tmp_path / "sbd" / "benchmark_RELEASE" / "dataset" / "cls"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True)
    cls.mkdir(parents=True)
    (voc / "ImageSets" / "Segmentation" / "train_aug.txt").write_text("a\nb\n")
    (voc / "ImageSets" / "Segmentation" / "val.txt").write_text("c\n")
    for name in "abc":
        Image.new("RGB", (8, 6)).save(voc / "JPEGImages" / f"{name}.jpg")
    for name in "ac":
        Image.fromarray(np.full((6, 8), 255, np.uint8)).save(voc / "SegmentationClass" / f"{name}.png")
    for name, label in (("a", 3), ("b", 7)):
        _mat(cls / f"{name}.mat", np.full((6, 8), label, np.uint8))
    return tmp_path / "sbd", voc


def _mat(path, mask):
    savemat(path, {"GTcls": {"Segmentation": mask, "CategoriesPresent": np.unique(mask)}})


def test_own_masks_come_first_and_the_rest_from_sbd(folders):
    sbd, voc = folders
    seen = []
    out = build_voc_aug(sbd, voc, progress=lambda *step: seen.append(step))
    assert sorted(p.name for p in out.iterdir()) == ["a.png", "b.png", "c.png"]
    assert seen[-1] == (3, 3)
    data = open_dataset(voc, "voc", "train_aug", masks=True, tags="masks")
    assert np.unique(data.mask(0)).tolist() == [255]
    assert np.unique(data.mask(1)).tolist() == [7]
    with pytest.raises(DataError, match="is there already"):
        build_voc_aug(sbd, voc)


def test_nothing_half_made_stays_behind(folders):
    sbd, voc = folders
    cls = sbd / "benchmark_RELEASE" / "dataset" / "cls"
    (cls / "b.mat").write_bytes(b"MATLAB 5.0 MAT-file, but not really")
    with pytest.raises(DataError, match=r"b\.mat"):
        build_voc_aug(sbd, voc)
    (cls / "b.mat").unlink()
    with pytest.raises(DataError, match="'b' has a mask neither in"):
        build_voc_aug(sbd, voc)
    assert sorted(p.name for p in voc.iterdir()) == ["ImageSets", "JPEGImages", "SegmentationClass"]
    with pytest.raises(DataError, match=r"no \.mat masks"):
        build_voc_aug(voc, voc)


def test_other_mat_files_are_refused(tmp_path):
    savemat(tmp_path / "x.mat", {"GTinst": 3})
    _mat(tmp_path / "y.mat", np.full((4, 4), 33, np.uint8))
    _mat(tmp_path / "z.mat", np.zeros((4, 4)))
    for name in "xyzw":
        with pytest.raises(DataError, match=rf"{name}\.mat"):
            read_sbd_mask(tmp_path / f"{name}.mat")

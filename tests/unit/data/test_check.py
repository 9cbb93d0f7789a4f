from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tagmask.data.check import check
from tagmask.errors import DataError
from tests.toy import toy_root


@pytest.fixture
def root(tmp_path):
    return toy_root(tmp_path, num_train=4, num_val=3)


def _kinds(report, fatal=True):
    return {problem.kind: problem.name for problem in report.problems if problem.fatal == fatal}


def test_a_sound_data_set_is_ok(root):
    seen = []
    report = check(root, progress=lambda done, total: seen.append((done, total)))
    assert report.ok
    assert (report.kind, report.num_images, report.num_masks) == ("folder", 7, 3)
    assert report.smallest == report.largest == (64, 64)
    assert seen[-1] == (7, 7)
    assert sum(report.classes.values()) >= 7 - report.negatives
    text = report.text()
    assert "7 images" in text
    assert "problems: none" in text
    assert "stripes" in text


def test_everything_wrong_is_named(root):
    images, masks = root / "images", root / "masks"
    (images / "00000.png").write_bytes((images / "00000.png").read_bytes()[:99])
    (images / "00001.png").unlink()
    Image.fromarray(np.zeros((64, 63), np.uint8)).save(masks / "00004.png")
    Image.fromarray(np.full((64, 64), 77, np.uint8)).save(masks / "00005.png")
    rows = (
        root / "tags.csv"
    ).read_text() + "00002.png,dots,train\n00003.png,stripse,train\n../x.png,dots,train\n"
    (root / "tags.csv").write_text(rows)
    report = check(root)
    assert not report.ok
    assert _kinds(report) == {
        "unreadable image": "00000",
        "missing image": "00001.png",
        "mask of another size": "00004",
        "unusable mask": "00005",
        "duplicate row": "00003.png",
        "path outside": "../x.png",
    }
    assert "missing mask" in _kinds(report, fatal=False)
    text = report.text(limit=1)
    assert "holds the values 77" in text
    assert "and 1 more" in text
    assert check(root, split="val", masks=False).ok


def test_unknown_tags_and_tags_the_mask_contradicts(root):
    names = [f"{i:05d}.png" for i in range(7)]
    rows = [f"{name},{'stripse' if name == '00000.png' else 'rings'}" for name in names]
    (root / "tags.csv").write_text("\n".join(["image,tags", *rows]))
    for name in ("00004", "00005", "00006"):
        Image.fromarray(np.full((64, 64), 1, np.uint8)).save(root / "masks" / f"{name}.png")
    report = check(root)
    assert _kinds(report) == {"unknown tag": "00000.png"}
    assert "Did you mean 'stripes'" in report.text()
    notes = _kinds(report, fatal=False)
    assert "the mask shows stripes" in report.text()
    assert {"mask without tag", "class without images"} <= set(notes)


def test_masks_can_be_demanded(root):
    report = check(root, masks=True)
    assert not report.ok
    assert {p.kind for p in report.problems if p.fatal} == {"missing mask"}


def test_what_cannot_be_listed_raises(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        check(tmp_path / "nowhere")
    (tmp_path / "tags.csv").write_text("")
    with pytest.raises(DataError, match="no rows"):
        check(tmp_path)

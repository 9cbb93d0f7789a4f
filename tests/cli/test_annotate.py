"""Masks of a run to the files of annotation tools and back."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from tagmask.store.labels import read_mask
from tests.cli import tagmask


@pytest.mark.parametrize("name", ["coco", "cvat", "cvat-coco", "label-studio", "labelme", "voc", "yolo"])
def test_masks_of_a_run_come_back(finished: Path, tmp_path: Path, name: str):
    out = tmp_path / ("x.json" if name in ("coco", "label-studio") else "x.zip" if "cvat" in name else "x")
    done = tagmask("annotate", "export", finished, "--format", name, "--out", out, "--what", "labels")
    assert done.exit_code == 0, done.stderr
    count = len(list((finished / "labels").glob("*.png")))
    assert f"{count} images" in done.stdout
    # CVAT's and VOC's pictures look alike, and so do COCO's in and out of an archive: no name is needed.
    done = tagmask("annotate", "import", out, finished, "--out", tmp_path / "back", "--empty", "all")
    assert done.exit_code == 0, done.stderr
    for path in (finished / "labels").glob("*.png"):
        back, there = read_mask(tmp_path / "back" / path.name), read_mask(path)
        if name in ("yolo", "labelme"):
            assert (back == np.where(there == 255, 0, there)).mean() > 0.9
        else:
            np.testing.assert_array_equal(back, there if name == "voc" else np.where(there == 255, 0, there))


def test_equal_masks_give_equal_archives(finished: Path, tmp_path: Path):
    for place in ("a.zip", "b.zip"):
        done = tagmask("annotate", "export", finished, "--format", "cvat", "--out", tmp_path / place)
        assert done.exit_code == 0, done.stderr
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_pictures_and_classes_can_be_named(finished: Path, toy: Path, tmp_path: Path):
    args = ["--images", toy / "images", "--classes", toy / "classes.txt"]
    done = tagmask(
        "annotate", "export", finished / "masks", "--format", "yolo", "--out", tmp_path / "y", *args
    )
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "y" / "data.yaml").is_file()
    done = tagmask("annotate", "export", finished / "masks", "--format", "yolo", "--out", tmp_path / "z")
    assert done.exit_code == 2
    assert "--images DIR" in done.stderr


def test_what_cannot_be_used_is_named_and_nothing_is_written(finished: Path, tmp_path: Path):
    done = tagmask("annotate", "export", finished, "--format", "cvatt", "--out", tmp_path / "x.zip")
    assert (done.exit_code, "Did you mean 'cvat'" in done.stderr) == (2, True)
    done = tagmask(
        "annotate", "export", finished, "--format", "yolo", "--shapes", "exact", "--out", tmp_path / "x.zip"
    )
    assert (done.exit_code, "it holds polygons" in done.stderr) == (2, True)
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("SegmentationClass/../../00012.png", b"x")
    done = tagmask("annotate", "import", tmp_path / "evil.zip", finished, "--out", tmp_path / "back")
    assert (done.exit_code, "leads out of the archive" in done.stderr) == (2, True)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "00012.json").write_text('{"shapes": []}')
    (tmp_path / "half" / "00013.json").write_text("{")
    done = tagmask("annotate", "import", tmp_path / "half", finished, "--out", tmp_path / "back")
    assert (done.exit_code, "not JSON" in done.stderr) == (2, True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evil.zip", "half"]

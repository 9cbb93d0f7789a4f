"""A person's own masks and annotations on their way through the commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tagmask.store.labels import read_mask, write_mask
from tests.cli import tagmask, train_args


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Three pictures of a dog and a cat."""
    root = tmp_path / "data"
    for k in range(3):
        path = root / "images" / f"im{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(k).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    (root / "tags.csv").write_text("image,tags\n" + "".join(f"im{k}.png,dog cat\n" for k in range(3)))
    return root


def test_empty_predictions_of_masks_with_255_score_nothing(mine: Path, tmp_path: Path):
    (mine / "tags.csv").write_text("image,tags\n" + "".join(f"im{k}.png,cat\n" for k in range(3)))
    mask = np.zeros((64, 64), np.uint8)
    mask[10:50, 10:50] = 255
    run = tmp_path / "run"
    assert tagmask(*train_args(mine, run, 1)).exit_code == 0
    for k in range(3):
        write_mask(mine / "masks" / f"im{k}.png", mask)
        write_mask(run / "masks" / f"im{k}.png", mask * 0)
    done = tagmask("evaluate", run, "--what", "segmentation", "--masks", mine / "masks")
    assert done.exit_code == 0, done.stderr
    (file,) = (run / "scores").glob("*.json")
    record = json.loads(file.read_text())
    assert record["iou"]["cat"] == 0
    assert record["miou"] < 0.5
    assert "255 is read as 'cat'" in " ".join(tagmask("data", "check", mine).stdout.split())


def test_a_score_without_true_pixels_says_so(mine: Path, tmp_path: Path):
    run = tmp_path / "run"
    assert tagmask(*train_args(mine, run, 1)).exit_code == 0
    for k in range(3):
        write_mask(mine / "masks" / f"im{k}.png", np.zeros((64, 64), np.uint8))
        write_mask(run / "masks" / f"im{k}.png", np.zeros((64, 64), np.uint8))
    done = tagmask("evaluate", run, "--what", "segmentation", "--masks", mine / "masks")
    assert done.exit_code == 0, done.stderr
    assert "rests on the background alone" in " ".join(done.stdout.split())


def test_only_annotated_images_correct_a_training(mine: Path, tmp_path: Path):
    box = [[10, 10, 30, 10, 30, 30, 10, 30]]
    content = {
        "images": [{"id": k, "file_name": f"im{k}.png", "width": 64, "height": 64} for k in range(3)],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 2, "segmentation": box}],
    }
    part = tmp_path / "part.json"
    part.write_text(json.dumps(content))
    run = tmp_path / "run"
    done = tagmask(*train_args(mine, run, 1, "--corrections", str(part)))
    assert done.exit_code == 0, done.stderr
    assert "1 corrected images" in done.stderr
    assert "left out: 2 without annotation" in " ".join(done.stderr.split())
    assert [path.name for path in (run / "train" / "corrections").glob("*.png")] == ["im0.png"]
    assert set(np.unique(read_mask(run / "train" / "corrections" / "im0.png"))) == {0, 1}

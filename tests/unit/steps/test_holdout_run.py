"""A run on a folder without any split: what is taught, what is scored, and what gets a mask."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tagmask.cli.main import app
from tagmask.models.checkpoint import read_header

TINY = [
    "method=more",
    "model.backbone=tagmask_demo",
    "model.aux_block=-2",
    "model.scales=[1.0]",
    "model.decoder_width=16",
    "train.iterations=2",
    "train.batch_size=2",
    "train.size=48",
    "train.log_every=1",
    "train.eval_every=0",
    "train.tensorboard=false",
    "segment.scales=[1.0]",
    "runtime.device=cpu",
]


@pytest.fixture
def root(tmp_path):
    rng, rows = np.random.default_rng(0), ["image,tags"]
    (tmp_path / "data" / "images").mkdir(parents=True)
    for i in range(50):
        pixels = rng.integers(0, 255, (48, 48, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / "images" / f"p{i}.png")
        rows.append(f"p{i}.png,{('cat', 'dog')[i % 2]}")
    (tmp_path / "data" / "tags.csv").write_text("\n".join(rows))
    return tmp_path / "data"


def train(root, out, *further):
    settings = [part for value in TINY for part in ("--set", value)]
    words = ["train", "--recipe", "demo", "--data", str(root), "--out", str(out), *settings, *further]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.slow
def test_tags_are_scored_on_images_that_were_not_taught_and_every_image_gets_a_mask(root, tmp_path):
    out = tmp_path / "run"
    said = train(root, out)
    assert "5 of 50 images are held out for scoring tags" in said
    assert "--no-holdout" in said
    results = json.loads((out / "run.json").read_text())["steps"]["train"]["results"]
    assert results["tags"]["images"] == 5
    assert 0 <= results["tags"]["map"] <= 1
    done = CliRunner().invoke(app, ["segment", str(out)])
    assert done.exit_code == 0, done.output
    assert len(list((out / "masks").glob("*.png"))) == 50
    again = CliRunner().invoke(app, ["segment", str(out)])
    assert "unchanged" in again.output


def test_without_holdout_all_are_taught(root, tmp_path):
    out = tmp_path / "run"
    assert "held out for scoring" not in train(root, out, "--no-holdout")
    assert "tags" not in json.loads((out / "run.json").read_text())["steps"]["train"]["results"]


def test_the_check_says_it(root):
    done = CliRunner().invoke(app, ["data", "check", str(root)])
    assert "splits: none named; 5 of 50 images are held out for scoring tags" in done.output
    rows = list(csv.reader((root / "tags.csv").read_text().splitlines()))[:20]
    (root / "tags.csv").write_text("\n".join(",".join(row) for row in rows))
    done = CliRunner().invoke(app, ["data", "check", str(root)])
    assert "splits: none named; all images are used for training" in done.output


def test_a_correction_of_a_kept_image_teaches(root, tmp_path):
    from tagmask.data.parts import DataConfig, Parts

    held = Parts(DataConfig(root=root)).held_out().names
    folder = tmp_path / "corrected"
    folder.mkdir()
    for name in (held[0], "p1" if "p1" not in held else "p2"):
        Image.fromarray(np.ones((48, 48), np.uint8)).save(folder / f"{name}.png")
    out = tmp_path / "run"
    assert "2 corrected images" in train(root, out, "--corrections", str(folder))
    results = json.loads((out / "run.json").read_text())["steps"]["train"]["results"]
    assert results["tags"]["images"] == 4


def test_a_run_of_an_earlier_version_goes_on_with_all_images(root, tmp_path):
    from tagmask.pipeline.config import read_config

    out = tmp_path / "run"
    train(root, out, "--no-holdout")
    lines = (out / "settings.yaml").read_text().splitlines()
    (out / "settings.yaml").write_text("\n".join(line for line in lines if "holdout" not in line))
    assert read_config(out).data.holdout == 0
    assert read_config("demo").data.holdout == 0.1


def test_the_score_on_the_way_names_the_classes_without_a_true_pixel(root, tmp_path):
    (root / "masks").mkdir()
    for i in range(50):
        mask = np.zeros((48, 48), np.uint8)
        mask[:20] = i % 2 == 0
        Image.fromarray(mask).save(root / "masks" / f"p{i}.png")
    out = tmp_path / "run"
    said = train(root, out, "--set", "train.eval_every=2", "--set", "train.eval_images=2")
    line = next(line for line in said.splitlines() if "step 2: mIoU" in line)
    assert "no true pixel of dog: left out of the mean" in line
    results = json.loads((out / "run.json").read_text())["steps"]["train"]["results"]
    assert results["doubts"] == ["no true pixel of dog: left out of the mean"]
    assert read_header(out / "model")["extra"]["doubts"] == results["doubts"]

"""WeakTr from one command: both phases, going on where it stopped, and its second phase on any labels."""

from __future__ import annotations

import json
import signal

import pytest
import yaml

from tagmask.models.checkpoint import load_model
from tests.cli import tagmask
from tests.cli.strike import struck

VIT = "vit:patch=16,dim=24,depth=2,heads=2,size=64"
TRAIN = {"iterations": 6, "batch_size": 2, "size": 64, "save_every": 2, "eval_every": 0, "tensorboard": False}
NETWORK = {"backbone": f"mask:{VIT}", "weights": "none", "position_size": 64, "clip_patch": 32}
SEGMENT = {
    "short_side": 70,
    "scales": [0.75, 1.25],
    "sampling": "opencv",
    "window": 64,
    "flip": "mean",
    "merge": "mean",
    "probabilities": True,
    "exits": [0.8, 1.0],
    "crf": "weaktr_voc",
}
RECIPE = {
    "runtime": {"threads": 1},
    "method": "weaktr",
    "model": {"backbone": VIT, "weights": "none", "epochs": 3},
    "train": {**TRAIN, "view": "imagenet"},
    "localize": {"split": "both"},
    "refine": {"split": "both", "method": "crf", "crf": "weaktr_label_voc", "background": 0.43},
    "student": {
        "method": "segmenter",
        "model": NETWORK,
        "train": {
            **TRAIN,
            "view": "short_side_crop",
            "eval_every": 6,
            "eval_segment": {"short_side": 70, "window": 64},
        },
    },
    "segment": SEGMENT,
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, toy):
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "data": {"root": str(toy)}}))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory, recipe):
    out = tmp_path_factory.mktemp("weaktr") / "whole"
    result = tagmask("run", recipe, "--out", out)
    assert result.exit_code == 0, result.stderr
    return out


def same_student(first, second):
    a, b = (load_model(folder / "student" / "model")[0] for folder in (first, second))
    return a.keys() == b.keys() and all(a[key].equal(b[key]) for key in a)


def test_one_command_runs_both_phases(whole):
    steps = json.loads((whole / "run.json").read_text())["steps"]
    assert list(steps) == [
        "train",
        "localize",
        "refine",
        "student",
        "segment",
        "evaluate",
        "verdict",
        "report",
    ]
    assert {step["status"] for step in steps.values()} == {"done"}
    assert "segmentation" in steps["student"]["results"]["scores"]
    assert len(list((whole / "masks").glob("*.png"))) == 4
    log = (whole / "student" / "train" / "log.csv").read_text().splitlines()[0]
    assert "clipped_pixels" in log


@pytest.mark.slow
def test_stopping_between_the_phases_changes_nothing(whole, recipe, tmp_path):
    for arguments in (("--until=refine",), ()):
        result = tagmask("run", recipe, "--out", tmp_path / "run", *arguments)
        assert result.exit_code == 0, result.stderr
    assert "refine: done before" in result.stderr + result.stdout
    assert same_student(whole, tmp_path / "run")


@pytest.mark.slow
def test_a_kill_inside_phase_two_changes_nothing(whole, recipe, tmp_path):
    out = tmp_path / "run"
    arguments = ("run", recipe, "--out", out)
    exit_code, stderr = struck(signal.SIGKILL, "saved student/train/checkpoints 1", arguments)
    assert exit_code == -signal.SIGKILL, stderr
    again = tagmask(*arguments)
    assert again.exit_code == 0, again.stderr
    assert same_student(whole, out)


def test_phase_two_learns_from_any_folder_of_labels(whole, toy, tmp_path):
    settings = [f"--set=model.{key}={value}" for key, value in NETWORK.items() if key != "backbone"]
    settings += [f"--set=train.{key}={value}" for key, value in TRAIN.items()]
    result = tagmask(
        "train",
        "--data",
        toy,
        "--method=segmenter",
        f"--backbone={NETWORK['backbone']}",
        "--labels",
        whole / "labels",
        "--out",
        tmp_path / "run",
        "--set=train.view=short_side_crop",
        "--device=cpu",
        *settings,
    )
    assert result.exit_code == 0, result.stderr
    assert load_model(tmp_path / "run" / "model")[1]["settings"]["clip_start"] == 1.2


def test_a_folder_without_labels_is_refused(toy, tmp_path):
    flags = ["--method=segmenter", f"--backbone={NETWORK['backbone']}", "--weights=none", "--size=480"]
    result = tagmask("train", "--data", toy, *flags, "--labels", tmp_path, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "label" in result.stderr

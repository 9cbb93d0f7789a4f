"""A whole multi-stage run: classifier, maps, labels, affinity, random walk, student."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import yaml

from tagmask.store.labels import read_mask
from tests.cli import tagmask
from tests.cli.strike import struck
from tests.cli.test_nothing_lost import checksums

VIT = "vit:patch=8,dim=32,depth=4,heads=2,size=64"
TRAIN = {"iterations": 4, "batch_size": 2, "size": 64, "save_every": 2, "eval_every": 0, "tensorboard": False}
RECIPE = {
    "method": "aream",
    # Another number of threads adds up in another order: the last bits of the weights differ.
    "runtime": {"threads": 1},
    "model": {"backbone": VIT, "weights": "none", "affinity_from": 2},
    "train": {**TRAIN, "view": "imagenet"},
    "localize": {"split": "both"},
    "refine": {"split": "both", "method": "crf", "crf": "psa_softmax", "power": [1, 12]},
    "affinity": {
        "method": "affinity_net",
        "model": {"backbone": VIT, "weights": "none", "feature_width": 8, "radius": 3, "optimiser": "adamw"},
        "train": {**TRAIN, "view": "affinity_crop"},
    },
    "walk": {"split": "both", "steps": 8, "crf": "label_50_5"},
    "student": {
        "method": "segmenter",
        "model": {"backbone": VIT, "weights": "none", "optimiser": "adamw"},
        "labels": "walk",
        "train": {**TRAIN, "view": "batch_scale_crop", "eval_every": 4},
    },
    "segment": {"scales": [0.5, 1.0], "probabilities": True, "sampling": "corners", "crf": "seg38"},
}
STEPS = [
    "train",
    "localize",
    "refine",
    "affinity",
    "walk",
    "student",
    "segment",
    "evaluate",
    "verdict",
    "report",
]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, toy):
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "data": {"root": str(toy)}}))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory, recipe):
    out = tmp_path_factory.mktemp("multi") / "whole"
    result = tagmask("run", recipe, "--out", out)
    assert result.exit_code == 0, result.stderr
    return out


def steps_of(folder):
    return json.loads((folder / "run.json").read_text())["steps"]


def test_every_step_is_done_in_order(whole):
    steps = steps_of(whole)
    assert list(steps) == STEPS
    assert {step["status"] for step in steps.values()} == {"done"}
    for name in ("", "affinity", "student"):
        assert (whole / name / "model" / "weights.safetensors").is_file()
    assert steps["walk"]["inputs"]["model"] != steps["localize"]["inputs"]["model"]
    for folder in ("labels", "walks"):
        names = sorted(path.stem for path in (whole / folder).glob("*.png"))
        assert len(names) == 16  # both parts
    assert len(list((whole / "masks").glob("*.png"))) == 4
    walked = [read_mask(path) for path in (whole / "walks").glob("*.png")]
    assert all(set(np.unique(label)) <= set(range(6)) for label in walked)


def test_scores_of_every_stage_stand_side_by_side(whole):
    records = {p.stem: json.loads(p.read_text()) for p in (whole / "scores").glob("*.json")}
    assert sorted(records) == ["val-cam", "val-label", "val-segmentation", "val-walk"]
    steps = steps_of(whole)
    assert records["val-walk"]["refined"]["beta"] == 8
    assert records["val-walk"]["crf"] is True
    assert records["val-cam"]["model"] == steps["localize"]["inputs"]["model"]
    assert records["val-segmentation"]["model"] == steps["segment"]["inputs"]["model"]
    page = (whole / "report.html").read_text()
    assert "random walk" in page


def test_nothing_is_done_twice_and_a_change_redoes_what_follows(whole, recipe):
    before = steps_of(whole)
    again = tagmask("run", recipe, "--out", whole)
    assert again.exit_code == 0
    assert steps_of(whole) == before
    changed = tagmask("run", recipe, "--out", whole, "--set", "walk.beta=4", "--until", "student")
    assert changed.exit_code == 0, changed.stderr
    after = steps_of(whole)
    assert {name for name in STEPS if after[name] != before[name]} == {"walk", "student"}
    restored = tagmask("run", recipe, "--out", whole)
    assert restored.exit_code == 0, restored.stderr


def test_steps_can_be_called_one_by_one(recipe, tmp_path):
    out = tmp_path / "steps"
    assert tagmask("run", recipe, "--out", out, "--until", "refine").exit_code == 0
    for command, made in (("affinity", "affinity/model"), ("walk", "walks"), ("student", "student/model")):
        result = tagmask(command, out)
        assert result.exit_code == 0, result.stderr
        assert made in result.stdout.replace("\n", "")


def test_entropy_is_printed_drawn_and_ready_to_use(whole, recipe, tmp_path):
    result = tagmask("entropy", whole, "--split", "val")
    assert result.exit_code == 0, result.stderr
    record = json.loads((whole / "entropy.json").read_text())
    assert len(record["entropy"]) == 4
    assert (min(record["weights"]), max(record["weights"])) == (0, 1)
    assert (whole / "entropy.svg").read_text().lstrip().startswith("<?xml")
    setting = result.stdout.replace("\n", "").split("--set ")[1].strip().strip("'")
    trained = tagmask("run", recipe, "--out", tmp_path / "weighed", "--until", "train", "--set", setting)
    assert trained.exit_code == 0, trained.stderr


def test_wrong_orders_are_explained(recipe, finished, tmp_path):
    early = tagmask("run", recipe, "--out", tmp_path / "early", "--from", "walk", "--until", "walk")
    assert early.exit_code == 2
    assert "Traceback" not in early.stderr
    single = tagmask("walk", finished)
    assert single.exit_code == 2
    assert "has no affinity" in single.stderr
    crf = tagmask("run", recipe, "--out", tmp_path / "crf", "--set", "refine.power=[12,1]")
    assert crf.exit_code == 2
    assert "the small one first" in crf.stderr


@pytest.mark.parametrize(
    ("step", "flags"),
    [
        ("walk", ["--map-kind", "bogus"]),
        ("walk", ["--crf", "more"]),
        ("walk", ["--crf", "denser"]),
        ("walk", ["--split", "test"]),
        ("walk", ["--data", "/nope"]),
        ("affinity", ["--set", "affinity.train.view=bogus"]),
        ("affinity", ["--set", "affinity.train.iterations=5"]),
        ("affinity", ["--set", "affinity.model.radios=5"]),
        ("affinity", ["--set", "affinity.labels=walks"]),
        ("student", ["--set", "student.train.batch_size=3", "--set", "student.train.accumulate=2"]),
        ("student", ["--set", "student.method=segmentor"]),
        ("student", ["--data", "/nope"]),
        ("entropy", ["--split", "test"]),
        ("entropy", ["--set", "entropy.size=2"]),
        ("run", ["--set", "student.train.view=bogus"]),
        ("run", ["--set", "walk.crf=more"]),
        ("run", ["--set", "affinity.train.eval_maps.size=2"]),
    ],
)
def test_a_wrong_flag_changes_nothing(whole, step, flags):
    before = checksums(whole)
    refused = tagmask(step, whole, *(("--out", whole) if step == "run" else ()), *flags)
    assert refused.exit_code == 2, refused.output
    assert checksums(whole) == before


def test_a_learner_that_replaces_another_is_kept_apart(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    other = ("--set", "student.train.iterations=3")
    replaced = tagmask("student", run, *other, "--overwrite")
    assert replaced.exit_code == 0, replaced.stderr
    assert steps_of(run)["student"]["results"]["iterations"] == 3
    assert not (run / ".unfinished").exists()
    back = tagmask("run", run, "--out", run, "--overwrite")
    assert back.exit_code == 0, back.stderr
    assert contents(run / "student" / "model") == contents(whole / "student" / "model")
    assert tagmask("check", run).exit_code == 0


@pytest.mark.slow
def test_killed_in_every_stage_it_still_ends_with_the_same_files(tmp_path, recipe, whole):
    out = tmp_path / "run"
    moments = [
        "saved train/checkpoints 1",
        "noted localize 3",
        "noted refine 3",
        "saved affinity/train/checkpoints 1",
        "noted walk 3",
        "saved student/train/checkpoints 1",
        "swapped segment 1",
        "working evaluate 1",
        "complete report 1",
    ]
    for moment in moments:
        exit_code, stderr = struck(signal.SIGKILL, moment, ("run", recipe, "--out", out))
        assert exit_code == -signal.SIGKILL, (moment, stderr)
        assert moment.split()[1] not in {"evaluate", "report"} & steps_of(out).keys()
    finished = tagmask("run", recipe, "--out", out)
    assert finished.exit_code == 0, finished.stderr
    for folder in ("model", "maps", "labels", "affinity/model", "walks", "student/model", "masks"):
        assert contents(out / folder) == contents(whole / folder), folder
    assert scores(out) == scores(whole)
    assert {step["status"] for step in steps_of(out).values()} == {"done"}
    assert (out / "report.html").is_file()


def scores(folder: Path) -> dict[str, dict[str, object]]:
    return {path.name: json.loads(path.read_text()) for path in (folder / "scores").glob("*.json")}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "meta.json"
    }

"""A folder of images alone: settings are found, masks made, and a verdict given."""

from __future__ import annotations

import json
import random

import pytest
import yaml

from tests.cli import tagmask

TINY = (
    "--backbone=vit:patch=8,dim=32,depth=2,heads=2,size=64", "--weights=none", "--size=64", "--batch-size=2",
    "--device=cpu", "--precision=fp32", "--iterations=4", "--set=model.aux_block=-2",
    "--set=student.model.train_blocks=2",
    "--set=train.tensorboard=false", "--set=runtime.threads=1", "--set=student.train.batch_size=2",
    "--set=student.train.size=64", "--set=localize.size=64", "--set=segment.size=64",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory, toy):
    out = tmp_path_factory.mktemp("auto") / "run"
    result = tagmask("run", toy, "--out", out, *TINY)
    assert result.exit_code == 0, result.stderr
    return out, result


def test_it_ends_with_masks_decisions_and_a_verdict(run, toy):
    out, result = run
    settings = yaml.safe_load((out / "settings.yaml").read_text())
    assert settings["student"]["train"]["iterations"] == 4
    told = json.loads((out / "verdict.json").read_text())
    assert told["level"] in ("bad", "doubtful")  # four updates teach nothing
    assert f"verdict: {told['level']}" in result.stderr + result.stdout
    assert f"Verdict: {told['level']}" in (out / "report.html").read_text()
    fitted = json.loads((out / "run.json").read_text())["steps"]["refine"]["results"]["fitted"]
    assert fitted["maps"] == "attention_cam"
    assert 0 <= fitted["threshold"] < 1


def test_the_student_begins_with_the_runs_own_model(run):
    out, _ = run
    record = json.loads((out / "run.json").read_text())["steps"]["student"]
    assert record["settings"]["begin"] == "model"
    assert "model" in record["inputs"]


def test_the_same_command_finds_everything_done(run, toy):
    out, _ = run
    again = tagmask("run", toy, "--out", out, *TINY)
    assert again.exit_code == 0, again.stderr
    assert again.stderr.count("done before, unchanged") >= 6


def test_time_is_for_auto_only(toy, tmp_path):
    result = tagmask("run", "small", "--data", toy, "--time", "5m", "--out", tmp_path / "x")
    assert result.exit_code == 2
    assert "recipe auto" in result.stderr
    assert not (tmp_path / "x").exists()


def test_shuffled_tags_are_called_bad(tmp_path, demo_masks_and_tags):
    """Perfect masks beside tags of other images: nobody should use both together."""
    facts = demo_masks_and_tags
    told, shuffled = facts(False), facts(True)
    assert told.level == "usable", told.lines
    assert shuffled.level == "bad", shuffled.lines


@pytest.fixture
def demo_masks_and_tags():
    import torch

    from tagmask.review.verdict import Facts, judge
    from tagmask.steps.verdict import agreement

    rng = random.Random(0)
    tags = torch.zeros(60, 5)
    for row in tags:
        row[rng.sample(range(5), rng.choice([1, 2]))] = 1

    def made(shuffle: bool):
        found = tags[torch.randperm(60, generator=torch.Generator().manual_seed(1))] if shuffle else tags
        return judge(Facts(60, 0.0, 0.0, 0.0, agreement=agreement(tags, found)), "x")

    return made


def test_a_student_that_cannot_be_built_is_refused_before_anything_is_learned(toy, tmp_path):
    result = tagmask("run", toy, "--out", tmp_path / "x", *TINY, "--set=student.model.train_blocks=4")
    assert result.exit_code == 2
    assert "train_blocks is 4, the backbone has 2" in result.stderr
    assert not (tmp_path / "x" / "train").exists()

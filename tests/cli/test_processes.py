"""Several processes give what one gives with the same global batch, and end together."""

from __future__ import annotations

import csv
import re

import pytest

from tagmask.models.checkpoint import load_model
from tests.cli import TINY, tagmask, train_args
from tests.cli.launch import Forked, launch

ITERATIONS = 4
EACH = ("--batch-size=4", "--set=train.log_every=1", "--set=train.eval_every=2")
# AFA as it is, with every random part and every loss in use from the first updates on.
AFA = ("--method=afa", "--backbone=mit_b0", "--set=model.tags_until=0", "--set=model.walk_after=2")
PLAIN = tuple(flag for flag in TINY if not flag.startswith(("--method", "--backbone", "--set=model")))
METHODS = {
    "more": (*TINY, "--set=model.seg_from=1"),
    "afa": (*AFA, "--set=model.head_width=32", *PLAIN, "--set=train.eval_maps.kinds=[cam]"),
}


def train(data, out, method, *more):
    return [
        "train",
        "--data",
        data,
        "--out",
        out,
        f"--iterations={ITERATIONS}",
        *METHODS[method],
        *EACH,
        *more,
    ]


def losses(folder, skip=("steps_per_second", "images_per_second")):
    with (folder / "train" / "log.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in skip} for row in csv.DictReader(file)]


def finish(process, code=0):
    stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == code, stderr
    return stdout, stderr


@pytest.mark.slow
@pytest.mark.parametrize("method", ["more", "afa"])
def test_two_processes_equal_one_with_two_micro_batches(tmp_path, toy, method):
    one, two = tmp_path / "one", tmp_path / "two"
    alone = tagmask(*train(toy, one, method, "--set=train.accumulate=2"))
    assert alone.exit_code == 0, alone.stderr
    # Once as programs of their own, as users start them.
    start = {"more": launch, "afa": Forked}[method]
    stdout, stderr = finish(start(2, train(toy, two, method, "--set=train.gradient_checkpointing=true")))
    assert stdout.count("model:") == 1
    assert "batch of 4 images: 2 processes x 1 micro-batches x 2 images" in stderr
    assert losses(one) == losses(two)
    first, second = load_model(one / "model")[0], load_model(two / "model")[0]
    statistics = "running_mean", "running_var", "num_batches_tracked"
    assert all(first[k].equal(second[k]) for k in first if not k.endswith(statistics))
    if method == "more":
        assert (one / "train" / "scores.csv").read_text() == (two / "train" / "scores.csv").read_text()


@pytest.mark.slow
def test_four_processes_run_and_two_go_on_from_where_they_stopped(tmp_path, toy):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    split = "--set=train.accumulate=4"
    assert tagmask(*train(toy, whole, "more", split)).exit_code == 0
    finish(Forked(4, train(toy, parts, "more", "--set=train.save_every=2")))
    assert close(losses(whole), losses(parts))


def close(first, second, bound=1e-5):
    return all(
        float(a[k]) == pytest.approx(float(b[k]), rel=bound)
        for a, b in zip(first, second, strict=True)
        for k in a
        if a[k]
    )


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_job_with_a_message_and_resume_goes_on(tmp_path, toy, victim):
    out, whole = tmp_path / "run", tmp_path / "whole"
    arguments = train_args(toy, out, 8, "--batch-size=4", "--set=train.save_every=2")
    _, stderr = finish(Forked(2, arguments, strike=f"KILL@{victim} updated - 5"), code=1)
    assert re.search(rf"error: process {1 - victim} of 2 lost contact", stderr)
    finish(Forked(2, [*arguments, "--resume"]))
    alone = tagmask(*train_args(toy, whole, 8, "--batch-size=4", "--set=train.accumulate=2"))
    assert alone.exit_code == 0, alone.stderr
    first, second = load_model(out / "model")[0], load_model(whole / "model")[0]
    assert all(first[k].equal(second[k]) for k in first)


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path, toy):
    result = tagmask(*train_args(toy, tmp_path / "o", 1, "--set=train.accumulate=3"))
    assert result.exit_code == 2
    assert "must be a multiple of 3" in result.stderr

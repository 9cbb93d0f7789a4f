"""Signals and kills: what was done stays done, and going on gives what never stopping would have given."""

from __future__ import annotations

import signal

import pytest

from tagmask.models.checkpoint import load_model
from tests.cli import tagmask, train_args
from tests.cli.strike import struck

ITERATIONS = 12


def same_weights(first, second) -> bool:
    a, b = load_model(first / "model")[0], load_model(second / "model")[0]
    return a.keys() == b.keys() and all(a[k].equal(b[k]) for k in a)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, toy):
    out = tmp_path_factory.mktemp("unbroken") / "run"
    result = tagmask(*train_args(toy, out, ITERATIONS, "--set=train.save_every=2"))
    assert result.exit_code == 0, result.stderr
    return out


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_saves_and_resume_gives_the_same_weights(tmp_path, toy, unbroken, signum, code):
    out = tmp_path / "run"
    arguments = train_args(toy, out, ITERATIONS, "--set=train.save_every=2")
    exit_code, stderr = struck(signum, "saved train/checkpoints 1", arguments)
    assert exit_code == code, stderr
    assert "--resume to continue" in stderr
    assert "Traceback" not in stderr
    refused = tagmask(*arguments)
    assert refused.exit_code == 2
    assert "--resume" in refused.stderr
    resumed = tagmask(*arguments, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert same_weights(out, unbroken)
    steps = [line.split(",")[0] for line in (out / "train" / "log.csv").read_text().splitlines()[1:]]
    assert steps == sorted(set(steps), key=int)


@pytest.mark.slow
def test_kill_and_the_same_command_finishes_the_run(tmp_path, toy, unbroken):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text((unbroken / "settings.yaml").read_text())
    out = tmp_path / "run"
    arguments = ["run", recipe, "--out", out, "--until", "segment"]
    for moment in ("saved train/checkpoints 2", "noted localize 2", "noted refine 2", "complete segment 1"):
        exit_code, stderr = struck(signal.SIGKILL, moment, arguments)
        assert exit_code == -signal.SIGKILL, (moment, stderr)
    assert tagmask(*arguments).exit_code == 0
    whole = tagmask("run", unbroken, "--out", unbroken, "--until", "segment")
    assert whole.exit_code == 0, whole.stderr
    assert same_weights(out, unbroken)
    for folder in ("maps", "labels", "masks"):
        files = {p.relative_to(unbroken): p.read_bytes() for p in (unbroken / folder).rglob("*.*")}
        assert files == {p.relative_to(out): p.read_bytes() for p in (out / folder).rglob("*.*")}


def test_resume_starts_anew_where_nothing_was_saved(tmp_path, toy):
    done = tagmask(*train_args(toy, tmp_path / "new", 1, "--resume"))
    assert done.exit_code == 0, done.stderr


def test_full_disk_keeps_the_last_state_and_says_so(tmp_path, toy, monkeypatch):
    from tagmask.models import checkpoint

    real, calls = checkpoint.save_file, []

    def fills_up(*args):
        calls.append(args[1])
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        return real(*args)

    monkeypatch.setattr(checkpoint, "save_file", fills_up)
    out = tmp_path / "run"
    arguments = train_args(toy, out, 6, "--set=train.save_every=2")
    result = tagmask(*arguments)
    assert result.exit_code == 2
    assert "No space left on device" in result.stderr
    monkeypatch.undo()
    left = sorted(p.name for p in (out / "train" / "checkpoints").iterdir())
    assert left == ["step-00000002.safetensors", "step-00000004.safetensors"]
    assert tagmask(*arguments, "--resume").exit_code == 0

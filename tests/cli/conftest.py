from __future__ import annotations

from pathlib import Path

import pytest

from tagmask.pipeline import speed
from tests.cli import tagmask, train_args
from tests.toy import toy_root


@pytest.fixture(autouse=True)
def _quick_plan(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One look at the clock is enough for a plan, unless the test reads what the plan says of time."""
    if request.module.__name__.rpartition(".")[2] not in ("test_plan", "test_auto"):
        monkeypatch.setattr(speed, "_SLOW", 0.0)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_root(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, toy: Path) -> Path:
    """A run with every step done; tests must not change it."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    first = tagmask(*train_args(toy, out, 3, "--set=train.eval_every=2", "--set=train.save_every=2"))
    assert first.exit_code == 0, first.stderr
    rest = tagmask("run", out, "--out", out)
    assert rest.exit_code == 0, rest.stderr
    return out

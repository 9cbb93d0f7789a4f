"""AFA against the stored outputs that are present here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.parity.cases import afa, afa_network, afa_step
from tests.parity.check import run_case

CASES = {**afa.CASES, **afa_network.CASES, **afa_step.CASES}
FOLDERS = [Path(__file__).parent / "data"]
if extra := os.environ.get("TAGMASK_PARITY"):
    FOLDERS.append(Path(extra))


PARAMETERS = [pytest.param(n, marks=[pytest.mark.slow] * ("train_step" in n)) for n in sorted(CASES)]


@pytest.mark.parametrize("name", PARAMETERS)
def test_case(name):
    files = [folder / f"{name}.npz" for folder in FOLDERS if (folder / f"{name}.npz").is_file()]
    if not files:
        pytest.skip("no such file; set TAGMASK_PARITY to a folder that has it")
    failed = [c for c in run_case(files[-1], CASES) if not c.passes()]
    assert not failed, [(c.name, c.difference(), c.tolerance) for c in failed]

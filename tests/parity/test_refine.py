"""The stored refinement cases, from this folder and from $TAGMASK_PARITY."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.parity.cases.refine import CASES
from tests.parity.check import run_case

FOLDERS = [Path(__file__).parent / "data", *map(Path, filter(None, [os.environ.get("TAGMASK_PARITY")]))]


@pytest.mark.parametrize("name", sorted(CASES))
def test_stored_outputs_are_reproduced(name):
    found = [path for folder in FOLDERS if (path := folder / f"{name}.npz").is_file()]
    if not found:
        pytest.skip(f"{name}.npz is not here; set TAGMASK_PARITY to a folder that has it")
    checks = run_case(found[0], CASES)
    assert checks
    assert not [(c.name, c.difference(), c.tolerance) for c in checks if not c.passes()]

"""A few kills at random moments; ``tools/kill_steps.py --kills 40`` does it to every command of a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_commands_killed_at_random_end_with_the_same_files(tmp_path):
    out = tmp_path / "kills.json"
    command = [sys.executable, ROOT / "tools" / "kill_steps.py", "--only", "train", "predict"]
    done = subprocess.run(
        [*command, "--kills", "3", "--out", out],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert found["kills"] >= 2
    assert found["differing_files"] == 0, found

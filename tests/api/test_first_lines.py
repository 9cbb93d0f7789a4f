"""Every first line works, and strict type checking finds the wrong ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tagmask
from tests.api.first_lines import LINES, SMALL, Place
from tests.toy import toy_root

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("lines")
    data = toy_root(root)
    tagmask.train(data, method="more", out=root / "run", iterations=1, settings=SMALL, progress=False)
    return data, root / "run"


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.__name__)
def test_the_line_gives_what_it_promises(line, trained, tmp_path):
    data, run = trained
    line(Place(data, Path(shutil.copytree(run, tmp_path / "a_run")), tmp_path))


def test_there_are_forty():
    assert len(set(LINES)) >= 40


WRONG = """
import numpy as np

import tagmask
from tagmask.ops import paar

tagmask.lod("runs/first")
tagmask.losses.mean_cross_entropi
tagmask.train("mydata", iteration=5)
tagmask.open_dataset("mydata", mask=True)
tagmask.load("runs/first").predct("a.png")
tagmask.metrics.mean_iou(np.zeros((2, 2)), np.zeros((2, 2)), classes=2)
"""


@pytest.mark.slow
def test_strict_type_checking_passes_the_lines_and_finds_wrong_names(tmp_path):
    pytest.importorskip("mypy")
    script = tmp_path / "script.py"
    script.write_text(WRONG, encoding="utf-8")
    # With the project's own settings, which are strict too, and its cache: PyTorch is not read once more.
    done = subprocess.run(
        [sys.executable, "-m", "mypy", HERE / "first_lines.py", script],
        capture_output=True, text=True, check=False, cwd=HERE.parent.parent,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert not [line for line in lines if "first_lines.py" in line], done.stdout
    numbers = {int(line.split(":")[1]) for line in lines if "script.py" in line}
    assert numbers == {5, 7, 8, 9, 10, 11, 12}, done.stdout

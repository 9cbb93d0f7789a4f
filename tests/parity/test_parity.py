"""Every stored output of the originals that is at hand: tests/parity/data, and $TAGMASK_PARITY if set."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from tests.parity import check
from tests.parity.check import known_cases, main, run_case
from tests.parity.golden import forget_weights

DATA = Path(__file__).parent / "data"
EXTRA = os.environ.get("TAGMASK_PARITY")
FILES = {
    path.stem: path for folder in (DATA, *([Path(EXTRA)] if EXTRA else [])) for path in folder.glob("*.npz")
}
# Whole training steps and multi-scale passes of full-size networks take seconds each.
SLOW = re.compile(
    r"_step|_ms_|msf|msinfer|msc|_infer|_b[25]$|train|psa_cls|seg_forward|conformer_(cam|entropy)|transcam_(forward|cam)|voc_val"
)


CASES = [pytest.param(name, marks=[pytest.mark.slow] if SLOW.search(name) else []) for name in sorted(FILES)]


@pytest.fixture(scope="module", autouse=True)
def _weights_go():
    yield
    forget_weights()


@pytest.mark.parametrize("name", CASES)
def test_stored_outputs_are_reproduced(name):
    checks = run_case(FILES[name], known_cases())
    assert checks
    assert not [(c.name, c.difference(), c.tolerance) for c in checks if not c.passes()]


def test_the_stored_files_stay_small():
    assert sum(path.stat().st_size for path in DATA.glob("*.npz")) < 25e6


def test_an_unknown_case_is_refused(tmp_path, capsys):
    stranger = tmp_path / "unheard_of.npz"
    stranger.write_bytes((DATA / "metrics_multilabel.npz").read_bytes())
    assert main([str(stranger)]) == 2
    assert "REFUSED" in capsys.readouterr().out


def test_a_damaged_file_is_refused(tmp_path):
    damaged = tmp_path / "metrics_multilabel.npz"
    damaged.write_bytes(b"PK\x03\x04 not an archive")
    assert main([str(damaged)]) == 2


def test_a_crash_in_one_file_does_not_stop_the_rest(tmp_path, capsys, monkeypatch):
    def crash(golden):
        raise TypeError("of another kind")

    monkeypatch.setattr(check, "known_cases", lambda: {**known_cases(), "crashes": crash})
    broken = tmp_path / "crashes.npz"
    broken.write_bytes((DATA / "metrics_multilabel.npz").read_bytes())
    assert main([str(broken), str(DATA / "metrics_multilabel.npz")]) == 1
    said = capsys.readouterr().out
    assert "crashes.npz: FAILED, TypeError" in said
    assert "metrics_multilabel.npz: ok" in said


def test_a_difference_is_reported(tmp_path, capsys):
    with np.load(DATA / "metrics_multilabel.npz") as archive:
        arrays = {key: archive[key] for key in archive.files}
    arrays["output/mean"] = arrays["output/mean"] + 0.1
    changed = tmp_path / "metrics_multilabel.npz"
    np.savez(changed, **arrays)
    assert main([str(changed)]) == 1
    assert "BAD mean" in capsys.readouterr().out

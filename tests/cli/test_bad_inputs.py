"""Every bad input is answered by one line and an exit code; nothing it holds is executed."""

from __future__ import annotations

import pytest

from tests.cli import tagmask
from tests.cli.bad_inputs import CASES, Case, Place


def test_there_are_enough_and_no_two_are_alike():
    assert len(CASES) >= 60
    assert len({(case.command, case.came) for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=[f"{case.command}: {case.came}" for case in CASES])
def test_bad_input(case: Case, tmp_path, toy, finished):
    place = Place(tmp_path, toy, finished)
    arguments = case.arguments(place)
    result = tagmask(*case.command.split(), *arguments)
    answer = " ".join(result.stderr.split())
    assert result.exit_code == case.code, result.output
    assert "Traceback" not in result.output
    assert "internal error" not in result.output
    for word in case.words:
        assert word in answer, answer
    assert len(answer) < 1500
    assert not (tmp_path / "executed").exists()
    assert not list(tmp_path.rglob("*.partial"))
    assert not (place.out / "model").exists()

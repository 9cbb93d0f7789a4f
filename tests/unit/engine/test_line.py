"""A line of progress keeps what matters at any width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tagmask.engine.line import Progressed, left_text, progress_line
from tagmask.engine.log import Display

BUSY = Progressed(
    "2/6 localize", 1234, 20000, 0.4, 86000.0, True, "loss 0.1234  cls 0.3456  seg 1.234  energy 0.5678"
)


@pytest.mark.parametrize("width", [80, 100, 200])
def test_count_rate_and_time_stay_whatever_the_figures(width):
    line = progress_line(BUSY, width)
    assert len(line) <= width
    for part in ("2/6 localize", "1234/20000", "2.5 s/it", "eta 13:01:55", "all 36:55:15+"):
        assert part in line
    assert ("energy" in line) == (width == 200)
    assert ("─" in line) == (width == 200)
    assert "seg 1.2" not in line or "seg 1.234" in line, "a figure is whole or not there"


def test_a_length_of_time():
    assert [left_text(s) for s in (0.4, 59.6, 750, 11100)] == ["0:00", "1:00", "12:30", "3:05:00"]


def test_before_the_first_item_nothing_is_promised():
    line = progress_line(Progressed("train", 0, 60, 0.0), 80)
    assert "- it/s" in line
    assert "eta -" in line
    assert "all" not in line


def test_a_terminal_of_80_columns_gets_one_line():
    stream = io.StringIO()
    display = Display(console=Console(file=stream, force_terminal=True, width=80))
    display.step(1, 6, 100.0)
    with display.task("train", total=1000) as task:
        for _ in range(3):
            task.advance()
        task.show(dict.fromkeys(("loss", "cls", "seg", "energy", "token", "mct"), 0.12345))
        display.progress.refresh()
    text = stream.getvalue()
    shown = text[text.rindex("1/6 train", 0, text.rindex("3/1000")) :].split("\x1b")[0].splitlines()[0]
    assert "3/1000" in shown
    assert "eta" in shown
    assert len(shown.rstrip()) <= 80

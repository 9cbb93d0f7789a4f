from __future__ import annotations

import csv
import io
import os

import pytest
from rich.console import Console

from tagmask.engine.log import CsvLog, Display, TensorBoardLog


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_grows_by_columns_and_forgets_steps_after_the_resumed_one(tmp_path):
    log = CsvLog(tmp_path / "log.csv")
    log.write(1, {"loss": 2.0})
    log.write(2, {"loss": 1.0, "seg": 0.5})
    log.write(3, {"loss": 0.5, "seg": 0.25})
    assert rows(tmp_path / "log.csv")[0] == {"step": "1", "loss": "2", "seg": ""}
    resumed = CsvLog(tmp_path / "log.csv", start=2)
    resumed.write(3, {"loss": 0.75})
    assert [(r["step"], r["loss"], r["seg"]) for r in rows(tmp_path / "log.csv")] == [
        ("1", "2", ""),
        ("2", "1", "0.5"),
        ("3", "0.75", ""),
    ]
    CsvLog(tmp_path / "log.csv")
    assert rows(tmp_path / "log.csv") == []


def test_doubts_stand_beside_the_figures_they_are_about(tmp_path):
    log = CsvLog(tmp_path / "scores.csv")
    log.write(1, {"cam": 0.5})
    assert (tmp_path / "scores.csv").read_text() == "step,cam\n1,0.5\n"
    log.write(2, {"cam": 0.6}, ["no true pixel of cat", "background alone"])
    assert [row["doubts"] for row in rows(log.path)] == ["", "no true pixel of cat; background alone"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
def test_a_pipe_in_the_place_of_a_log_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "log.csv")
    log = CsvLog(tmp_path / "log.csv", start=2)
    log.write(3, {"loss": 0.5})
    assert rows(tmp_path / "log.csv") == [{"step": "3", "loss": "0.5"}]


def test_display_on_a_terminal_shows_rate_eta_and_losses():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120)
    display = Display(console=console)
    with display.task("train", total=10) as task:
        for _ in range(5):
            task.advance()
        task.show({"loss": 0.5})
        display.progress.refresh()
    text = stream.getvalue()
    assert "5/10" in text
    assert "it/s" in text
    assert "eta" in text
    assert "loss 0.5" in text


def test_quiet_display_writes_nothing(capsys):
    display = Display(quiet=True)
    with display.task("train", total=2) as task:
        task.advance(2)
    display.say("hello")
    assert capsys.readouterr() == ("", "")


def test_tensorboard_file_holds_the_scalars(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = TensorBoardLog(tmp_path)
    log.write(7, {"loss": 1.5})
    log.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(7, 1.5)]

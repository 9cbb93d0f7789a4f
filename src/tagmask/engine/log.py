"""What a person sees while it runs, and what is kept: progress display, CSV, TensorBoard."""

from __future__ import annotations

import csv
import io
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, ProgressColumn
from rich.progress import Task as RichTask
from rich.text import Text

from tagmask.engine.line import Progressed, figures_text, progress_line

__all__ = ["CsvLog", "Display", "Task", "TensorBoardLog", "keep_scores"]

_PLAIN_EVERY = 10.0
PLAIN_WIDTH = 80
"""Columns of a line that is not on a terminal."""
_LOG = logging.getLogger("tagmask")


class _Line(ProgressColumn):
    """The whole line, as wide as the terminal."""

    max_refresh = None

    def __init__(self, display: Display) -> None:
        super().__init__()
        self._display = display

    def render(self, task: RichTask) -> Text:
        """The line's text."""
        work = self._display.progressed(
            task.description, int(task.completed), None if task.total is None else int(task.total),
            task.finished_speed or task.speed or 0.0, task.fields["figures"],
        )  # fmt: skip
        return Text(progress_line(work, self._display.console.width), no_wrap=True)


class Task:
    """One long piece of work on the display.

    Args:
        display: Where it is shown.
        title: A word or two.
        total: Number of items; None if unknown.
        done: Items finished before (a resumed run).
    """

    def __init__(self, display: Display, title: str, total: int | None, done: int) -> None:
        self._display = display
        self._title, self._total, self._first, self._done = title, total, done, done
        self._start = self._spoken = time.monotonic()
        self._figures = ""
        self._id = (
            display.progress.add_task(title, total=total, completed=done, figures="")
            if display.live
            else None
        )

    def advance(self, count: int = 1) -> None:
        """Note that `count` more items are done."""
        self._done += count
        if self._id is not None:
            self._display.progress.update(self._id, completed=self._done)
        elif time.monotonic() - self._spoken > _PLAIN_EVERY:
            self._speak()

    def set(self, done: int, total: int | None = None) -> None:
        """Note how many items are done, and how many there are, if that was unknown."""
        if total is not None and total != self._total:
            self._total = total
            if self._id is not None:
                self._display.progress.update(self._id, total=total)
        self.advance(done - self._done)

    def show(self, figures: Mapping[str, float]) -> None:
        """Show the latest losses or scores beside the bar."""
        self._figures = figures_text(figures)
        if self._id is not None:
            self._display.progress.update(self._id, figures=self._figures)

    def close(self) -> None:
        """Take the work off the display."""
        if self._id is not None:
            self._display.progress.stop_task(self._id)
            self._display.progress.remove_task(self._id)

    def _speak(self) -> None:
        # Without a terminal (a log file, CI) a bar would be noise: one plain line now and then.
        self._spoken = time.monotonic()
        speed = (self._done - self._first) / max(self._spoken - self._start, 1e-9)
        work = self._display.progressed(self._title, self._done, self._total, speed, self._figures)
        self._display.say(progress_line(work, PLAIN_WIDTH, bar=False))


class Display:
    """Progress of a run on the terminal (standard error), or plain lines where there is none.

    Args:
        quiet: Show nothing at all (processes other than the first, the Python API).
        console: Where to write instead.
    """

    def __init__(self, quiet: bool = False, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, quiet=quiet, highlight=False)
        self.live = self.console.is_terminal and not self.console.quiet
        self.progress = Progress(_Line(self), console=self.console, transient=True, expand=True)
        self._before = ""
        self._later: float | None = None
        self._vague = False

    def step(self, number: int, count: int, later: float, vague: bool = False) -> None:
        """One step of several comes next; lines say so from now on.

        Args:
            number: Which, from 1.
            count: How many there are.
            later: Seconds that the steps after it take.
            vague: Whether for some of them nobody knows.
        """
        self._before, self._later, self._vague = f"{number}/{count} ", later, vague

    def progressed(
        self, title: str, done: int, total: int | None, speed: float, figures: str = ""
    ) -> Progressed:
        """How far a piece of work is, with what comes after it."""
        return Progressed(self._before + title, done, total, speed, self._later, self._vague, figures)

    def say(self, text: str) -> None:
        """One line of text, also to the logger "tagmask"."""
        # Marked, so that a log on the same terminal need not repeat it.
        _LOG.info(text, extra={"shown": not self.console.quiet})
        self.console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def task(self, title: str, total: int | None = None, done: int = 0) -> Iterator[Task]:
        """A piece of work, shown while the context lasts.

        Args:
            title: A word or two.
            total: Number of items; None if unknown.
            done: Items finished before.

        Yields:
            The task to advance.
        """
        outer = self.live and not self.progress.live.is_started
        if outer:
            self.progress.start()
        task = Task(self, title, total, done)
        try:
            yield task
        finally:
            task.close()
            if outer:
                self.progress.stop()


class CsvLog:
    """A table that grows by rows and, when a new figure turns up, by columns.

    Args:
        path: The file; rows up to step `start` of an earlier run are kept.
        start: Steps done before.
    """

    def __init__(self, path: Path, start: int = 0) -> None:
        self.path = path
        self._rows: list[dict[str, Any]] = []
        self._fields = ["step"]
        if start and path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                self._rows = [
                    row for row in reader if (row.get("step") or "").isdigit() and int(row["step"]) <= start
                ]
                self._fields = list(reader.fieldnames or self._fields)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or (path.exists() and not path.is_file()):
            path.unlink()  # what it leads to is not ours to write to, and a pipe would wait
        self._rewrite()

    def write(self, step: int, figures: Mapping[str, float], doubts: Sequence[str] = ()) -> None:
        """Add one row; what speaks against its figures gets a column, if there is anything."""
        row = {"step": step, **{name: f"{value:.6g}" for name, value in figures.items()}}
        row |= {"doubts": "; ".join(doubts)} if doubts else {}
        self._rows.append(row)
        new = [name for name in row if name not in self._fields]
        if new:
            self._fields += new
            self._rewrite()
        else:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                file.write(self._text([row]))

    def _rewrite(self) -> None:
        text = self._text(self._rows)
        self.path.write_text(",".join(self._fields) + "\n" + text, encoding="utf-8", newline="")

    def _text(self, rows: list[dict[str, Any]]) -> str:
        buffer = io.StringIO()
        csv.DictWriter(buffer, self._fields, restval="", lineterminator="\n").writerows(rows)
        return buffer.getvalue()


def keep_scores(logs: Iterable[Any], step: int, scores: Mapping[str, float], doubts: Sequence[str]) -> None:
    """Give scores to every log; a table also gets what speaks against them."""
    for log in logs:
        log.write(step, scores, *([doubts] if isinstance(log, CsvLog) else []))


class TensorBoardLog:
    """Scalars for TensorBoard.

    Args:
        folder: Where the event files go.
        start: Steps done before; later ones of an earlier run are hidden.
    """

    def __init__(self, folder: Path, start: int = 0) -> None:
        # Costs a second to import, and only a training needs it.
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), purge_step=start or None)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Add one point to every curve."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()

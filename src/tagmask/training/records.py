"""What a training left out: updates that were not finite, images that could not be read."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from tagmask.data.readers.regular import read_text
from tagmask.store.files import atomic_write

__all__ = ["Records"]


class Records:
    """Two tables beside the log, each there only if there is something to say.

    ``skipped.csv`` holds step and images of every skipped update, ``quarantine.csv`` name and reason of every
    image that could not be read; every process writes its own, the second ``skipped-1.csv`` and so on.

    Args:
        folder: Where they are.
        rank: Number of the process.
        start: Steps done before; what an earlier run noted later than that is dropped.
    """

    def __init__(self, folder: Path, rank: int, start: int) -> None:
        mark = f"-{rank}" if rank else ""
        self._skipped, self._broken = folder / f"skipped{mark}.csv", folder / f"quarantine{mark}.csv"
        self._steps = [row for row in _read(self._skipped) if row[0].isdigit() and int(row[0]) <= start]
        self._known = dict(row for row in _read(self._broken) if len(row) == 2)

    def skipped(self, step: int, names: Sequence[str]) -> None:
        """Note an update that changed nothing because its loss or gradient was not finite."""
        self._steps.append([str(step), " ".join(names)])
        _write(self._skipped, ("step", "images"), self._steps)

    def broken(self, found: Mapping[str, str]) -> bool:
        """Note images that cannot be read; True if any of them is new."""
        new = {name: reason for name, reason in found.items() if name not in self._known}
        if new:
            self._known |= new
            _write(self._broken, ("image", "reason"), sorted(self._known.items()))
        return bool(new)


def _read(path: Path) -> list[list[str]]:
    if not path.exists():
        return []
    return list(csv.reader(io.StringIO(read_text(path))))[1:]


def _write(path: Path, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with atomic_write(path) as target, target.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *rows])

"""What a prediction says about every picture: one line each, written as it is made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tagmask.data import ClassTable
from tagmask.data.datasets.tagcells import join_tags
from tagmask.data.tables import csv_text
from tagmask.errors import ConfigError, DataError
from tagmask.inference.pictures import Named
from tagmask.inference.place import Place
from tagmask.store.files import atomic_write
from tagmask.store.ledger import FileState, file_state, is_whole

__all__ = [
    "Counts",
    "Summary",
    "check_key",
    "each_row",
    "files_of",
    "is_whole_row",
    "row_of",
    "row_of_counts",
    "table_head",
    "table_row",
]

_UNSURE = 0.5
_MUCH = 0.3
_PIXELS = 1 << 22


@dataclass
class Counts:
    """What is counted of a mask, part by part.

    Attributes:
        height: Rows of the picture; of a stack, those of all its slices.
        width: Columns.
        tiles: How many tiles it took.
        labels: How often every label occurs, (256,).
        levels: How often every confidence occurs, 255 being 1, (256,).
    """

    height: int
    width: int
    tiles: int = 1
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    levels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))

    def add(self, mask: NDArray[np.uint8], confidence: NDArray[np.uint8]) -> None:
        """Count a part: labels and their probability, both (h, w) uint8."""
        self.labels += _histogram(mask)
        self.levels += _histogram(confidence)


def row_of(
    picture: Named,
    mask: NDArray[np.uint8],
    confidence: NDArray[np.uint8],
    classes: ClassTable,
    tags: Sequence[int] | None,
    tiles: int,
) -> dict[str, Any]:
    """The figures of one picture.

    Args:
        picture: What it was.
        mask: Labels, (H, W) uint8.
        confidence: Probability of the labels, (H, W) uint8, 255 being 1.
        classes: What the labels mean.
        tags: 0-based classes it was tagged with, if it was.
        tiles: How many tiles it took.
    """
    found = Counts(mask.shape[0], mask.shape[1], tiles)
    found.add(mask, confidence)
    return row_of_counts(picture, found, classes, tags)


def row_of_counts(
    picture: Named, found: Counts, classes: ClassTable, tags: Sequence[int] | None
) -> dict[str, Any]:
    """The figures of a picture whose mask was counted part by part, see `row_of`."""
    counts, levels, size = found.labels, found.levels, found.height * found.width
    areas = {name: round(int(counts[k]) / size, 6) for k, name in enumerate(classes.names, 1) if counts[k]}
    unsure = float(levels[: round(255 * _UNSURE)].sum() / size)
    warnings = []
    if tags is not None:
        missing = [classes.names[k] for k in tags if classes.names[k] not in areas]
        warnings += [f"no pixel of the tag {name}" for name in missing]
    elif not areas:
        warnings.append("nothing found")
    if unsure > _MUCH:
        warnings.append(f"unsure about {100 * unsure:.0f} % of the pixels")
    return {
        "name": picture.name,
        "file": picture.file,
        "source": picture.source,
        "stamp": picture.stamp,
        "height": found.height,
        "width": found.width,
        "classes": areas,
        "confidence": round(float(levels @ np.arange(256)) / 255 / size, 4),
        "unsure": round(unsure, 4),
        "tiles": found.tiles,
        "warnings": warnings,
    }


def _histogram(plane: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often every value occurs, (256,)."""
    counts = np.zeros(256, np.int64)
    # bincount makes 8 bytes of every pixel it is given, so it gets a few rows at a time.
    step = max(1, _PIXELS // max(plane.shape[1], 1))
    for top in range(0, len(plane), step):
        counts += np.bincount(plane[top : top + step].reshape(-1), minlength=256)
    return counts


def files_of(folder: Path, files: Sequence[Path]) -> dict[str, Any]:
    """What a row notes about the files just made of its picture, so that damage shows later.

    Returns:
        {"files": {path below `folder`: [checksum, bytes, time of the last change in ns]}}
    """
    states = {path.relative_to(folder).as_posix(): file_state(path) for path in files if path.is_file()}
    return {"files": {name: [s.sha256, s.size, s.mtime_ns] for name, s in states.items()}}


def is_whole_row(folder: Path, row: Mapping[str, Any], outputs: Sequence[Path] | None = None) -> bool:
    """Whether all files of a picture are as its row noted them; rows of before 0.2 noted nothing.

    Args:
        folder: Where the files are.
        row: The row.
        outputs: Files that must be among them.
    """
    try:
        known = {folder / name: FileState(*state) for name, state in row["files"].items()}
    except (KeyError, TypeError, AttributeError):
        return False
    wanted: Iterable[Path] = known if outputs is None else outputs
    return bool(known) and all(path in known and is_whole(path, known[path]) for path in wanted)


def each_row(place: Place) -> Iterator[dict[str, Any]]:
    """The figures of every picture that a folder of predictions holds, one after the other.

    Raises:
        DataError: ``summary.jsonl`` cannot be read.
    """
    try:
        yield from (json.loads(line) for line in place.lines("summary.jsonl") if line.strip())
    except (OSError, ValueError) as error:
        raise DataError(f"{place}/summary.jsonl cannot be read ({error}); predict again") from None


class Summary:
    """``summary.jsonl`` while it grows; use it as a context.

    Args:
        folder: Where it is.
        key: Digest of model and settings; masks of another one are not mixed with these.
        overwrite: Start anew where the key differs.

    Raises:
        ConfigError: The folder holds masks of other settings.
        DataError: It cannot be read or written.

    Attributes:
        rows: Figures by name, those of earlier calls included.
        failed: (source, reason).
        before: How many pictures were done before.
    """

    def __init__(self, folder: Path, key: str, overwrite: bool) -> None:
        self._folder, self._file = folder, folder / "summary.jsonl"
        self.failed: list[tuple[str, str]] = []
        self.before = 0
        self._seen: set[str] = set()
        self._known = self._earlier(key, overwrite)
        self.rows: dict[str, dict[str, Any]] = {}
        self._stream: IO[str] | None = None

    def _earlier(self, key: str, overwrite: bool) -> dict[str, dict[str, Any]]:
        if not check_key(Place(self._folder), key, overwrite):
            return {}
        rows = {}
        lines = self._file.read_text(encoding="utf-8").splitlines() if self._file.is_file() else []
        for line in lines:
            try:
                row = json.loads(line)
                rows[row["name"]] = row
            except (ValueError, KeyError, TypeError):
                continue  # the line a kill cut off; its picture is done again
        return rows

    def __enter__(self) -> Summary:
        self._write_all(self._known.values())
        try:
            self._stream = self._file.open("a", encoding="utf-8")
        except OSError as error:
            raise DataError(f"cannot write {self._file}: {error.strerror}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def _write_all(self, rows: Any) -> None:
        with atomic_write(self._file) as target:
            target.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")

    def is_done(self, picture: Named, outputs: Sequence[Path]) -> bool:
        """Whether a picture was finished before, and neither it nor what it became has changed since."""
        row = self._known.get(picture.name)
        done = (
            row is not None
            and (row.get("source"), row.get("stamp")) == (picture.source, picture.stamp)
            and is_whole_row(self._folder, row, outputs)
        )
        if done and row is not None:
            self.rows[picture.name] = row
            self.before += 1
        return done

    def add(self, row: dict[str, Any]) -> None:
        """Note a finished picture."""
        self.rows[row["name"]] = row
        if self._stream is not None:
            try:
                self._stream.write(f"{json.dumps(row)}\n")
                self._stream.flush()
            except OSError as error:
                raise DataError(f"cannot write {self._file}: {error.strerror}") from None

    def fail(self, source: str, reason: str) -> None:
        """Note what could not be done."""
        self.failed.append((source, reason))

    def finish(self, classes: ClassTable) -> None:
        """Write the final ``summary.jsonl``, ``summary.csv`` and ``failed.csv``."""
        rows = [self.rows[name] for name in sorted(self.rows)]
        self._write_all(rows)
        table = [table_head(classes), *(table_row(row, classes) for row in rows)]
        _write_csv(self._folder / "summary.csv", table)
        _write_csv(self._folder / "failed.csv", [("source", "reason"), *self.failed])


_HEAD = ("name", "source", "height", "width", "classes", "confidence", "unsure", "warnings")


def table_head(classes: ClassTable) -> list[str]:
    """First line of ``summary.csv``."""
    return [*_HEAD, *(f"area of {name}" for name in classes.names)]


def table_row(row: Mapping[str, Any], classes: ClassTable) -> list[Any]:
    """The line of one picture in ``summary.csv``."""
    found = join_tags(list(row["classes"]), classes.names)
    plain = {**row, "classes": found, "warnings": "; ".join(row["warnings"])}
    return [*(plain[key] for key in _HEAD), *(row["classes"].get(name, 0) for name in classes.names)]


def check_key(place: Place, key: str, overwrite: bool) -> bool:
    """Whether a folder holds masks of this model and these settings; notes that it does from now on.

    Raises:
        ConfigError: It holds masks of others, and they shall not be replaced.
    """
    same = False
    if place.state("predict.json") is not None:
        try:
            same = json.loads(place.read("predict.json"))["key"] == key
        except (OSError, ValueError, KeyError, TypeError):
            same = False
        if not same and not overwrite:
            raise ConfigError(
                f"{place} holds masks of another model, other settings or other tags; choose another "
                "--out, or replace them with --overwrite"
            )
    place.write("predict.json", (json.dumps({"key": key}, indent=2) + "\n").encode())
    return same


def _write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    with atomic_write(path) as target:
        target.write_text(csv_text(rows), encoding="utf-8", newline="")

"""One worker of a bulk run: takes chunks of the plan, leaves masks and a note that says the chunk is done."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmask.engine.config import RuntimeConfig
from tagmask.errors import UserError
from tagmask.inference.pictures import Picture
from tagmask.inference.remote import Item, read_item
from tagmask.inference.summary import is_whole_row
from tagmask.inference.writer import PredictConfig, begin, finish_all, take, work_key
from tagmask.models.trained import load_trained
from tagmask.store.files import atomic_write, digest, write_json

__all__ = ["Job", "Plan", "Worker", "read_notes"]

_CAREFUL = 3
_POISON = 2


@dataclass(frozen=True)
class Job:
    """What every worker is told.

    Attributes:
        model: Model folder, seen by all machines.
        out: Output folder, seen by all machines.
        config: How pictures are predicted.
        runtime: Where.
        session: Differs between starts of the program.
    """

    model: Path
    out: Path
    config: PredictConfig
    runtime: RuntimeConfig
    session: str


class Plan:
    """The chunks of a run on disk: ``plan.jsonl``, a line each, and where every line starts.

    Args:
        folder: The run's folder ``bulk``.

    Attributes:
        keys: Of every chunk, a digest of its items, the model and the settings.
        sizes: Of every chunk, the number of its items.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys: list[str] = []
        self.sizes: list[int] = []
        self._starts = folder / "plan.npy"
        self._file = folder / "plan.jsonl"

    def write(self, chunks: Iterator[list[Item]], key: str) -> None:
        """Write the plan.

        Args:
            chunks: The items of every chunk.
            key: Digest of model and settings.
        """
        starts = [0]
        with atomic_write(self._file) as target, target.open("wb") as file:
            for items in chunks:
                rows = [list(asdict(item).values()) for item in items]
                self.keys.append(digest([key, rows]))
                file.write(json.dumps([self.keys[-1], rows]).encode() + b"\n")
                starts.append(file.tell())
                self.sizes.append(len(items))
        with atomic_write(self._starts) as target, target.open("wb") as file:
            np.save(file, np.asarray(starts, np.int64))

    def chunk(self, index: int) -> tuple[str, list[Item]]:
        """Key and items of a chunk."""
        starts = np.load(self._starts, mmap_mode="r")
        with self._file.open("rb") as file:
            file.seek(int(starts[index]))
            key, rows = json.loads(file.read(int(starts[index + 1] - starts[index])))
        return key, [Item(*row) for row in rows]

    def note(self, key: str) -> Path:
        """The file that says a chunk is done."""
        return self.folder / "done" / key[:2] / f"{key}.jsonl"

    def told(self, key: str) -> tuple[list[dict[str, Any]], list[tuple[str, str]]] | None:
        """What the note of a chunk says, see `read_notes`; None if there is none that can be read."""
        try:
            return read_notes(self.note(key))
        except (OSError, ValueError, TypeError):
            return None

    def is_done(self, key: str, out: Path) -> bool:
        """Whether a chunk was done, and what it made below `out` is whole."""
        told = self.told(key)
        return told is not None and all(is_whole_row(out, row) for row in told[0])


def read_notes(path: Path) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Figures of the finished pictures of a chunk, and what failed."""
    rows, failed = [], []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if "failed" in row:
            failed.append(tuple(row["failed"]))
        else:
            rows.append(row)
    return rows, failed


class Worker:
    """Callable on batches of chunk numbers; lives in its own process.

    Args:
        job: What to do.
    """

    def __init__(self, job: Job) -> None:
        self._job, self._plan = job, Plan(job.out / "bulk")
        trained = load_trained(job.model)
        self._rows: list[dict[str, Any]] = []
        self._failed: list[tuple[str, str]] = []
        self._work = begin(
            job.config,
            trained,
            job.runtime.create(),
            job.out,
            self._rows.append,
            lambda source, reason: self._failed.append((source, reason)),
        )
        self.key = work_key(self._work, trained)

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Do chunks; gives their numbers of images and failures, and an error that ends the run, if any."""
        images, failed, errors = [], [], []
        for index in batch["chunk"].tolist():
            error = ""
            try:
                self._chunk(index)
            except UserError as problem:
                error = str(problem)
            images.append(len(self._rows))
            failed.append(len(self._failed))
            errors.append(error)
        return {"images": np.array(images), "failed": np.array(failed), "error": np.array(errors)}

    def _chunk(self, index: int) -> None:
        self._rows.clear()
        self._failed.clear()
        self._work.waiting.clear()
        key, items = self._plan.chunk(index)
        note = self._plan.note(key)
        if (told := self._plan.told(key)) is not None:
            whole, self._failed[:] = [row for row in told[0] if is_whole_row(self._job.out, row)], told[1]
            self._rows.extend(whole)
            finished = {row["source"] for row in whole} | {source for source, _ in told[1]}
            items = [item for item in items if item.source not in finished]
            if not items:
                return
        tries = _Tries(self._plan.folder / "tries" / key, self._job.session)
        if tries.count < _CAREFUL:
            for item in items:
                take(self._work, self._picture(item))
            finish_all(self._work)
        else:
            # Somebody here may be what kills the workers: one at a time, and remember which.
            for item in items:
                if tries.deaths(item.name) >= _POISON:
                    self._failed.append((item.source, "the worker that took it died, more than once"))
                    continue
                tries.holding(item.name)
                take(self._work, self._picture(item))
                finish_all(self._work)
        with atomic_write(note) as target, target.open("w", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(row)}\n" for row in self._rows)
            file.writelines(f"{json.dumps({'failed': one})}\n" for one in self._failed)
        tries.forget()

    def _picture(self, item: Item) -> Picture:
        read = partial(read_item, item, self._job.config.max_pixels, self._work.reading)
        return Picture(item.name, item.file, item.source, item.stamp, read)


class _Tries:
    """How often workers have died on a chunk since the program started, and what they held then."""

    def __init__(self, path: Path, session: str) -> None:
        self._path = path
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        if known.get("session") != session:
            known = {"session": session, "count": 0, "held": None, "deaths": {}}
        if known["held"] is not None:
            known["deaths"][known["held"]] = known["deaths"].get(known["held"], 0) + 1
        self._known = {**known, "count": known["count"] + 1, "held": None}
        self._write()

    @property
    def count(self) -> int:
        return int(self._known["count"])

    def deaths(self, name: str) -> int:
        return int(self._known["deaths"].get(name, 0))

    def holding(self, name: str) -> None:
        self._known["held"] = name
        self._write()

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        write_json(self._path, self._known)

"""One worker of a bulk run: takes chunks of the plan, leaves masks and a note that says the chunk is done."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tagmask.engine.config import RuntimeConfig
from tagmask.errors import UserError
from tagmask.inference.pictures import Picture
from tagmask.inference.place import Place
from tagmask.inference.remote import Item, read_item
from tagmask.inference.shard import Ahead, Shard
from tagmask.inference.summary import is_whole_row
from tagmask.inference.whole import take_whole
from tagmask.inference.writer import PredictConfig, begin, finish_all, take, work_key
from tagmask.models.trained import load_trained
from tagmask.store.files import PerhapsLater, digest

__all__ = ["Job", "Note", "Plan", "Worker", "read_note"]

_CAREFUL = 3
_POISON = 2
_PAUSE = 5.0


@dataclass(frozen=True)
class Job:
    """What every worker is told.

    Attributes:
        model: Model folder, seen by all machines.
        out: Output folder, seen by all machines; a path or a URL.
        config: How pictures are predicted.
        runtime: Where.
        session: Differs between starts of the program.
        shards: Whether the files of a chunk become one tar archive.
        patience: Seconds for which a full disk, or a store that does not answer, is waited for.
    """

    model: Path
    out: Path | str
    config: PredictConfig
    runtime: RuntimeConfig
    session: str
    shards: bool = False
    patience: float = 0.0


class Note(NamedTuple):
    """What is known of a finished chunk.

    Attributes:
        rows: Figures of its pictures.
        failed: (source, reason) of those that could not be done.
        shard: Name, size and stamp of its archive; None if there is none.
    """

    rows: list[dict[str, Any]]
    failed: list[tuple[str, str]]
    shard: list[Any] | None = None


class Plan:
    """The chunks of a run: ``bulk/plan.jsonl``, a line each, and where every line starts.

    Args:
        place: Output folder.

    Attributes:
        keys: Of every chunk, a digest of its items, the model and the settings.
        sizes: Of every chunk, the number of its items.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.keys: list[str] = []
        self.sizes: list[int] = []
        self._starts: NDArray[np.int64] | None = None

    def write(self, chunks: Iterator[Sequence[Item]], key: str) -> None:
        """Write the plan.

        Args:
            chunks: The items of every chunk.
            key: Digest of model and settings.
        """
        starts = [0]
        with self.place.writing("bulk/plan.jsonl") as target, target.open("wb") as file:
            for items in chunks:
                rows = [astuple(item) for item in items]
                self.keys.append(digest([key, rows]))
                file.write(json.dumps([self.keys[-1], rows]).encode() + b"\n")
                starts.append(file.tell())
                self.sizes.append(len(items))
        content = io.BytesIO()
        np.save(content, np.asarray(starts, np.int64))
        self.place.write("bulk/plan.npy", content.getvalue())

    def chunk(self, index: int) -> tuple[str, list[Item]]:
        """Key and items of a chunk."""
        if self._starts is None:
            self._starts = np.load(io.BytesIO(self.place.read("bulk/plan.npy")))
        start, end = map(int, self._starts[index : index + 2])
        key, rows = json.loads(self.place.read("bulk/plan.jsonl", start, end))
        return key, [Item(*row) for row in rows]

    def note(self, key: str) -> str:
        """Name of the file that says a chunk is done."""
        return f"bulk/done/{key[:2]}/{key}.jsonl"

    def told(self, key: str) -> Note | None:
        """What the note of a chunk says; None if there is none that can be read."""
        try:
            return read_note(self.place, self.note(key))
        except (OSError, ValueError, TypeError):
            return None

    def is_done(self, key: str) -> bool:
        """Whether a chunk was done, and what it made is whole."""
        told = self.told(key)
        return told is not None and len(self.whole(told)) == len(told.rows)

    def whole(self, told: Note) -> list[dict[str, Any]]:
        """The rows of a note whose files are there as it has them; those of an archive all or none."""
        # Once for all pictures of an archive: behind a URL it is a request.
        if told.shard is not None and self.place.state(told.shard[0]) == told.shard[1:]:
            return told.rows
        folder = self.place.folder
        return [row for row in told.rows if folder and "shard" not in row and is_whole_row(folder, row)]


def read_note(place: Place, name: str) -> Note:
    """What a finished chunk has left.

    Raises:
        OSError: It has left nothing.
        ValueError: The note is damaged.
    """
    rows, failed, shard = [], [], None
    for line in place.read(name).decode().splitlines():
        row = json.loads(line)
        if "failed" in row:
            failed.append(tuple(row["failed"]))
        elif "name" in row:
            rows.append(row)
        else:
            shard = row["shard"]
    return Note(rows, failed, shard)


class Worker:
    """Callable on batches of chunk numbers; lives in its own process.

    Args:
        job: What to do.
    """

    def __init__(self, job: Job) -> None:
        self._job, self._plan = job, Plan(Place(job.out))
        trained = load_trained(job.model)
        self._rows: list[dict[str, Any]] = []
        self._failed: list[tuple[str, str]] = []
        self._work = begin(
            job.config,
            trained,
            job.runtime.create(),
            self._plan.place.folder or Path("nowhere"),
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
                self._patiently(index)
            except (UserError, OSError) as problem:
                error = str(problem)
            images.append(len(self._rows))
            failed.append(len(self._failed))
            errors.append(error)
        return {"images": np.array(images), "failed": np.array(failed), "error": np.array(errors)}

    def _patiently(self, index: int) -> None:
        """A chunk; what a full disk prevents is tried again for a while."""
        end = time.monotonic() + self._job.patience
        while True:
            try:
                return self._chunk(index)
            except PerhapsLater:
                if time.monotonic() >= end:
                    raise
                time.sleep(_PAUSE)

    def _chunk(self, index: int) -> None:
        self._rows.clear()
        self._failed.clear()
        self._work.waiting.clear()
        self._work.shard = Shard() if self._job.shards else None
        key, items = self._plan.chunk(index)
        if (told := self._plan.told(key)) is not None:
            kept = self._plan.whole(told)
            self._rows.extend(kept)
            self._failed.extend(told.failed)
            finished = {row["source"] for row in kept} | {source for source, _ in told.failed}
            items = [item for item in items if item.source not in finished]
            if not items:
                return
        tries = _Tries(self._plan.place, f"bulk/tries/{key}", self._job.session)
        try:
            self._predict(items, tries)
            self._leave(index, key)
        except PerhapsLater:
            tries.forget()  # that was no death
            raise
        tries.forget()

    def _predict(self, items: Sequence[Item], tries: _Tries) -> None:
        ahead, careful = Ahead(items), tries.count >= _CAREFUL
        for item in items:
            if careful and tries.deaths(item.name) >= _POISON:
                self._failed.append((item.source, "the worker that took it died, more than once"))
                continue
            if careful:
                # Somebody here may be what kills the workers: one at a time, and remember which.
                tries.holding(item.name)
            picture = self._picture(item, ahead)
            if not item.kind:
                take(self._work, picture)
            elif self._job.shards:
                self._work.failed(item.source, f"is a {item.kind}, which no shard holds; leave out --shards")
            else:
                take_whole(self._work, picture)
            if careful:
                finish_all(self._work)
        finish_all(self._work)

    def _leave(self, index: int, key: str) -> None:
        """Put the archive in its place, if there is one, and then the note."""
        place = self._plan.place
        lines: list[dict[str, Any]] = [{"failed": one} for one in self._failed]
        if self._work.shard is not None and self._work.shard.files:
            name = f"shards/{index:06d}-{key[:12]}.tar"
            place.write(name, self._work.shard.content())
            for row in self._rows:
                row["shard"] = name
            lines.append({"shard": [name, *(place.state(name) or ())]})
        text = "".join(f"{json.dumps(line)}\n" for line in [*self._rows, *lines])
        place.write(self._plan.note(key), text.encode())

    def _picture(self, item: Item, ahead: Ahead) -> Picture:
        read = partial(read_item, item, self._job.config.max_pixels, self._work.reading, ahead)
        return Picture(item.name, item.file, item.source, item.stamp, read, item.kind)


class _Tries:
    """How often workers have died on a chunk since the program started, and what they held then."""

    def __init__(self, place: Place, name: str, session: str) -> None:
        self._place, self._name = place, name
        try:
            known = json.loads(place.read(name))
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
        self._place.remove(self._name)

    def _write(self) -> None:
        self._place.write(self._name, json.dumps(self._known).encode())

"""What the backend keeps: pictures with corrected masks, and the versions of the model that they led to."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmask.data.datasets.writing import png_bytes
from tagmask.data.readers.regular import read_text
from tagmask.errors import DataError
from tagmask.models.checkpoint import save_model
from tagmask.models.trained import Trained, load_trained
from tagmask.store.files import atomic_write, clear_partial, digest, write_json

__all__ = ["Correction", "Shelf"]


@dataclass(frozen=True)
class Correction:
    """A corrected picture on the shelf.

    Attributes:
        key: Project and task.
        image: The picture, as an indexed or colour PNG of its RGB pixels.
        mask: Its labels.
        mark: Changes when the correction does.
        tags: 0-based classes that its task names; None without tags.
    """

    key: str
    image: Path
    mask: Path
    mark: str
    tags: tuple[int, ...] | None = None


class Shelf:
    """A folder with ``corrections/`` and ``models/``; every file is written whole or not at all.

    Args:
        folder: Made if missing; held by one program.

    Raises:
        DataError: What is there cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._corrections = folder / "corrections"
        self._lock = threading.RLock()
        clear_partial(folder)
        self._notes = {note["key"]: note for note in map(_read, sorted(self._corrections.glob("*.json")))}
        served = folder / "served.json"
        self._served = _read(served) if served.is_file() else {"model": None, "versions": [], "seen": {}}
        projects = folder / "projects.json"
        self._projects: dict[str, str] = _read(projects) if projects.is_file() else {}

    @property
    def projects(self) -> dict[str, str]:
        """Number of every project that was set up to its labelling interface."""
        with self._lock:
            return dict(self._projects)

    def note_project(self, project: str, interface: str) -> None:
        """Remember a project."""
        with self._lock:
            if self._projects.get(project) != interface:
                self._projects[project] = interface
                write_json(self.folder / "projects.json", self._projects)

    def put(self, key: str, image: bytes, mask: NDArray[np.uint8], about: Mapping[str, Any]) -> bool:
        """Keep a correction; an earlier one of the same task gives way.

        Args:
            key: Project and task.
            image: The picture as PNG.
            mask: Labels (H, W) uint8, 255 unknown.
            about: What else to note, plain values.

        Returns:
            Whether it is news.
        """
        labels = png_bytes(mask)
        mark = digest([image.hex()[:64], len(image), labels.hex()])
        with self._lock:
            if self._notes.get(key, {}).get("mark") == mark:
                return False
            for path, content in ((self._image(key), image), (self._mask(key), labels)):
                with atomic_write(path) as target:
                    target.write_bytes(content)
            note = {
                **about,
                "key": key,
                "mark": mark,
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            # The note comes last: with it the correction is there.
            write_json(self._corrections / f"{key}.json", note)
            self._notes[key] = note
            return True

    def drop(self, annotations: set[int]) -> int:
        """Forget the corrections that came of some annotations; gives how many there were."""
        with self._lock:
            gone = [key for key, note in self._notes.items() if note.get("annotation") in annotations]
            for key in gone:
                del self._notes[key]
                for path in (self._corrections / f"{key}.json", self._mask(key), self._image(key)):
                    path.unlink(missing_ok=True)
            return len(gone)

    def corrections(self) -> list[Correction]:
        """All of them, in the order of their keys."""
        with self._lock:
            notes = sorted(self._notes.items())
        return [
            Correction(key, self._image(key), self._mask(key), note["mark"], _classes(note.get("shown")))
            for key, note in notes
        ]

    def pending(self) -> int:
        """How many corrections no training has seen yet."""
        with self._lock:
            seen = self._served["seen"]
            return sum(seen.get(key) != note["mark"] for key, note in self._notes.items())

    @property
    def versions(self) -> list[dict[str, Any]]:
        """Trainings so far, each with what came of it."""
        with self._lock:
            return list(self._served["versions"])

    def finished(
        self, seen: Sequence[Correction], outcome: Mapping[str, Any], trained: Trained | None, base: str
    ) -> Trained | None:
        """Note the end of a training, and keep the new model if there is one.

        Args:
            seen: The corrections that it learned from.
            outcome: What came of it, plain values.
            trained: The new model.
            base: Checksum of the model that the versions begin with.

        Returns:
            The new model as it was written.

        Raises:
            UserError: The disk refuses; the version that was served stays.
        """
        name = f"{len(self.versions) + 1:04d}"
        kept = None
        if trained is not None:
            folder = self.folder / "models" / name
            save_model(folder, trained.method.state_dict(), trained.meta)
            kept = load_trained(folder)
        with self._lock:
            served = dict(self._served)
            served["seen"] = {one.key: one.mark for one in seen}
            served["versions"] = [*served["versions"], {**outcome, "model": name if kept else None}]
            if kept is not None:
                served |= {"model": name, "base": base}
            write_json(self.folder / "served.json", served)
            self._served = served
        return kept

    def newest(self, base: str) -> Trained | None:
        """The newest model that corrections led to, if it goes back to a model with this checksum.

        Raises:
            CheckpointError: It is damaged.
        """
        name = self._served["model"]
        if name is None or self._served.get("base") != base:
            return None
        return load_trained(self.folder / "models" / str(name))

    def _image(self, key: str) -> Path:
        return self._corrections / f"{key}-image.png"

    def _mask(self, key: str) -> Path:
        return self._corrections / f"{key}-mask.png"


def _classes(noted: Any) -> tuple[int, ...] | None:
    return tuple(noted) if isinstance(noted, list | tuple) else None


def _read(path: Path) -> Any:
    try:
        found = json.loads(read_text(path, inside=path.parent))
        if not isinstance(found, dict):
            raise ValueError("no object")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); move it away to start again") from None
    return found

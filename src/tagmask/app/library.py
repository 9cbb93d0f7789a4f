"""The images of a run in the order of its review queue, and the folders they may be read from."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tagmask.data import TagDataset
from tagmask.data.readers.regular import read_text
from tagmask.data.tables import plain_cell
from tagmask.errors import DataError, nearest
from tagmask.store.files import file_for

__all__ = ["Entry", "Folders", "Library", "read_queue"]


@dataclass(frozen=True)
class Entry:
    """One image that can be opened.

    Attributes:
        name: Of the image.
        score: Overall doubt, 0 to 1; None if the run was not reviewed.
        why: Which signals fired, as one text.
    """

    name: str
    score: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Folders:
    """The only folders that files are read from; links that lead out of them are not followed.

    Attributes:
        roots: The folders, links resolved.
    """

    roots: tuple[Path, ...]

    @classmethod
    def of(cls, paths: Sequence[Path]) -> Folders:
        """The folders at some paths; what a path itself points to counts as inside."""
        return cls(tuple(path.resolve() for path in paths))

    def inside(self, path: Path) -> Path:
        """The path with its links resolved.

        Raises:
            DataError: It lies outside the folders.
        """
        real = path.resolve()
        if not any(real.is_relative_to(root) for root in self.roots):
            raise DataError(
                f"'{path.name}' lies outside the folders of this app; start it with --allow and its folder"
            )
        return real


class Library:
    """The images of a run.

    Args:
        dataset: The images; None if there are only uploads.
        folder: The run folder.
        folders: Where files may lie.

    Raises:
        DataError: The review queue is damaged.
    """

    def __init__(self, dataset: TagDataset | None, folder: Path, folders: Folders) -> None:
        self.folder, self.folders, self._dataset = folder, folders, dataset
        names = () if dataset is None else dataset.names
        known, rows = set(names), read_queue(folder / "review" / "queue.csv")
        entries = [entry for entry in rows if entry.name in known]
        listed = {entry.name for entry in entries}
        self.reviewed = bool(entries)
        self.entries = (*entries, *(Entry(name) for name in names if name not in listed))
        self._places = {entry.name: place for place, entry in enumerate(self.entries)}

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def place(self, name: str) -> int:
        """0-based place of an image in the queue.

        Raises:
            DataError: There is no such image.
        """
        if name not in self._places:
            raise DataError(f"this run has no image '{name}'. {nearest(name, list(self._places)[:20])}")
        return self._places[name]

    def image(self, name: str) -> Path:
        """The picture file of an image.

        Raises:
            DataError: There is no such image, or its file lies elsewhere.
        """
        self.place(name)
        assert self._dataset is not None  # nothing has a place without it
        return self.folders.inside(self._dataset.items[self._dataset.position(name)].image)

    def tags(self, name: str) -> tuple[int, ...] | None:
        """0-based tagged classes of an image; None if nobody tagged it."""
        self.place(name)
        assert self._dataset is not None
        return self._dataset.items[self._dataset.position(name)].tags

    def mask(self, name: str) -> Path | None:
        """The run's own mask of an image, if it has one.

        Raises:
            DataError: It lies outside the folders.
        """
        path = file_for(self.folder / "masks", name, ".png")
        return self.folders.inside(path) if path.is_file() else None


def read_queue(path: Path) -> list[Entry]:
    """What ``tagmask review`` wrote, worst first; nothing if it was not run.

    Raises:
        DataError: The file is damaged.
    """
    if not path.is_file():
        return []
    try:
        rows = csv.DictReader(io.StringIO(read_text(path), newline=""))
        return [Entry(plain_cell(row["name"]), float(row["score"]), plain_cell(row["why"])) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"{path} is damaged ({error}); delete it and run review again") from None

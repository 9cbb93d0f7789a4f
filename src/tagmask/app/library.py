"""The images of a run in the order of its review queue, what is on disk of each, where files may lie."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tagmask.data import TagDataset
from tagmask.data.datasets.tagcells import split_cells
from tagmask.data.readers.regular import read_text
from tagmask.data.tables import plain_cell
from tagmask.errors import DataError, nearest
from tagmask.store.files import file_for

__all__ = ["Entry", "Folders", "Library", "read_queue"]

LABELS = ("masks", "walks", "labels")
"""Folders of a run that hold label images, the one to look at first in front."""


@dataclass(frozen=True)
class Entry:
    """One image that can be opened.

    Attributes:
        name: Of the image.
        score: Overall doubt, 0 to 1; None if it was not reviewed.
        why: Which signals fired, as one text.
        shown: Names of the classes in its mask, as far as the review noted them.
        part: Which part it belongs to, "train" or "val"; "" if the data has no parts.
    """

    name: str
    score: float | None = None
    why: str = ""
    shown: tuple[str, ...] = ()
    part: str = ""


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

    def holds(self, path: Path) -> bool:
        """Whether a path lies inside, its links resolved."""
        real = path.resolve()
        return any(real.is_relative_to(root) for root in self.roots)

    def inside(self, path: Path) -> Path:
        """The path with its links resolved.

        Raises:
            DataError: It lies outside the folders.
        """
        if not self.holds(path):
            raise DataError(
                f"'{path.name}' is outside the folders of this app; start it with --allow and its folder"
            )
        return path.resolve()


class Library:
    """The images of a run.

    Args:
        dataset: The images; None if there are only uploads.
        folder: The run folder.
        folders: Where files may lie.
        parts: Name of an image to the part it belongs to.

    Attributes:
        repaired: Name of an image to its tags, where they were changed since the start.

    Raises:
        DataError: The review queue is damaged.
    """

    def __init__(
        self,
        dataset: TagDataset | None,
        folder: Path,
        folders: Folders,
        parts: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.folders, self.dataset = folder, folders, dataset
        self.repaired: dict[str, tuple[int, ...]] = {}
        names = () if dataset is None else dataset.names
        known, rows = set(names), read_queue(folder / "review" / "queue.csv")
        entries = [entry for entry in rows if entry.name in known]
        listed = {entry.name for entry in entries}
        self.reviewed = bool(entries)
        entries += [Entry(name) for name in names if name not in listed]
        self.entries = tuple(replace(entry, part=(parts or {}).get(entry.name, "")) for entry in entries)
        self._places = {entry.name: place for place, entry in enumerate(self.entries)}
        self.kinds = tuple(path.name for path in sorted((folder / "maps").glob("*")) if path.is_dir())

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
        assert self.dataset is not None  # nothing has a place without it
        return self.folders.inside(self.dataset.items[self.dataset.position(name)].image)

    def pixels(self, name: str) -> NDArray[np.uint8]:
        """All bands of an image as the model reads it, (H, W, C).

        Raises:
            DataError: There is no such image, its file lies elsewhere or cannot be read.
        """
        self.image(name)
        assert self.dataset is not None  # nothing has a place without it
        return self.dataset.image(self.dataset.position(name))

    def tags(self, name: str) -> tuple[int, ...] | None:
        """0-based tagged classes of an image; None if nobody tagged it."""
        self.place(name)
        assert self.dataset is not None
        if name in self.repaired:
            return self.repaired[name]
        return self.dataset.items[self.dataset.position(name)].tags

    def mask(self, name: str) -> Path | None:
        """The run's own mask of an image, if it has one.

        Raises:
            DataError: It lies outside the folders.
        """
        return self._there("masks", name, ".png")

    def labels(self, name: str) -> dict[str, Path]:
        """The label images of an image by their folder, those of `LABELS` that are there.

        Raises:
            DataError: One lies outside the folders.
        """
        found = {folder: self._there(folder, name, ".png") for folder in LABELS}
        return {folder: path for folder, path in found.items() if path is not None}

    def maps(self, name: str) -> dict[str, Path]:
        """The map files of an image by kind.

        Raises:
            DataError: One lies outside the folders.
        """
        found = {kind: self._there(f"maps/{kind}", name, ".npz") for kind in self.kinds}
        return {kind: path for kind, path in found.items() if path is not None}

    def _there(self, folder: str, name: str, suffix: str) -> Path | None:
        path = file_for(self.folder / folder, name, suffix)
        return self.folders.inside(path) if path.is_file() else None

    def elsewhere(self) -> tuple[Path, ...]:
        """Folders of images that lie outside, which have to be allowed before these can be opened."""
        if self.dataset is None:
            return ()
        parents: dict[Path, Path] = {}
        for item in self.dataset.items:
            # A link costs a look of its own; of the plain files in a folder one speaks for all.
            if item.image.is_symlink() or item.image.parent not in parents:
                real = item.image.resolve().parent
                parents.setdefault(item.image if item.image.is_symlink() else item.image.parent, real)
        outside = {real for real in parents.values() if not self.folders.holds(real)}
        return tuple(sorted(outside))


def read_queue(path: Path) -> list[Entry]:
    """What ``tagmask review`` wrote, worst first; nothing if it was not run.

    Raises:
        DataError: The file is damaged.
    """
    if not path.is_file():
        return []
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
        shown = split_cells([(line, row.get("classes") or "") for line, row in enumerate(rows, start=2)])
        return [
            Entry(plain_cell(row["name"]), float(row["score"]), plain_cell(row["why"]), classes)
            for row, classes in zip(rows, shown, strict=True)
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise DataError(f"{path} is damaged ({error}); delete it and run review again") from None

"""One file that every change is added to and forced to the disk: a decision is safe after a single sync.

The files that people and programs read are written right after it, without waiting for the disk. What a power
cut took from them is made again from here at the next start.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tagmask.data.datasets.writing import write_whole
from tagmask.data.readers.regular import open_regular
from tagmask.errors import DataError

__all__ = ["Change", "Journal"]

_LARGE = 64 * 2**20
_LATER = 10.0
"""Seconds after its change within which a file is still what the change wrote."""


@dataclass(frozen=True)
class Change:
    """Files that one change writes or removes.

    Attributes:
        files: Path in the folder to its new content; None if it is gone.
    """

    files: dict[str, bytes | None]

    def write(self, folder: Path) -> None:
        """Put it on the disk, each file whole or not there.

        Raises:
            DataError: The system refuses.
        """
        for name, content in self.files.items():
            if content is None:
                (folder / name).unlink(missing_ok=True)
            else:
                write_whole(folder / name, content)


class Journal:
    """The changes of a folder since it was last settled; one program at a time may use it.

    Args:
        folder: The folder; the journal is in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "journal.jsonl"
        self._touched: set[str] = set()

    def add(self, change: Change) -> None:
        """Make a change that outlives a power cut from the moment this returns.

        Raises:
            DataError: It cannot be written; what was there before is unchanged.
        """
        before = {
            name: (self.folder / name).read_bytes() if (self.folder / name).is_file() else None
            for name in change.files
        }
        size = self._append(change)
        try:
            change.write(self.folder)
        except (DataError, OSError):
            with suppress(DataError, OSError):
                Change(before).write(self.folder)
            with suppress(OSError):
                os.truncate(self.path, size)
            raise
        self._touched |= set(change.files)
        if size > _LARGE:
            self.settle()

    def _append(self, change: Change) -> int:
        """Add the line and wait for the disk; gives the length of the journal before."""
        files = {
            name: None if content is None else base64.b64encode(content).decode()
            for name, content in change.files.items()
        }
        line = json.dumps({"when": time.time(), "files": files}, ensure_ascii=False) + "\n"
        size = -1
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            new = not self.path.exists()
            with open(self.path, "ab", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                file.write(line.encode())
                os.fsync(file.fileno())
            if new:
                _sync_folder(self.folder)
        except OSError as error:
            if size >= 0:
                with suppress(OSError):
                    os.truncate(self.path, size)
            reason = error.strerror or error
            raise DataError(f"cannot write {self.path}: {reason}; what was saved is unchanged") from None
        return size

    def recover(self) -> None:
        """Make again what a power cut took, then forget the changes; call it before reading the folder.

        Files that somebody else changed later are left as they are.

        Raises:
            DataError: The system refuses.
        """
        if not self.path.is_file():
            return
        last: dict[str, tuple[float, bytes | None]] = {}
        for when, change in self._changes():
            last |= {name: (when, content) for name, content in change.files.items()}
        for name, (when, content) in last.items():
            path = self.folder / name
            if not path.resolve().is_relative_to(self.folder.resolve()):
                raise DataError(f"{self.path} names a file outside of {self.folder.name}; delete it")
            if self._lost(path, when, content):
                Change({name: content}).write(self.folder)
        self._touched = set(last)
        self.settle()

    def _changes(self) -> Iterator[tuple[float, Change]]:
        """The changes in their order, up to a line that was cut off."""
        with open_regular(self.path, limit=None) as file:
            for line in file:
                try:
                    told = json.loads(line)
                    files = {
                        str(name): None if content is None else base64.b64decode(content, validate=True)
                        for name, content in told["files"].items()
                    }
                    yield float(told["when"]), Change(files)
                except (ValueError, KeyError, TypeError, AttributeError):
                    return

    def _lost(self, path: Path, when: float, content: bytes | None) -> bool:
        try:
            there = path.stat()
        except OSError:
            return content is not None
        if there.st_mtime > when + _LATER:
            return False
        return content is None or path.read_bytes() != content

    def settle(self) -> None:
        """Wait until every changed file is on the disk, then forget the changes."""
        if not self.path.is_file():
            return
        with suppress(OSError):
            _sync_all(self.folder / name for name in self._touched)
            os.truncate(self.path, 0)
            self._touched.clear()


def _sync_all(paths: Iterable[Path]) -> None:
    """Everything that was written, together where the system can do that, since each wait takes long."""
    if hasattr(os, "sync"):
        os.sync()
        return
    for path in paths:
        if path.is_file():
            with open(path, "rb+") as file:
                os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """A new file's name; systems that cannot open a folder keep names safe themselves."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)

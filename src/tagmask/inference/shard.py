"""Many small files as one, tar archives (WebDataset): read in large pieces, written a chunk at a time."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from tagmask.data.file_names import legal_part, unusable
from tagmask.errors import DataError
from tagmask.inference.place import open_system
from tagmask.store.files import NameRefused

if TYPE_CHECKING:
    from tagmask.inference.remote import Item

__all__ = ["Ahead", "Shard"]

_PIECE = 8 << 20


class Shard:
    """A tar archive in memory, the same bytes for the same files.

    Attributes:
        files: Of every file checksum, size and time of change (0), as rows of a summary note them.
    """

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._archive = tarfile.TarFile(fileobj=self._buffer, mode="w", format=tarfile.PAX_FORMAT)
        self.files: dict[str, list[Any]] = {}

    def add(self, folder: str, name: str, ending: str, content: bytes) -> str:
        """Add a file.

        Args:
            folder: The folder it would be in on disk.
            name: Name of the picture.
            ending: With its dot.
            content: Its bytes.

        Returns:
            Its path in the archive.

        Raises:
            NameRefused: No file can be called so.
        """
        if (reason := unusable(name)) is not None:
            raise NameRefused(f"image name {name!r} cannot be used as a file name; {reason}")
        parts = PurePosixPath(name + ending).parts
        path = "/".join([folder, *(legal_part(part) for part in parts)])
        entry = tarfile.TarInfo(path)
        entry.size, entry.mode = len(content), 0o644
        self._archive.addfile(entry, io.BytesIO(content))
        self.files[path] = [hashlib.sha256(content).hexdigest(), len(content), 0]
        return path

    def content(self) -> bytes:
        """The finished archive."""
        self._archive.close()
        return self._buffer.getvalue()


class Ahead:
    """Reads tar shards in large pieces: many small pictures that are side by side are one request.

    Args:
        items: What will be asked for, in this order.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self._ends: dict[str, int] = {}
        for item in items:
            if item.start >= 0:
                self._ends[item.url] = max(self._ends.get(item.url, 0), item.start + item.length)
        self._url, self._first, self._block = "", 0, b""

    def content(self, item: Item) -> bytes:
        """The bytes of a picture in a shard.

        Raises:
            DataError: The shard ends before.
        """
        last = self._first + len(self._block)
        if item.url != self._url or not self._first <= item.start <= item.start + item.length <= last:
            wanted = max(item.length, min(_PIECE, self._ends.get(item.url, 0) - item.start))
            system, path = open_system(item.url)
            self._block = bytes(system.cat_file(path, start=item.start, end=item.start + wanted))
            self._url, self._first = item.url, item.start
        begin = item.start - self._first
        content = self._block[begin : begin + item.length]
        if len(content) != item.length:
            raise DataError(f"{item.source} is cut off")
        return content

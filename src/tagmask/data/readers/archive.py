"""The files of a folder or a zip archive by name, and what in it is not to be trusted."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from tagmask.data.file_names import unusable
from tagmask.data.readers.regular import MAX_BYTES, Inside, irregular, is_output, open_regular, read_bytes
from tagmask.errors import DataError, printable

__all__ = ["MAX_MEMBER", "FileTree", "FolderTree", "ZipTree", "open_tree"]

MAX_MEMBER = 1 << 29
"""Largest size, in bytes, that is read of one member of an archive; it is held in memory as a whole."""
_MAX_TOTAL = 64 << 30
_MAX_COUNT = 1_000_000
_MAX_RATIO = 1100
_SMALL = 1 << 20
_LARGE, _LARGE_RATIO = 64 << 20, 200
# Deflate shrinks at most about 1,030 times: what declares more was not made by packing files.


class FolderTree:
    """A folder. Links that stay in it are followed, others refused; hidden files and own outputs left out.

    Refused are also pipes, sockets and devices, names that are no text, and links that lead in a circle or
    to a folder that another link leads to.

    Args:
        root: The folder; may itself be a link.
        skip: Folders below it that are left out, besides those that hold a run or predicted masks.
        within: A folder around it that links may lead to; the folder itself if None.

    Attributes:
        names: Paths of the files below the folder, sorted.
        refused: (path, reason) of what is not read; the path is fit for a message.
    """

    def __init__(self, root: Path, skip: Sequence[Path] = (), within: Path | None = None) -> None:
        self.root = root
        self.refused: list[tuple[str, str]] = []
        self._inside = Inside([within or root])
        self._skip = {folder.resolve() for folder in skip}
        self._linked: set[Path] = set()
        self.names: Sequence[str] = sorted(self._walk())

    def _walk(self) -> Iterator[str]:
        if (reason := self._inside.reason(self.root)) is not None:
            self._refuse(".", reason)
            return
        waiting = [(self.root, "")]
        while waiting:
            folder, before = waiting.pop()
            if before and (is_output(folder) or (self._skip and folder.resolve() in self._skip)):
                continue
            try:
                entries = list(os.scandir(folder))
            except OSError as error:
                self._refuse(before or ".", f"cannot be listed ({error.strerror})")
                continue
            for entry in entries:
                name = f"{before}{entry.name}"
                if entry.name.startswith("."):
                    continue
                if (reason := self._distrust(entry, folder)) is not None:
                    self._refuse(name, reason)
                elif entry.is_dir():
                    waiting.append((folder / entry.name, f"{name}/"))
                else:
                    yield name

    def _distrust(self, entry: os.DirEntry[str], folder: Path) -> str | None:
        """Why an entry is not read."""
        # A backslash is replaced where names of outputs are made of these.
        if not entry.name.isprintable() and (reason := unusable(entry.name.replace("\\", "_"))) is not None:
            return f"has a name that cannot be used: {reason}"
        if entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False):
            return None
        path = folder / entry.name
        if entry.is_symlink() and not path.exists():
            return irregular(path)
        if entry.is_symlink() and (reason := self._inside.reason(path)) is not None:
            return reason
        return self._circle(path) if entry.is_dir() else irregular(path)

    def _circle(self, path: Path) -> str | None:
        target = path.resolve()
        if path.parent.resolve().is_relative_to(target):
            return "is a link to a folder that contains it"
        if target in self._linked:
            return "is a link to a folder that another link leads to"
        self._linked.add(target)
        return None

    def _refuse(self, name: str, reason: str) -> None:
        self.refused.append((printable(name), reason))

    def path(self, name: str) -> Path:
        """Where a file is."""
        return self.root / name

    def read(self, name: str) -> bytes:
        """Content of a file.

        Raises:
            DataError: It cannot be read, or is too large.
        """
        return _content(self.root / name, self.root)


class FileTree:
    """A single file as a tree of one.

    Attributes:
        names: Its name.
        refused: Nothing.
    """

    def __init__(self, path: Path) -> None:
        self.root = path.parent
        self.names: Sequence[str] = (path.name,)
        self.refused: list[tuple[str, str]] = []

    def read(self, name: str) -> bytes:
        """Its content.

        Raises:
            DataError: It cannot be read, or is too large.
        """
        return _content(self.root / name)


def _content(path: Path, inside: Path | None = None) -> bytes:
    try:
        return read_bytes(path, MAX_BYTES, inside)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None


class ZipTree:
    """A zip archive, read member by member and never unpacked as a whole.

    Members whose path leads out of the archive, links, encrypted ones and those that declare more than
    packing can give are refused.

    Args:
        path: The file, or how messages shall call `file`.
        file: Its content, open for reading, if it is not on disk.

    Attributes:
        names: Paths of the members that can be read, sorted.
        refused: (path, reason) of the others.

    Raises:
        DataError: The file is no zip archive, is damaged, or holds too much.
    """

    def __init__(self, path: Path, file: IO[bytes] | None = None) -> None:
        self.root = path
        self.refused: list[tuple[str, str]] = []
        self._file: IO[bytes] | None = None
        try:
            self._file = file or open_regular(path, limit=None)
            self._zip = zipfile.ZipFile(self._file)
        except (OSError, zipfile.BadZipFile, ValueError, RuntimeError) as error:
            self.close()
            raise DataError(f"{path} is not a readable zip archive ({error})") from None
        infos = [info for info in self._zip.infolist() if not info.filename.endswith("/")]
        total = sum(info.file_size for info in infos)
        if len(infos) > _MAX_COUNT or total > _MAX_TOTAL:
            self.close()
            raise DataError(
                f"{path} declares {len(infos):,} files with {total:,} bytes; at most {_MAX_COUNT:,} files "
                f"and {_MAX_TOTAL:,} bytes are read. Unpack it yourself if you trust it"
            )
        self._infos: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            reason = _distrust(info)
            if info.filename in self._infos:
                reason = "is in the archive twice"
            if reason is not None:
                self.refused.append((info.filename, reason))
            elif not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(info.filename).parts):
                self._infos[info.filename] = info
        self.names: Sequence[str] = sorted(self._infos)

    def read(self, name: str) -> bytes:
        """Content of a member.

        Raises:
            DataError: It is damaged or packed in a way that cannot be undone here.
        """
        info = self._infos[name]
        try:
            with self._zip.open(info) as file:
                content = file.read(info.file_size + 1)
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
            raise DataError(f"{self.root}: '{name}' is damaged or cannot be unpacked ({error})") from None
        if len(content) != info.file_size:
            raise DataError(f"{self.root}: '{name}' does not have the size that it declares")
        return content

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _distrust(info: zipfile.ZipInfo) -> str | None:
    """Why a member is not read."""
    # Python turns backslashes into slashes on Windows only; elsewhere they would become part of a name.
    if not info.orig_filename:
        return "has no name"
    path = PurePosixPath(info.orig_filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
        return "has a path that leads out of the archive"
    if "\0" in info.orig_filename:
        return "has a zero byte in its name"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "is a link"
    if info.flag_bits & 1:
        return "is encrypted"
    if info.file_size > _SMALL and info.file_size > _MAX_RATIO * max(info.compress_size, 1):
        return f"declares {info.file_size:,} bytes packed into {info.compress_size:,}, which no packer gives"
    if info.file_size > _LARGE and info.file_size > _LARGE_RATIO * info.compress_size:
        return (
            f"declares {info.file_size:,} bytes packed into {info.compress_size:,}, as bombs do; unpack it "
            "yourself if you trust it"
        )
    if info.file_size > MAX_MEMBER:
        return f"declares {info.file_size:,} bytes; at most {MAX_MEMBER:,} are read"
    return None


def open_tree(path: Path) -> FolderTree | FileTree | ZipTree:
    """A folder, a zip archive (by its content), or any other single file.

    Raises:
        DataError: There is nothing, or the archive cannot be read.
    """
    if path.is_dir():
        return FolderTree(path)
    if (reason := irregular(path)) is not None:
        raise DataError(f"{path} {reason}; give a folder, a zip archive or a file")
    if path.suffix.lower() == ".zip" or zipfile.is_zipfile(path):
        return ZipTree(path)
    return FileTree(path)

"""The files of a folder or a zip archive by name, and what in it is not to be trusted."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from tagmask.errors import DataError

__all__ = ["MAX_MEMBER", "FileTree", "FolderTree", "ZipTree", "open_tree"]

MAX_MEMBER = 2 << 30
"""Largest size, in bytes, that is read of one file."""
_MAX_TOTAL = 64 << 30
_MAX_COUNT = 1_000_000
_MAX_RATIO = 1100
_SMALL = 1 << 20
# Deflate shrinks at most about 1,030 times: what declares more was not made by packing files.


class FolderTree:
    """A folder. Links that lead out of it are refused, hidden files are left out.

    Attributes:
        names: Paths of the files below the folder, sorted.
        refused: (path, reason) of what is not read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.refused: list[tuple[str, str]] = []
        self.names: Sequence[str] = sorted(self._walk())

    def _walk(self) -> Iterator[str]:
        inside = self.root.resolve()
        for folder, folders, files in os.walk(self.root, onerror=self._unreadable):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            here = Path(folder)
            for name in folders:
                if (here / name).is_symlink():
                    self._refuse(here / name, "is a link to a folder; links to folders are not followed")
            for name in files:
                path = here / name
                if name.startswith("."):
                    continue
                if path.is_symlink() and not path.resolve().is_relative_to(inside):
                    self._refuse(path, "is a link that leads out of its folder")
                elif path.is_symlink() and not path.exists():
                    self._refuse(path, "is a link to nothing")
                else:
                    yield path.relative_to(self.root).as_posix()

    def _refuse(self, path: Path, reason: str) -> None:
        self.refused.append((path.relative_to(self.root).as_posix(), reason))

    def _unreadable(self, error: OSError) -> None:
        self._refuse(Path(error.filename), f"cannot be listed ({error.strerror})")

    def path(self, name: str) -> Path:
        """Where a file lies."""
        return self.root / name

    def read(self, name: str) -> bytes:
        """Content of a file.

        Raises:
            DataError: It cannot be read, or is too large.
        """
        return _content(self.root / name)


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


def _content(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_MEMBER:
            raise DataError(f"{path} has {size:,} bytes; at most {MAX_MEMBER:,} are read")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None


class ZipTree:
    """A zip archive, read member by member and never unpacked as a whole.

    Members whose path leads out of the archive, links, encrypted ones and those that declare more than
    packing can give are refused.

    Args:
        path: The file, or how messages shall call `file`.
        file: Its content, open for reading, if it does not lie on disk.

    Attributes:
        names: Paths of the members that can be read, sorted.
        refused: (path, reason) of the others.

    Raises:
        DataError: The file is no zip archive, is damaged, or holds too much.
    """

    def __init__(self, path: Path, file: IO[bytes] | None = None) -> None:
        self.root = path
        self.refused: list[tuple[str, str]] = []
        try:
            self._zip = zipfile.ZipFile(file or path)
        except (OSError, zipfile.BadZipFile, ValueError, RuntimeError) as error:
            raise DataError(f"{path} is not a readable zip archive ({error})") from None
        infos = [info for info in self._zip.infolist() if not info.filename.endswith("/")]
        total = sum(info.file_size for info in infos)
        if len(infos) > _MAX_COUNT or total > _MAX_TOTAL:
            self._zip.close()
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
        self._zip.close()


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
    if info.file_size > MAX_MEMBER:
        return f"declares {info.file_size:,} bytes; at most {MAX_MEMBER:,} are read"
    if info.file_size > _SMALL and info.file_size > _MAX_RATIO * max(info.compress_size, 1):
        return f"declares {info.file_size:,} bytes packed into {info.compress_size:,}, which no packer gives"
    return None


def open_tree(path: Path) -> FolderTree | FileTree | ZipTree:
    """A folder, a zip archive (by its content), or any other single file.

    Raises:
        DataError: There is nothing, or the archive cannot be read.
    """
    if path.is_dir():
        return FolderTree(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; give a folder, a zip archive or a file")
    if path.suffix.lower() == ".zip" or zipfile.is_zipfile(path):
        return ZipTree(path)
    return FileTree(path)

"""Lists of files with their checksums, written while the files are made, so that "there" means "whole"."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tagmask.store.files import atomic_write, digest, sha256

__all__ = [
    "FileState",
    "Ledger",
    "file_state",
    "fingerprint",
    "is_whole",
    "read_list",
    "stat_digest",
    "tree_files",
    "write_list",
]

_PARTIAL = ".partial"


@dataclass(frozen=True)
class FileState:
    """A file as it was when it was made.

    Attributes:
        sha256: Checksum of its content.
        size: Bytes.
        mtime_ns: Time of its last change.
    """

    sha256: str
    size: int
    mtime_ns: int


def file_state(path: Path) -> FileState:
    """The state of a file that was just made."""
    stat = path.stat()
    return FileState(sha256(path), stat.st_size, stat.st_mtime_ns)


def is_whole(path: Path, known: FileState) -> bool:
    """Whether a file is still what it was: size and time first, its content where the time differs."""
    if path.is_symlink() or not path.is_file():
        return False
    stat = path.stat()
    if stat.st_size != known.size:
        return False
    return stat.st_mtime_ns == known.mtime_ns or sha256(path) == known.sha256


class Ledger:
    """What is whole among the files of unfinished work.

    Args:
        folder: Where the work is; holds a list for each process.
        rank: Number of this process, which writes to its own list.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.folder = folder
        self._path = folder / f"files-{rank}.jsonl"
        self.known: dict[str, FileState] = {}
        for path in sorted(folder.glob("files-*.jsonl")):
            self.known |= read_list(path)

    def note(self, paths: Iterable[Path]) -> None:
        """Remember files that were just made."""
        rows = {path.relative_to(self.folder).as_posix(): file_state(path) for path in paths}
        self.known |= rows
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(_text(rows))

    def whole(self, path: Path) -> bool:
        """Whether a file was made by this work and is unchanged."""
        known = self.known.get(path.relative_to(self.folder).as_posix())
        return known is not None and is_whole(path, known)


def read_list(path: Path) -> dict[str, FileState]:
    """The rows of a list that can be read; a killed writer leaves half a row behind."""
    found: dict[str, FileState] = {}
    if not path.is_file():
        return found
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            name, checksum, size, time = json.loads(line)
        except (ValueError, TypeError, RecursionError):
            continue
        if isinstance(name, str) and isinstance(checksum, str) and type(size) is type(time) is int:
            found[name] = FileState(checksum, size, time)
    return found


def write_list(path: Path, rows: Mapping[str, FileState]) -> None:
    """Write a whole list, atomically.

    Raises:
        DataError: It cannot be written.
    """
    with atomic_write(path) as target:
        target.write_text(_text(rows), encoding="utf-8")


def _text(rows: Mapping[str, FileState]) -> str:
    lines = [json.dumps([name, s.sha256, s.size, s.mtime_ns], ensure_ascii=False) for name, s in rows.items()]
    return "".join(f"{line}\n" for line in lines)


def tree_files(path: Path) -> list[Path]:
    """A file, or all files below a folder, without unfinished ones."""
    if path.is_file():
        return [path]
    return sorted(f for f in path.rglob("*") if f.is_file() and _PARTIAL not in f.parts)


def fingerprint(path: Path, rows: Mapping[str, FileState] | None = None) -> dict[str, Any]:
    """Checksum over the content of a file or folder, quick digest of names, sizes and times, and count.

    Args:
        path: The file or folder.
        rows: Its files by their path from the folder that `path` is in; read from the disk if None.
    """
    if rows is None:
        rows = {f.relative_to(path.parent).as_posix(): file_state(f) for f in tree_files(path)}
    # In the order of paths, not of texts: "a/b" comes before "a-b".
    ordered = sorted(rows.items(), key=lambda row: PurePosixPath(row[0]))
    total = hashlib.sha256("".join(f"{name} {state.sha256}\n" for name, state in ordered).encode())
    stat = digest([(name, state.size, state.mtime_ns) for name, state in ordered])
    return {"sha256": total.hexdigest(), "stat": stat, "files": len(ordered)}


def stat_digest(path: Path) -> str:
    """The quick digest of `fingerprint` as the disk has it now."""
    rows = [
        (f.relative_to(path.parent).as_posix(), (stat := f.stat()).st_size, stat.st_mtime_ns)
        for f in tree_files(path)
    ]
    return digest(rows)

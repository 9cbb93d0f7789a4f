"""Files that are either whole or not there: atomic writes, checksums, file names made from image names."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tagmask.data.file_names import named_file
from tagmask.data.readers.regular import Inside, open_regular
from tagmask.errors import DataError, UserError, printable

__all__ = [
    "NameRefused",
    "PerhapsLater",
    "atomic_write",
    "clear_partial",
    "digest",
    "exclusive",
    "file_for",
    "sha256",
    "write_json",
]

_PARTIAL = ".partial"
_ATTEMPTS = 1000
_NAMES = (
    errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EILSEQ, errno.EINVAL, errno.ELOOP,
)  # fmt: skip
"""What systems answer to a name that cannot be written, whatever the disk."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


class NameRefused(DataError):
    """One name cannot be written; others in the same folder can."""


class PerhapsLater(DataError):
    """A write failed as it may not a minute later: the disk is full, or the place cannot be reached."""


@contextmanager
def atomic_write(path: Path, error: type[UserError] = DataError) -> Iterator[Path]:
    """Hand out a path to write to, and put the finished file in its place in one step.

    Whatever stops the writer (an exception, a full disk, a kill), the file that was there before stays as it
    was. Unfinished pieces are in a folder ``.partial`` beside it, see `clear_partial`.

    Args:
        path: Where the file shall be; missing folders are made.
        error: Kind of error raised when the system refuses the write.

    Yields:
        The path to write to.

    Raises:
        UserError: Of kind `error`: no space, no permission, or another failure of the file system.
    """
    partial = path.parent / _PARTIAL
    # Not the name itself: with something before it, it could be too long.
    short = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    target = partial / f"{os.getpid()}-{short}{path.suffix[:16]}"
    try:
        _claim(target)
        yield target
        # Without the sync a power cut could leave an empty file under the new name.
        with open(target, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(target, path)
    except OSError as problem:
        raise _kind(problem, error)(_explain(path, problem)) from None
    finally:
        with suppress(OSError):
            target.unlink(missing_ok=True)
            partial.rmdir()


def _claim(target: Path) -> None:
    """Make an empty file, which keeps its folder: another process may take an empty one away."""
    for attempt in range(_ATTEMPTS):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
            return
        except (FileExistsError, FileNotFoundError):
            if attempt + 1 == _ATTEMPTS:
                raise


def _kind(problem: OSError, error: type[UserError]) -> type[UserError]:
    known = NameRefused if problem.errno in _NAMES else PerhapsLater if problem.errno in _NO_ROOM else error
    return known if issubclass(known, error) else error


def _explain(path: Path, problem: OSError) -> str:
    reason = problem.strerror or str(problem)
    if problem.errno in _NAMES:
        return f"cannot write {printable(str(path))}: {reason}"
    try:
        place = next(folder for folder in path.absolute().parents if folder.exists())
        free = f"{shutil.disk_usage(place).free / 2**20:.0f} MiB free there"
    except OSError:
        free = "free space unknown"
    return (
        f"cannot write {path}: {reason} ({free}). What was saved before is unchanged; "
        "free some space or choose another --out"
    )


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a folder for one program at a time; the hold ends with the program, however it ends.

    Args:
        folder: Made if missing.

    Raises:
        DataError: Another program holds it, it cannot be written to, or something in it leads out of it.
    """
    path = folder / ".lock"
    lock = FileLock(path, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_links(folder)
        lock.acquire()
    except Timeout:
        raise DataError(f"another tagmask is working in {folder}; wait for it or use another --out") from None
    except OSError as problem:
        # Some network file systems have no locks; what cannot even make the file cannot be written to.
        if problem.errno not in _NO_LOCKS:
            raise DataError(_explain(path, problem)) from None
    try:
        yield
    finally:
        lock.release()


def _refuse_links(folder: Path) -> None:
    """What is in a folder that is written to must not lead out of it, and its lock must be a plain file."""
    inside = Inside([folder])
    for entry in os.scandir(folder):
        path = folder / entry.name
        reason = inside.reason(path) if entry.is_symlink() else None
        if entry.name == ".lock" and not entry.is_file(follow_symlinks=False):
            reason = "is no plain file; delete it"
        if reason is not None:
            raise DataError(f"{printable(str(path))} {reason}")


def clear_partial(folder: Path) -> None:
    """Remove what killed writers left under `folder`; call it only when nobody else writes there."""
    if folder.is_dir():
        for partial in sorted(folder.rglob(_PARTIAL)):
            shutil.rmtree(partial, ignore_errors=True)


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with open_regular(path, limit=None) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(values: Any) -> str:
    """Hex digest of plain values (what JSON can hold), independent of the order of keys."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_json(path: Path, values: Any) -> None:
    """Write plain values as indented JSON, atomically.

    Raises:
        DataError: The file cannot be written.
    """
    with atomic_write(path) as target:
        target.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def file_for(folder: Path, name: str, suffix: str) -> Path:
    """Path of the file that belongs to an image name; sub-folder parts of the name become sub-folders.

    Args:
        folder: The folder of all such files.
        name: Image name without ending, parts separated by "/".
        suffix: Ending with its dot.

    Raises:
        DataError: The name would leave the folder, also by a link in it, or cannot be a file name.
    """
    path = named_file(folder, name, suffix)
    place = folder
    for part in path.relative_to(folder).parts[:-1]:
        place = place / part
        if place.is_symlink() and (reason := Inside([folder]).reason(place)) is not None:
            raise NameRefused(f"{place} {reason}")
    return path

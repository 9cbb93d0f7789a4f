"""Files that are either whole or not there: atomic writes, checksums, file names made from image names."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from tagmask.errors import DataError, UserError

__all__ = ["atomic_write", "clear_partial", "digest", "exclusive", "file_for", "sha256", "write_json"]

_PARTIAL = ".partial"
_ATTEMPTS = 1000


@contextmanager
def atomic_write(path: Path, error: type[UserError] = DataError) -> Iterator[Path]:
    """Hand out a path to write to, and put the finished file in its place in one step.

    Whatever stops the writer (an exception, a full disk, a kill), the file that was there before stays as it
    was. Unfinished pieces lie in a folder ``.partial`` beside it, see `clear_partial`.

    Args:
        path: Where the file shall be; missing folders are made.
        error: Kind of error raised when the system refuses the write.

    Yields:
        The path to write to.

    Raises:
        UserError: Of kind `error`: no space, no permission, or another failure of the file system.
    """
    partial = path.parent / _PARTIAL
    target = partial / f"{os.getpid()}-{path.name}"
    try:
        _claim(target)
        yield target
        # Without the sync a power cut could leave an empty file under the new name.
        with open(target, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(target, path)
    except OSError as problem:
        raise error(_explain(path, problem)) from None
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


def _explain(path: Path, problem: OSError) -> str:
    reason = problem.strerror or str(problem)
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
        DataError: Another program holds it, or it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "w")  # noqa: SIM115 - closed below, after the hold
    except OSError as problem:
        raise DataError(_explain(folder / ".lock", problem)) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(
                f"another tagmask is working in {folder}; wait for it or use another --out"
            ) from None
        except OSError:
            pass  # some network file systems have no locks
        yield


def clear_partial(folder: Path) -> None:
    """Remove what killed writers left under `folder`; call it only when nobody else writes there."""
    if folder.is_dir():
        for partial in sorted(folder.rglob(_PARTIAL)):
            shutil.rmtree(partial, ignore_errors=True)


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with open(path, "rb") as file:
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
        DataError: The name would leave the folder or cannot be a file name.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or any("\\" in p or "\0" in p for p in parts):
        raise DataError(f"image name {name!r} cannot be used as a file name; rename it without '..' or '\\'")
    return folder.joinpath(*parts[:-1], parts[-1] + suffix)

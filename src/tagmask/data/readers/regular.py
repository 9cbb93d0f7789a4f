"""Open plain files, inside the folder that was named and of bounded size; wait for nothing else."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from tagmask.errors import DataError, UserError

__all__ = [
    "ALLOW",
    "MAX_BYTES",
    "MAX_TEXT",
    "Inside",
    "check_regular",
    "irregular",
    "is_output",
    "open_regular",
    "read_bytes",
    "read_text",
]

MAX_BYTES = 2 << 30
"""Largest file, in bytes, that is read where nothing smaller is said."""
MAX_TEXT = 1 << 30
"""Largest text file, in bytes."""
ALLOW = "TAGMASK_ALLOW"
"""Environment variable: folders that links may lead to, separated as in PATH."""
_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISDIR, "a folder"),
)
# Different bits, each of which exists on some systems only.
_FLAGS = os.O_RDONLY + sum(
    getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY")
)
_OUTPUT_MARKS = (("predict.json",), ("run.json",), ("settings.yaml", ".lock"))


def _described(mode: int) -> str | None:
    if stat.S_ISREG(mode):
        return None
    kind = next((words for test, words in _KINDS if test(mode)), "something else")
    return f"is {kind}; only plain files are read"


def irregular(path: Path) -> str | None:
    """Why a path is not read as a file: "is a named pipe; only plain files are read"; None if it is one.

    Links are followed. Nothing is opened.
    """
    try:
        return _described(path.stat().st_mode)
    except FileNotFoundError:
        return "is a link to nothing" if path.is_symlink() else "does not exist"
    except (OSError, ValueError) as error:
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"


def check_regular(
    path: Path, limit: int | None = None, inside: Path | None = None, error: type[UserError] = DataError
) -> None:
    """Refuse what is no plain file, too large, or reached by a link that leads out; for readers that open it.

    A missing file is left to them.

    Args:
        path: The file.
        limit: Most bytes; any size if None.
        inside: Folder that it must be in, links resolved, see `Inside`; anywhere if None.
        error: Kind of error raised.

    Raises:
        UserError: Of kind `error`.
    """
    if inside is not None and (reason := Inside([inside]).reason(path)) is not None:
        raise error(f"{path} {reason}")
    try:
        state = path.stat()
    except (OSError, ValueError):
        return
    _check(path, state, limit, error)


def _check(path: Path, state: os.stat_result, limit: int | None, error: type[UserError]) -> None:
    if (reason := _described(state.st_mode)) is not None:
        raise error(f"{path} {reason}")
    if limit is not None and state.st_size > limit:
        raise error(f"{path} has {state.st_size:,} bytes; at most {limit:,} are read")


def open_regular(
    path: Path,
    limit: int | None = MAX_BYTES,
    inside: Path | None = None,
    buffering: int = io.DEFAULT_BUFFER_SIZE,
) -> io.BufferedReader:
    """Open a plain file for reading, without ever waiting for a pipe, socket or device.

    Args:
        path: The file; links are followed.
        limit: Most bytes it may have; any size if None.
        inside: Folder that it must be in, links resolved, see `Inside`; anywhere if None.
        buffering: Bytes of the buffer.

    Raises:
        DataError: It is no plain file, too large, or is outside.
        OSError: The system refuses.
    """
    # Asked before it is opened, since opening a device can do something, and after, when it cannot change.
    check_regular(path, limit, inside)
    number = os.open(path, _FLAGS)
    try:
        _check(path, os.fstat(number), limit, DataError)
        return io.BufferedReader(io.FileIO(number, "rb"), buffering)
    except BaseException:
        os.close(number)
        raise


def read_bytes(path: Path, limit: int = MAX_BYTES, inside: Path | None = None) -> bytes:
    """Content of a plain file; one that grows meanwhile is not read beyond the limit.

    Raises:
        DataError: See `open_regular`.
        OSError: The system refuses.
    """
    with open_regular(path, limit, inside) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise DataError(f"{path} has more than {limit:,} bytes; no more are read")
    return content


def read_text(path: Path, limit: int = MAX_TEXT, inside: Path | None = None, encoding: str = "utf-8") -> str:
    """Text of a plain file, its line ends turned into newlines.

    Raises:
        DataError: See `open_regular`.
        OSError: The system refuses.
        UnicodeDecodeError: It is not text in this encoding.
    """
    text = read_bytes(path, limit, inside).decode(encoding)
    return text.replace("\r\n", "\n").replace("\r", "\n")


class Inside:
    """Whether paths are in some folders once their links are resolved.

    What the folders themselves are links to counts as inside: whoever named them named that. So do the
    folders of the environment variable TAGMASK_ALLOW.

    Args:
        roots: The folders.
        allowed: Further folders, instead of those of the environment variable.

    Attributes:
        roots: The folders, links resolved, the allowed ones included.
    """

    def __init__(self, roots: Iterable[Path], allowed: Iterable[Path] | None = None) -> None:
        if allowed is None:
            allowed = [Path(part) for part in os.environ.get(ALLOW, "").split(os.pathsep) if part]
        self.roots = tuple(dict.fromkeys(_resolved(root) or root for root in (*roots, *allowed)))
        self._folders: dict[Path, Path | None] = {}

    def reason(self, path: Path) -> str | None:
        """Why a path is not to be opened: "is a link that leads out ..."; None if it is inside."""
        real = self._real(path)
        if real is None:
            return "is a link that leads in a circle"
        if any(real.is_relative_to(root) for root in self.roots):
            return None
        place = real if real.is_dir() else real.parent
        return f"is reached by a link that leads out, to {real}; to allow it set {ALLOW}={place}"

    def _real(self, path: Path) -> Path | None:
        """The path without links; a folder's own links are resolved once for all its files."""
        folder = path.parent
        if folder not in self._folders:
            self._folders[folder] = _resolved(folder)
        real = self._folders[folder]
        if real is None or path.name in ("", "..") or path.is_symlink():
            return _resolved(path)
        return real / path.name


def _resolved(path: Path) -> Path | None:
    try:
        # Python 3.13 gives a path back for a circle where older ones raise.
        real = path.resolve()
        return None if real.is_symlink() else real
    except (OSError, RuntimeError, ValueError):
        return None


def is_output(folder: Path) -> bool:
    """Whether tagmask wrote a folder: a run, also one that has just begun, or masks that were predicted."""
    return any(all((folder / name).is_file() for name in marks) for marks in _OUTPUT_MARKS)

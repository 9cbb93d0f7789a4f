"""Where the results of a bulk run are: a folder on disk or behind a URL, whose files are whole or absent."""

from __future__ import annotations

import errno
import io
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from tagmask.errors import ConfigError, one_line
from tagmask.store.files import PerhapsLater, atomic_write

__all__ = ["Place", "open_system", "passing", "stamp_of"]

_BUSY = (errno.EIO, errno.EBUSY, errno.ETIMEDOUT, errno.EAGAIN)
_STAMPS = ("ETag", "etag", "mtime", "LastModified", "created")


def open_system(url: str, **options: Any) -> tuple[Any, str]:
    """The file system of a path or URL, and the path in it.

    Raises:
        ConfigError: Nothing installed knows this kind of URL.
    """
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{url} cannot be opened: {error}") from None
    return system, str(path)


def stamp_of(info: Mapping[str, Any]) -> str:
    """What changes with a file, of what fsspec says about it."""
    date = next((info[key] for key in _STAMPS if key in info), "")
    return f"{info.get('size')}-{date}"


class Place:
    """A folder for results.

    Args:
        where: A path, or a URL that fsspec knows.

    Attributes:
        folder: Where it is on disk; None behind a URL.
    """

    def __init__(self, where: str | Path) -> None:
        self._where = str(where)
        self.folder = None if "://" in self._where else Path(where)

    def __str__(self) -> str:
        return self._where

    @cached_property
    def _system(self) -> tuple[Any, str]:
        # What others write meanwhile has to be seen, so listings are not kept.
        return open_system(self._where.rstrip("/"), use_listings_cache=False)

    def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        """Bytes of a file.

        Raises:
            OSError: It is not there, or cannot be read from the disk.
            DataError: The store does not answer.
        """
        if self.folder is not None:
            with open(self.folder / name, "rb") as file:
                file.seek(start)
                return file.read(-1 if end is None else end - start)
        system, root = self._system
        return bytes(self._asked(system.cat_file, f"{root}/{name}", start=start or None, end=end))

    def write(self, name: str, content: bytes) -> None:
        """Put a file in its place in one step.

        Raises:
            DataError: It cannot be written.
        """
        if self.folder is not None:
            with atomic_write(self.folder / name) as target:
                target.write_bytes(content)
            return
        system, root = self._system
        try:
            system.pipe_file(f"{root}/{name}", content)
        except Exception as error:  # every file system behind fsspec raises types of its own
            raise PerhapsLater(f"cannot write {self}/{name} ({_words(error)})") from None

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A path to write a large file to, which is put in its place at the end.

        Raises:
            DataError: It cannot be written.
        """
        if self.folder is not None:
            with atomic_write(self.folder / name) as target:
                yield target
            return
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "file"
            target.touch()
            yield target
            system, root = self._system
            try:
                system.put_file(str(target), f"{root}/{name}")
            except Exception as error:
                raise PerhapsLater(f"cannot write {self}/{name} ({_words(error)})") from None

    def state(self, name: str) -> list[Any] | None:
        """Size and a stamp that changes with the content; None if the file is not there."""
        try:
            if self.folder is not None:
                stat = os.stat(self.folder / name, follow_symlinks=False)
                return [stat.st_size, str(stat.st_mtime_ns)]
            system, root = self._system
            info = self._asked(system.info, f"{root}/{name}")
            return [int(info["size"]), stamp_of(info)]
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        if self.folder is not None:
            (self.folder / name).unlink(missing_ok=True)
            return
        system, root = self._system
        try:
            system.rm_file(f"{root}/{name}")
        except FileNotFoundError:
            pass
        except Exception as error:
            raise PerhapsLater(f"cannot remove {self}/{name} ({_words(error)})") from None

    def names(self, folder: str) -> set[str]:
        """All files below a folder in it, by their names from here."""
        if self.folder is not None:
            found = (path for path in (self.folder / folder).rglob("*") if path.is_file())
            return {path.relative_to(self.folder).as_posix() for path in found}
        system, root = self._system
        try:
            inside = self._asked(system.find, f"{root}/{folder}")
        except FileNotFoundError:
            return set()
        return {str(path)[len(root) + 1 :] for path in inside}

    def lines(self, name: str) -> Iterator[str]:
        """The lines of a text file, one after the other.

        Raises:
            OSError: It is not there, or cannot be read.
        """
        if self.folder is not None:
            with open(self.folder / name, encoding="utf-8") as file:
                yield from file
            return
        system, root = self._system
        with self._asked(system.open, f"{root}/{name}", "rb") as raw:
            yield from io.TextIOWrapper(raw, encoding="utf-8")

    def _asked(self, call: Any, *values: Any, **options: Any) -> Any:
        """What a store answers."""
        try:
            return call(*values, **options)
        except FileNotFoundError:
            raise
        except Exception as error:
            raise PerhapsLater(f"cannot read {self} ({_words(error)})") from None


def passing(error: Exception) -> bool:
    """Whether a store may answer better a minute later: busy or out of reach, not "no such file"."""
    kind = type(error).__name__
    return (
        isinstance(error, ConnectionError | TimeoutError)
        or (isinstance(error, OSError) and error.errno in _BUSY)
        or any(word in kind for word in ("Connect", "Timeout"))
    )


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)[:200]}"

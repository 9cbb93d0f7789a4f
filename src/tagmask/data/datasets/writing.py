"""Files this package derives from a data set: whole or not there, and never inside the data set itself."""

from __future__ import annotations

import hashlib
import io
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tagmask.data.classes import class_palette
from tagmask.errors import DataError

__all__ = ["cache_folder", "png_bytes", "write_whole"]


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in one step, so that nobody ever reads half of it.

    Raises:
        DataError: The folder is read-only or the disk full; nothing is left behind.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def png_bytes(mask: NDArray[np.uint8]) -> bytes:
    """A label mask (H, W) as an indexed PNG in the colours of the classes."""
    picture = Image.fromarray(mask)
    picture.putpalette(class_palette().tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def cache_folder(source: Path) -> Path:
    """Where to keep what is derived from a file: ``tagmask/<name>`` in the user's cache folder.

    That is ``$XDG_CACHE_HOME``, or ``~/.cache``. The name follows from the file's place, size and time, so a
    changed file starts a new folder.
    """
    state = source.stat()
    key = f"{source.resolve()}|{state.st_size}|{state.st_mtime_ns}"
    name = f"{source.stem}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tagmask" / name

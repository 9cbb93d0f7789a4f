"""Class maps of one image on disk: a ``.npz`` that any NumPy reads without unpickling."""

from __future__ import annotations

import io
import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tagmask.data.readers.regular import open_regular
from tagmask.errors import DataError
from tagmask.store.files import atomic_write

__all__ = ["MapFile", "load_maps", "save_maps"]

# What numpy and the archive's reader are known to raise on damaged files.
_DAMAGE = (
    OSError, KeyError, ValueError, EOFError, RuntimeError, MemoryError, SyntaxError, OverflowError,
    zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError,
)  # fmt: skip


@dataclass(frozen=True)
class MapFile:
    """Maps of the classes present in one image.

    Attributes:
        keys: 0-based class of each map, ascending, (n,) int64; n may be 0.
        maps: Scores in [0, 1], (n, H, W) float32. H x W may be smaller than the image.
        size: (height, width) of the image in pixels.
    """

    keys: NDArray[np.int64]
    maps: NDArray[np.float32]
    size: tuple[int, int]


def save_maps(
    path: Path,
    maps: NDArray[np.floating],
    keys: NDArray[np.integer],
    size: tuple[int, int],
    half: bool = True,
) -> None:
    """Write the maps of one image, atomically; equal maps give byte-equal files.

    Args:
        path: Ends in ``.npz``.
        maps: Scores in [0, 1], (n, H, W).
        keys: 0-based class of each map, (n,).
        size: (height, width) of the image in pixels.
        half: Store float16 (error at most 2.5e-4) instead of float32.

    Raises:
        ValueError: Maps and keys do not belong together.
        DataError: The file cannot be written.
    """
    if maps.ndim != 3 or keys.shape != maps.shape[:1]:
        raise ValueError(f"maps must be (n, H, W) with n keys, got {maps.shape} and keys {keys.shape}")
    arrays = {
        "maps": maps.astype(np.float16 if half else np.float32),
        "keys": keys.astype(np.int64),
        "size": np.asarray(size, np.int64),
    }
    with atomic_write(path) as target, zipfile.ZipFile(target, "w") as archive:
        for key, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            # A fixed date (np.savez takes the clock's) keeps files of equal content equal.
            entry = zipfile.ZipInfo(f"{key}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, buffer.getvalue(), compresslevel=1)


def load_maps(path: Path, num_classes: int | None = None) -> MapFile:
    """Read the maps of one image.

    Args:
        path: The file.
        num_classes: K; a key of K or more is refused. Any key is taken if None.

    Raises:
        DataError: The file is missing, damaged, not a map file, or holds what is no map of these classes.
    """
    try:
        with open_regular(path) as file, np.load(file, allow_pickle=False) as data:
            maps, keys, size = data["maps"], data["keys"], data["size"]
    except FileNotFoundError:
        raise DataError(f"no maps at {path}; run 'tagmask localize' first") from None
    except _DAMAGE as error:
        raise DataError(
            f"{path} is not a readable map file ({error}); delete it and run localize again"
        ) from None
    numbers = maps.dtype.kind in "fiu" and keys.dtype.kind in "iu"
    if not numbers or maps.ndim != 3 or keys.shape != maps.shape[:1] or size.shape != (2,):
        raise DataError(f"{path} holds maps {maps.shape} for keys {keys.shape}; expected (n, H, W) and (n,)")
    if not np.isfinite(maps).all():
        raise DataError(f"{path} holds values that are not finite; delete it and run localize again")
    most = np.inf if num_classes is None else num_classes
    if len(keys) and (np.diff(keys).min(initial=1) < 1 or keys.min() < 0 or keys.max() >= most):
        raise DataError(
            f"{path} holds maps of classes {keys.tolist()}; expected ascending numbers from 0 to below {most}"
        )
    return MapFile(keys.astype(np.int64), maps.astype(np.float32), (int(size[0]), int(size[1])))

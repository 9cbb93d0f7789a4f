"""Whole-slide scans through OpenSlide: parts of them at any scale, and the tiles that show tissue.

A scan is looked at in tiles of `TILE` x `TILE` pixels of its full resolution; what lies beyond its edges is
white. A pixel of a picture `_SHRINK` times smaller counts as tissue if its colour is strong enough: the
largest of red, green and blue exceeds the smallest by more than Otsu's threshold of the scan, held between
`_CHROMA`. A tile shows tissue if at least `_SHARE` of it does. Blank glass and its grey shadows are left out;
marks of a pen are not, and what has no colour of its own is.
"""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tagmask.data.readers.pixels import PixelInfo, decoding, need
from tagmask.data.readers.regular import check_regular, open_regular
from tagmask.errors import DataError

__all__ = [
    "ENDINGS", "TILE", "is_slide", "may_be", "opened", "part_of", "read", "region", "size", "tiles",
    "whole_size",
]  # fmt: skip

ENDINGS = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".vms", ".vmu")
"""Endings of scans; pyramids in plain TIFF files are told by their content."""
TILE = 512
"""Side of a tile in pixels of the full resolution."""
_TIFF = (".tif", ".tiff")
_SHRINK = 32
_CHROMA = (10, 40)
_SHARE = 0.1
_TILE_WIDTH = 322


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file as an `openslide.OpenSlide`.

    Raises:
        DataError: openslide is not installed, or the file is damaged.
    """
    openslide = need("openslide", path)
    check_regular(path)
    with decoding(path), openslide.OpenSlide(path) as file:
        yield file


def may_be(path: Path) -> bool:
    """Whether a file can be a scan, by its ending and the first bytes of a TIFF: tiles, not strips."""
    if path.suffix.lower() in ENDINGS:
        return True
    return path.suffix.lower() in _TIFF and _installed() and _is_tiled(path)


def is_slide(path: Path) -> bool:
    """Whether a file is a scan: by its ending, or as a TIFF of tiles in several sizes.

    Without openslide a pyramid in a TIFF file is the picture on its first page.
    """
    if path.suffix.lower() in ENDINGS:
        return True
    if not may_be(path):
        return False
    try:
        with opened(path) as file:
            return bool(file.level_count > 1)
    except DataError:
        return False


def region(
    file: Any, left: int, top: int, width: int, height: int, size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """A part of a scan as RGB; what was not scanned has the scan's background colour.

    Args:
        file: What `opened` gives.
        left: First column of the full resolution.
        top: First row of it.
        width: Columns of it.
        height: Rows of it.
        size: (width, height) to shrink the part to, by means over a level that is large enough.

    Returns:
        (height, width, 3) uint8, or of the given size.
    """
    wanted = size or (width, height)
    level = file.get_best_level_for_downsample(max(1.0, min(width / wanted[0], height / wanted[1])))
    factor = file.level_downsamples[level]
    seen = max(1, round(width / factor)), max(1, round(height / factor))
    part = file.read_region((left, top), level, seen)
    colour = file.properties.get("openslide.background-color", "ffffff")
    ground = Image.new("RGBA", part.size, f"#{colour}")
    rgb = Image.alpha_composite(ground, part).convert("RGB")
    return np.array(rgb if rgb.size == wanted else rgb.resize(wanted, Image.Resampling.BOX))


def part_of(path: Path, row: int, column: int) -> int:
    """Number of a tile, from its row and column in the grid.

    Raises:
        DataError: There is no such tile.
    """
    rows, columns = _grid(path)
    if not (0 <= row < rows and 0 <= column < columns):
        raise DataError(
            f"{path} has {rows} rows and {columns} columns of tiles, from 0 on; not {row}-{column}"
        )
    return row * columns + column


def tiles(path: Path) -> tuple[tuple[int, int], ...]:
    """(row, column) of every tile that shows tissue, see the module's description."""
    return _tiles(path, path.stat().st_mtime_ns)


def read(path: Path, part: int | None, max_pixels: int) -> tuple[NDArray[np.float32], PixelInfo]:
    """A tile, (3, TILE, TILE).

    Args:
        path: The file.
        part: What `part_of` gives.
        max_pixels: Not needed; a tile is small.

    Raises:
        DataError: No tile is named, or the file is damaged.
    """
    with opened(path) as file:
        width, height = file.dimensions
        columns = -(-width // TILE)
        if part is None or not 0 <= part < columns * -(-height // TILE):
            raise DataError(
                f"{path} is a scan of {width} x {height} pixels; 'tagmask predict' takes it whole, and a tag "
                "file may name its tiles"
            )
        row, column = divmod(part, columns)
        with decoding(path):
            rgb = region(file, column * TILE, row * TILE, TILE, TILE)
        spacing = [file.properties.get(f"openslide.mpp-{axis}") for axis in "yx"]
    known = None if None in spacing else (float(spacing[0]) / 1000, float(spacing[1]) / 1000)
    info = PixelInfo((0.0, 255.0), 3, colour=True, spacing=known)
    return rgb.transpose(2, 0, 1).astype(np.float32), info


def size(path: Path, max_pixels: int) -> tuple[int, int]:
    """(height, width) of a tile."""
    return TILE, TILE


def whole_size(path: Path) -> tuple[int, int]:
    """(height, width) of a scan at full resolution."""
    with opened(path) as file:
        width, height = file.dimensions
    return int(height), int(width)


def _installed() -> bool:
    return importlib.util.find_spec("openslide") is not None


def _grid(path: Path) -> tuple[int, int]:
    height, width = whole_size(path)
    return -(-height // TILE), -(-width // TILE)


@lru_cache(maxsize=256)
def _tiles(path: Path, changed: int) -> tuple[tuple[int, int], ...]:
    """A data set is opened more often than its scans change."""
    with opened(path) as file, decoding(path):
        width, height = file.dimensions
        columns, side = -(-width // TILE), TILE // _SHRINK
        strips = [
            region(file, 0, top, columns * TILE, TILE, (columns * side, side))
            for top in range(0, height, TILE)
        ]
    small = np.concatenate(strips)
    chroma = small.max(2) - small.min(2)
    tissue = chroma > np.clip(_otsu(chroma), *_CHROMA)
    share = tissue.reshape(len(strips), side, columns, side).mean((1, 3))
    return tuple((int(row), int(column)) for row, column in np.argwhere(share >= _SHARE))


def _otsu(values: NDArray[np.uint8]) -> int:
    """The threshold that parts values into two groups as far apart as can be (Otsu, 1979)."""
    counts = np.bincount(values.ravel(), minlength=256).astype(float)
    below, total = np.cumsum(counts), counts.sum()
    weighted = np.cumsum(counts * np.arange(256))
    above = total - below
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = (weighted / below - (weighted[-1] - weighted) / above) ** 2 * below * above
    return int(np.nan_to_num(apart).argmax())


def _is_tiled(path: Path) -> bool:
    """Whether the first picture of a TIFF is kept in tiles, from a few bytes of it."""
    try:
        with open_regular(path, limit=None) as file:
            return _TILE_WIDTH in _first_codes(file)
    except (OSError, struct.error, DataError):
        return False


def _first_codes(file: BinaryIO) -> set[int]:
    """Codes of the tags in the first directory of a TIFF or BigTIFF."""
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None:
        return set()
    big = struct.unpack_from(f"{order}H", head, 2)[0] == 43
    (start,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", head, 8 if big else 4)
    file.seek(start)
    (count,) = struct.unpack(f"{order}{'Q' if big else 'H'}", file.read(8 if big else 2))
    length = 20 if big else 12
    entries = file.read(min(count, 1000) * length)
    return {struct.unpack_from(f"{order}H", entries, at)[0] for at in range(0, len(entries) - 1, length)}

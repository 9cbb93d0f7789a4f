"""GeoTIFFs and other rasters of a map, through rasterio; windows of them, never the whole scene."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmask.data.readers import tiff
from tagmask.data.readers.pixels import PixelInfo, decoding, full_range, need
from tagmask.data.readers.regular import check_regular
from tagmask.errors import DataError

__all__ = ["CACHE", "describe", "is_all_valid", "opened", "read", "size", "window_of"]

CACHE = 256 << 20
"""Bytes of decoded blocks that GDAL keeps; its own rule is a share of the machine's memory."""
_KEYS, _CODES, _DESCRIBED = 34735, (3072, 2048), 32767
"""The tag of the keys, those of projected and geographic systems, and what says: described by other keys."""


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file as a rasterio data set.

    Raises:
        DataError: rasterio is not installed, the file is damaged, or its coordinate system is unknown.
    """
    rasterio = need("rasterio", path)
    check_regular(path)
    # One named driver: others follow what a file says to further files and to addresses on the net.
    quiet = rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_CACHEMAX=CACHE)
    with decoding(path), quiet, rasterio.open(path, driver="GTiff") as file:
        yield file


def describe(path: Path, file: Any) -> PixelInfo:
    """What a raster says about its numbers and its place.

    Raises:
        DataError: It holds complex numbers, or keys of a coordinate system that does not exist.
    """
    kinds = {np.dtype(name) for name in file.dtypes if not name.startswith("complex")}
    if len(kinds) != 1 or any(name.startswith("complex") for name in file.dtypes):
        raise DataError(f"{path} holds {', '.join(file.dtypes)} bands; one type of real numbers is read")
    bands = _data_bands(file)
    colours = [file.colorinterp[b - 1].name for b in bands[:3]]
    crs = None if file.crs is None else str(file.crs.to_wkt())
    moved = not file.transform.is_identity
    if not _is_known(file.crs) and (code := _named_crs(path)) is not None:
        raise DataError(
            f"{path} names a coordinate system that does not exist, EPSG:{code}; write the right one into it "
            "(rio edit-info --crs EPSG:NUMBER)"
        )
    if colours[:1] == ["palette"]:
        raise DataError(
            f"{path} is a palette picture: its numbers name colours and are no measurements; save it as RGB"
        )
    return PixelInfo(
        full_range(kinds.pop()),
        len(bands),
        colours == ["red", "green", "blue"],
        crs=crs,
        transform=tuple(file.transform)[:6] if moved else None,
        spacing=(abs(file.res[0]), abs(file.res[1])) if moved else None,
    )


def window_of(
    file: Any,
    top: int,
    left: int,
    height: int,
    width: int,
    size: tuple[int, int] | None = None,
    bands: tuple[int, ...] | None = None,
) -> NDArray[np.float32]:
    """A part of a raster, NaN where there is no data.

    Args:
        file: What `opened` gives.
        top: First row.
        left: First column.
        height: Rows.
        width: Columns.
        size: (height, width) to shrink it to, from the file's overviews if it has any.
        bands: 1-based bands; all that hold data if None.

    Returns:
        (C, height, width) float32, or of the given size.
    """
    chosen = list(bands or _data_bands(file))
    window = ((top, top + height), (left, left + width))
    shape = None if size is None else (len(chosen), *size)
    read = file.read(chosen, window=window, out_shape=shape)
    values: NDArray[np.float32] = read.astype(np.float32)
    if is_all_valid(file):
        return values
    valid = file.read_masks(chosen, window=window, out_shape=shape)
    values[valid == 0] = np.nan
    return values


def is_all_valid(file: Any) -> bool:
    """Whether a raster has neither a value for no data nor a mask nor opacity."""
    flags = {flag.name for band in _data_bands(file) for flag in file.mask_flag_enums[band - 1]}
    return flags == {"all_valid"}


def size(path: Path, max_pixels: int) -> tuple[int, int]:
    """(height, width), from the header."""
    with opened(path) as file:
        _refuse_large(path, file, max_pixels)
        return file.height, file.width


def read(path: Path, max_pixels: int) -> tuple[NDArray[np.float32], PixelInfo]:
    """All bands, see `tagmask.data.readers.pixels.read_pixels`."""
    with opened(path) as file:
        _refuse_large(path, file, max_pixels)
        info = describe(path, file)
        return window_of(file, 0, 0, file.height, file.width), info


def _refuse_large(path: Path, file: Any, max_pixels: int) -> None:
    if file.height * file.width > max_pixels:
        raise DataError(
            f"{path} declares {file.width} x {file.height} pixels; at most {max_pixels:,} are decoded here. "
            "Cut it into tiles; 'tagmask predict' takes it as it is"
        )


def _data_bands(file: Any) -> tuple[int, ...]:
    """All but a band of opacity."""
    kinds = [kind.name for kind in file.colorinterp]
    return tuple(b for b, kind in enumerate(kinds, 1) if kind != "alpha")


def _is_known(crs: Any) -> bool:
    """Whether a coordinate system is on the earth; of unknown codes GDAL makes a local one without name."""
    return crs is not None and bool(crs.is_projected or crs.is_geographic or crs.to_epsg())


def _named_crs(path: Path) -> int | None:
    """The code of a coordinate system that the file's keys name; None if they describe one, or none."""
    with tiff.opened(path) as file:
        tag = file.pages[0].tags.get(_KEYS)
        keys = () if tag is None else tuple(tag.value)
    named = {keys[at]: keys[at + 3] for at in range(4, len(keys) - 3, 4) if keys[at + 1] == 0}
    return next((int(named[key]) for key in _CODES if named.get(key, 0) not in (0, _DESCRIBED)), None)

"""TIFF files of any depth and number of bands, through tifffile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmask.data.readers.images import is_eight_bit
from tagmask.data.readers.pixels import PixelInfo, decoding, full_range, need
from tagmask.data.readers.regular import check_regular
from tagmask.errors import DataError

__all__ = ["is_photograph", "kind_of", "opened", "read", "size"]

_WHITE_IS_ZERO, _PALETTE = 0, 3
_GEO_KEYS = (34735, 42113)
"""Tags: a place on the map, GDAL's value for no data."""
_TURNED = {
    2: lambda x: x[..., ::-1],
    3: lambda x: x[..., ::-1, ::-1],
    4: lambda x: x[..., ::-1, :],
    5: lambda x: x.swapaxes(1, 2),
    6: lambda x: x.swapaxes(1, 2)[..., ::-1],
    7: lambda x: x.swapaxes(1, 2)[..., ::-1, ::-1],
    8: lambda x: x.swapaxes(1, 2)[..., ::-1, :],
}
"""What turns rows of every orientation tag upright."""


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file as a `tifffile.TiffFile`.

    Raises:
        DataError: tifffile is not installed, or the file is damaged.
    """
    tifffile = need("tifffile", path)
    check_regular(path)
    with decoding(path), tifffile.TiffFile(path) as file:
        if not len(file.pages):
            raise DataError(f"{path} is a TIFF file without a picture")
        yield file


def kind_of(path: Path) -> str:
    """Whether a file has a place on the map or a value for no data ("geotiff") or not ("tiff")."""
    try:
        with opened(path) as file:
            return "geotiff" if any(code in file.pages[0].tags for code in _GEO_KEYS) else "tiff"
    except DataError:
        # Without the decoder Pillow has to do, and damage is named by whoever reads.
        return "photograph" if is_eight_bit(path) else "tiff"


def is_photograph(path: Path) -> bool:
    """Whether Pillow gives all that is in the file."""
    with opened(path) as file:
        page = file.pages[0]
        bits = {page.bitspersample} if isinstance(page.bitspersample, int) else set(page.bitspersample)
        floats = page.sampleformat not in (None, 1)
        alpha = bool(set(page.extrasamples) & {1, 2})
        colours = page.samplesperpixel - (1 if alpha else 0)
        cmyk = int(page.photometric) == 5
        return max(bits) <= 8 and not floats and (colours in (1, 3) or (cmyk and colours == 4))


def size(path: Path, max_pixels: int) -> tuple[int, int]:
    """(height, width) after turning, from the header."""
    with opened(path) as file:
        page = _page(path, file, max_pixels)
        turned = _orientation(page) in (5, 6, 7, 8)
        return (page.imagewidth, page.imagelength) if turned else (page.imagelength, page.imagewidth)


def read(path: Path, max_pixels: int) -> tuple[NDArray[np.float32], PixelInfo]:
    """All bands, see `tagmask.data.readers.pixels.read_pixels`."""
    with opened(path) as file:
        page = _page(path, file, max_pixels)
        _refuse_unclear(path, page)
        _refuse_cut_off(path, page)
        values = np.asarray(page.asarray())
        full = _full(page, values.dtype)
        planes = _planes(page, values).astype(np.float32)
        alpha = [i for i, kind in enumerate(page.extrasamples) if kind in (1, 2)]
        if int(page.photometric) == _WHITE_IS_ZERO and full is not None:
            planes = np.float32(full[1]) - planes
        if alpha:
            place = len(planes) - len(page.extrasamples) + alpha[0]
            clear = planes[place] == 0
            planes = np.delete(planes, place, 0)
            planes[:, clear] = np.nan
        turn = _TURNED.get(_orientation(page))
        planes = planes if turn is None else np.ascontiguousarray(turn(planes))
        colour = int(page.photometric) in (2, 6) and len(planes) >= 3
        return planes, PixelInfo(full, len(planes), colour, _window(page, full))


def _page(path: Path, file: Any, max_pixels: int) -> Any:
    page = file.pages[0]
    sizes = {(p.imagewidth, p.imagelength) for p in file.pages[:64] if not p.is_reduced}
    count = sum(1 for p in file.pages[:64] if not p.is_reduced)
    if count > 1 and len(sizes) == 1:
        raise DataError(
            f"{path} holds {count} pages of one size: they may be slices of a stack or bands of one picture. "
            "Save slices as one file each, or bands as the samples of one page"
        )
    if count > 1:
        raise DataError(f"{path} holds {count} pages; save the one you mean as its own picture")
    if page.imagewidth * page.imagelength > max_pixels:
        raise DataError(
            f"{path} declares {page.imagewidth} x {page.imagelength} pixels; at most {max_pixels:,} are "
            "decoded here. Make it smaller or cut it into tiles"
        )
    return page


def _refuse_unclear(path: Path, page: Any) -> None:
    if int(page.photometric) == _PALETTE:
        raise DataError(
            f"{path} is a palette picture: its numbers name colours and are no measurements; save it as RGB"
        )
    if page.dtype is None or np.issubdtype(page.dtype, np.complexfloating):
        raise DataError(f"{path} holds {page.dtype or 'unknown'} numbers; integers and real ones are read")


def _refuse_cut_off(path: Path, page: Any) -> None:
    """A strip that is missing would be decoded as zeros."""
    length = path.stat().st_size
    for number, (start, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=False), 1):
        if start + count > length:
            raise DataError(
                f"{path} is cut off: part {number} of {len(page.dataoffsets)} ends "
                f"{start + count - length:,} bytes behind the end of the file"
            )


def _planes(page: Any, values: NDArray[Any]) -> NDArray[Any]:
    """(C, H, W), wherever the file keeps its bands."""
    if values.ndim == 2:
        return values[None]
    return values if page.axes.startswith("S") else values.transpose(2, 0, 1)


def _full(page: Any, dtype: np.dtype[Any]) -> tuple[float, float] | None:
    found = full_range(dtype)
    bits = page.bitspersample if isinstance(page.bitspersample, int) else max(page.bitspersample)
    return (0.0, 2.0**bits - 1) if found is not None and found[0] == 0 else found


def _window(page: Any, full: tuple[float, float] | None) -> tuple[float, float] | None:
    """What the tags SMin/SMaxSampleValue or Min/MaxSampleValue say."""
    for low, high in ((340, 341), (280, 281)):
        if low in page.tags and high in page.tags:
            ends = [np.atleast_1d(page.tags[code].value).astype(float) for code in (low, high)]
            window = float(ends[0].min()), float(ends[1].max())
            if window[0] < window[1] and window != full:
                return window
    return None


def _orientation(page: Any) -> int:
    tag = page.tags.get(274)
    return 1 if tag is None else int(tag.value)

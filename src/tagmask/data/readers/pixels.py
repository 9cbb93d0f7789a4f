"""One reader for pictures that are no 8-bit photographs: any depth, any number of bands, one contract."""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tagmask.data.readers.images import MAX_PIXELS, read_deep, read_image, read_size
from tagmask.data.readers.regular import open_regular, read_bytes
from tagmask.errors import DataError, one_line

__all__ = [
    "PixelInfo",
    "decoding",
    "file_kind",
    "full_range",
    "is_photograph",
    "need",
    "pixel_size",
    "read_pixels",
]

_HEAD = 132
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_DEEP_COLOUR = (2, 6)
EXTRAS = {
    "tifffile": "tiff",
    "imagecodecs": "tiff",
    "rasterio": "geo",
    "pyogrio": "geo",
    "nibabel": "volumes",
    "pydicom": "volumes",
    "highdicom": "volumes",
    "openslide": "slides",
}
"""Decoder to the extra that installs it."""


@dataclass(frozen=True)
class PixelInfo:
    """What a file says about its numbers.

    Attributes:
        full: Smallest and largest number its type can hold; None of floating point.
        window: Values that the file itself wants shown black and white, if it says so.
        bands: C, how many bands it has.
        colour: Whether the first three bands are red, green and blue.
        crs: Coordinate system of a map, as well-known text.
        transform: (a, b, c, d, e, f): column and row of a pixel's corner to x = a column + b row + c and
            y = d column + e row + f in that system.
        spacing: Size of a pixel or voxel as the file gives it: (row, column), or (slice, row, column).
    """

    full: tuple[float, float] | None
    bands: int
    colour: bool = False
    window: tuple[float, float] | None = None
    crs: str | None = None
    transform: tuple[float, ...] | None = None
    spacing: tuple[float, ...] | None = None


def read_pixels(
    path: str | Path, part: int | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[NDArray[np.float32], PixelInfo]:
    """All bands of a picture as they are in the file, without any stretching.

    The format is taken from the content. Where there is no data (a GeoTIFF's nodata value, NaN, infinity,
    a clear pixel) all bands are NaN.

    Args:
        path: The file.
        part: Which slice of a stack, counted from 0; None for a file of one picture.
        max_pixels: Larger declared sizes are refused before anything is decoded.

    Returns:
        (C, H, W) float32, and what the file says about it.

    Raises:
        DataError: The file is missing, cut off or no picture, its decoder is not installed, or it could mean
            two things.
    """
    path = Path(path)
    kind = file_kind(path)
    if kind in ("tiff", "geotiff"):
        reader = importlib.import_module(f"tagmask.data.readers.{kind}")
        pixels, info = reader.read(path, max_pixels)
    elif kind in ("nifti", "dicom", "slide"):
        pixels, info = importlib.import_module(f"tagmask.data.readers.{kind}").read(path, part, max_pixels)
    elif kind == "png16":
        pixels, info = _deep_png(path, max_pixels)
    elif kind == "pnm16":
        pixels, info = read_deep(path, max_pixels).astype(np.float32)[None], PixelInfo((0.0, 65535.0), 1)
    else:
        rgb = read_image(path, max_pixels)
        pixels, info = rgb.transpose(2, 0, 1).astype(np.float32), PixelInfo((0.0, 255.0), 3, colour=True)
    pixels[~np.isfinite(pixels)] = np.nan
    if pixels.size == 0 or np.isnan(pixels).all():
        raise DataError(f"{path} holds no valid pixel: every one of them is NaN or its value for no data")
    return pixels, info


def pixel_size(path: str | Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) as `read_pixels` gives them, from the header where that is possible.

    Raises:
        DataError: See `read_pixels`.
    """
    path = Path(path)
    kind = file_kind(path)
    if kind in ("tiff", "geotiff", "nifti", "dicom", "slide"):
        size: tuple[int, int] = importlib.import_module(f"tagmask.data.readers.{kind}").size(path, max_pixels)
        return size
    return read_size(path, max_pixels)


def is_photograph(path: str | Path) -> bool:
    """Whether a file is what `read_image` reads as it is: 8 bits, and grey or in colour.

    A file that cannot be opened counts as one: whoever reads it says what is wrong.
    """
    try:
        kind = file_kind(Path(path))
        if kind == "slide":
            return False
        if kind in ("tiff", "geotiff"):
            reader = importlib.import_module("tagmask.data.readers.tiff")
            plain: bool = reader.is_photograph(Path(path))
            return plain
    except DataError:
        return True
    return kind == "photograph"


def file_kind(path: Path) -> str:
    """What a file is: "tiff", "geotiff", "png16", "pnm16", "nifti", "dicom", "slide", "photograph" (else).

    Raises:
        DataError: It is missing or no plain file.
    """
    # Scenes and scans are read by parts, however many bytes they have.
    with _named(path), open_regular(path, limit=None) as file:
        head = file.read(_HEAD)
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return "nifti"
    if head[128:132] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom"):
        return "dicom"
    slide = importlib.import_module("tagmask.data.readers.slide")
    if path.suffix.lower() in slide.ENDINGS:
        return "slide"
    if head[:4] in _TIFF:
        tiff = importlib.import_module("tagmask.data.readers.tiff")
        kind: str = tiff.kind_of(path)
        scan = kind == "tiff" and slide.may_be(path) and tiff.is_photograph(path) and slide.is_slide(path)
        return "slide" if scan else kind
    if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) > 25 and head[24] == 16:
        return "png16"
    if head[:2] in (b"P5", b"P6") and _netpbm_depth(head) > 255:
        return "pnm16"
    return "photograph"


def full_range(dtype: np.dtype[Any]) -> tuple[float, float] | None:
    """Smallest and largest number of a type; None of floating point."""
    if dtype == np.bool_:
        return 0.0, 1.0
    if not np.issubdtype(dtype, np.integer):
        return None
    limits = np.iinfo(dtype)
    return float(limits.min), float(limits.max)


def need(module: str, path: Path) -> Any:
    """A decoder, imported when the first file needs it.

    Raises:
        DataError: It is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise DataError(
            f"{path} needs {module} to be read: pip install 'tagmask[{EXTRAS[module.partition('.')[0]]}]'"
        ) from None


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Whatever a decoder says about a damaged file becomes one line."""
    try:
        yield
    except (DataError, KeyboardInterrupt):
        raise
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except Exception as error:
        raise DataError(f"{path} cannot be decoded: {one_line(error)}") from None


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None


def _netpbm_depth(head: bytes) -> int:
    words = [word for line in head.split(b"\n") for word in line.partition(b"#")[0].split()]
    return int(words[3]) if len(words) > 3 and words[3].isdigit() else 255


def _deep_png(path: Path, max_pixels: int) -> tuple[NDArray[np.float32], PixelInfo]:
    content = read_bytes(path)
    height, width = read_size(path, max_pixels)
    if content[25] in _DEEP_COLOUR or content[25] == 4:
        # Pillow drops the low byte of 16-bit colour.
        codecs = need("imagecodecs", path)
        with decoding(path):
            values = np.asarray(codecs.png_decode(content))
    else:
        with decoding(path), Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            values = np.array(image)
    values = values.reshape(height, width, -1)
    pixels = values.transpose(2, 0, 1).astype(np.float32)
    if len(pixels) in (2, 4):
        pixels = np.where(pixels[-1] > 0, pixels[:-1], np.float32("nan"))
    return pixels, PixelInfo((0.0, 65535.0), len(pixels), len(pixels) == 3)

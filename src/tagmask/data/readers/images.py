"""Decode one picture or mask file, or say in one sentence why not. Nothing else opens image files."""

from __future__ import annotations

import importlib.util
import io
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from tagmask.data.readers.regular import open_regular
from tagmask.errors import DataError
from tagmask.ops.images import unit

__all__ = [
    "FOREIGN_SUFFIXES",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "foreign",
    "is_eight_bit",
    "read_deep",
    "read_image",
    "read_indices",
    "read_palette",
    "read_picture",
    "read_size",
    "rgb_tensor",
    "turned_unseen",
]

MAX_PIXELS = 80_000_000
"""Largest declared size that is decoded; below the size at which Pillow itself starts to warn."""
_HEIF = frozenset({".heic", ".heif", ".hif"})
_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_HAS_AVIF = importlib.util.find_spec("PIL._avif") is not None
_HAS_HEIF = importlib.util.find_spec("pillow_heif") is not None
IMAGE_SUFFIXES = frozenset(
    {
        ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".apng", ".bmp", ".dib", ".tif", ".tiff", ".webp",
        ".ppm", ".pgm", ".pbm", ".pnm", ".gif", *([".avif"] if _HAS_AVIF else []),
        *(_HEIF if _HAS_HEIF else []),
    }
)  # fmt: skip
"""File name endings that are taken for pictures when a folder is listed; some depend on what is installed."""
FOREIGN_SUFFIXES = (
    frozenset(
        {
            ".avif", ".jp2", ".j2k", ".jpx", ".jxl", ".jxr", ".svg", ".psd", ".exr", ".hdr", ".dng", ".cr2",
            ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".tga", ".ico", *_HEIF,
        }
    ) - IMAGE_SUFFIXES
)  # fmt: skip
"""Endings of pictures that are not read here; a listing names them instead of passing over them."""
_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "TIFF", "WEBP", "PPM", "GIF", *(["AVIF"] if _HAS_AVIF else []))
"""None of them starts another program."""
_ORIENTATION = 0x0112
_BUFFER = 1 << 18
_LIMIT = threading.Lock()
# What Pillow's decoders are known to raise on damaged files, besides its own classes.
_DAMAGE = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError)


@contextmanager
def _opened(path: Path, max_pixels: int, content: bytes | None = None) -> Iterator[Image.Image]:
    """The file as a lazily decoded picture; everything that goes wrong inside becomes a DataError."""
    try:
        # Decoders read in small bites; one large buffer saves most of the trips to a slow disk.
        with (
            open_regular(path, buffering=_BUFFER) if content is None else io.BytesIO(content) as file,
            _identified(file, max_pixels) as image,
        ):
            height, width = image.height, image.width
            if height * width > max_pixels:
                raise DataError(
                    f"{path} declares {width} x {height} pixels; at most {max_pixels:,} are decoded here. "
                    "Make it smaller or cut it into tiles"
                )
            if image.format != "MPO" and getattr(image, "is_animated", False):
                raise DataError(f"{path} holds several frames; save the one you mean as its own picture")
            yield image
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"{path} declares far more than {max_pixels:,} pixels and is not decoded") from None
    except UnidentifiedImageError:
        if content == b"" or (content is None and path.is_file() and path.stat().st_size == 0):
            raise DataError(f"{path} is empty (0 bytes)") from None
        if path.suffix.lower() in FOREIGN_SUFFIXES:
            raise DataError(f"{path} {foreign(path.suffix)}") from None
        known = ", ".join(_FORMATS)
        raise DataError(f"{path} is not a picture (readable are {known})") from None
    except (*_DAMAGE, struct.error, zlib.error, MemoryError) as error:
        raise DataError(f"{path} cannot be decoded: {error or type(error).__name__}") from None


def _identified(file: IO[bytes], max_pixels: int) -> Image.Image:
    """The picture's header; Pillow's own limit, which is lower, gives way to a caller that allows more."""
    formats = _formats(file)
    if Image.MAX_IMAGE_PIXELS is None or max_pixels <= Image.MAX_IMAGE_PIXELS:
        return Image.open(file, formats=formats)
    with _LIMIT:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
        try:
            return Image.open(file, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _formats(file: IO[bytes]) -> tuple[str, ...]:
    """Formats that a file can be of; the plugin for HEIC is asked for when the first one comes."""
    head = file.read(12)
    file.seek(0)
    if not _HAS_HEIF or head[4:8] != b"ftyp" or head[8:] not in _BRANDS:
        return _FORMATS
    if "HEIF" not in Image.OPEN:
        importlib.import_module("pillow_heif").register_heif_opener()
    return ("HEIF", *_FORMATS)


def foreign(suffix: str) -> str:
    """What is said of a picture with one of `FOREIGN_SUFFIXES`."""
    if suffix.lower() in _HEIF:
        return "needs pillow_heif to be read: pip install 'tagmask[heif]', or save it as JPEG or PNG"
    if suffix.lower() == ".avif":
        return "needs a Pillow that reads AVIF (11.3 or later), or save it as JPEG or PNG"
    return "is a picture of a format that is not read here; save it as JPEG or PNG"


def _upright(image: Image.Image) -> bool:
    return int(image.getexif().get(_ORIENTATION, 1)) not in (5, 6, 7, 8)


def read_size(path: str | Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) after the EXIF rotation, from the header alone.

    Raises:
        DataError: The file is missing, no picture, or declares more than `max_pixels`.
    """
    with _opened(Path(path), max_pixels) as image:
        return (image.height, image.width) if _upright(image) else (image.width, image.height)


def is_eight_bit(path: str | Path) -> bool:
    """Whether Pillow reads a file, and no channel of it has more than 8 bits."""
    try:
        with _opened(Path(path), MAX_PIXELS) as image:
            _refuse_deep(image, Path(path))
    except DataError:
        return False
    return True


def turned_unseen(path: str | Path) -> bool:
    """Whether a picture is turned or mirrored by its EXIF tag in a way that its size does not show.

    Raises:
        DataError: The file is no picture.
    """
    with _opened(Path(path), MAX_PIXELS) as image:
        orientation = int(image.getexif().get(_ORIENTATION, 1))
        return orientation in (2, 3, 4) or (orientation in (5, 6, 7, 8) and image.width == image.height)


def read_image(
    path: str | Path, max_pixels: int = MAX_PIXELS, max_side: int | None = None
) -> NDArray[np.uint8]:
    """RGB pixels of a picture file, (H, W, 3) uint8, turned upright by its EXIF tag.

    The format is taken from the content, not the name. Grey, palette and CMYK pictures become RGB;
    transparent pixels become black, the colour of padding. 16-bit and float pictures are refused, because
    which of their values should be black and white is not written in them.

    Args:
        path: The file.
        max_pixels: Larger declared sizes are refused before anything is decoded.
        max_side: Shrink to at most this longer side; JPEGs are then decoded at a fraction of their size.

    Raises:
        DataError: The file is missing, empty, truncated, no picture, animated, too large or not 8-bit.
    """
    return np.array(read_picture(path, max_pixels, max_side))


def read_picture(
    path: str | Path, max_pixels: int = MAX_PIXELS, max_side: int | None = None, content: bytes | None = None
) -> Image.Image:
    """A picture as `read_image` gives it, but as a decoded Pillow image in mode RGB.

    Of very large pictures parts can be cut out of it without a second copy of all pixels.

    Args:
        path: The file, or how messages shall call `content`.
        max_pixels: Larger declared sizes are refused before anything is decoded.
        max_side: Shrink to at most this longer side.
        content: The file's bytes, if it is not on disk.

    Raises:
        DataError: See `read_image`.
    """
    path = Path(path)
    with _opened(path, max_pixels, content) as image:
        _refuse_deep(image, path)
        target = _shrunk(image.size, max_side)
        if target != image.size:
            image.draft(None, target)
        upright = image
        if image.getexif().get(_ORIENTATION, 1) != 1:
            upright = ImageOps.exif_transpose(image)
        if upright.has_transparency_data:
            upright = upright.convert("RGBA")
            canvas = Image.new("RGBA", upright.size, (0, 0, 0, 255))
            upright = Image.alpha_composite(canvas, upright)
        rgb = upright if upright.mode == "RGB" else upright.convert("RGB")
        rgb.load()
        if target != image.size or max(rgb.size) > max(target):
            rgb = rgb.resize(_shrunk(rgb.size, max_side), Image.Resampling.BILINEAR, reducing_gap=2.0)
        return rgb


def _shrunk(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    factor = 1.0 if max_side is None else min(1.0, max_side / max(size))
    return (
        (size[0], size[1])
        if factor == 1
        else (max(1, round(size[0] * factor)), max(1, round(size[1] * factor)))
    )


def _refuse_deep(image: Image.Image, path: Path) -> None:
    # Pillow silently drops the low byte of 16-bit colour, so the raw mode has to be asked as well.
    if image.mode in ("I", "F") or ";16" in f"{image.mode}{getattr(image, 'tile', '')}":
        raise DataError(
            f"{path} has more than 8 bits per channel ({image.mode}), and nothing says which values are "
            "black and white: train with data.range, use a model that was, or save it as 8-bit"
        )


def read_deep(path: str | Path, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    """The numbers of a grey picture of more than 8 bits that Pillow decodes (PNM, PNG), (H, W) of any type.

    Raises:
        DataError: See `read_image`; or it is none of these.
    """
    path = Path(path)
    with _opened(path, max_pixels) as image:
        if image.mode not in ("I", "F") and ";16" not in image.mode:
            raise DataError(f"{path} is a {image.mode} picture; grey with more than 8 bits was expected")
        return np.array(image)


def read_indices(path: str | Path, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """The stored numbers of a one-channel mask file (palette or grey PNG), (H, W) uint8.

    Raises:
        DataError: The file cannot be decoded, has several channels, or holds numbers above 255.
    """
    path = Path(path)
    with _opened(path, max_pixels) as image:
        if image.mode not in ("P", "L", "1", "I", "I;16"):
            raise DataError(f"{path} is a {image.mode} picture; a mask is one channel of label numbers")
        values = np.array(image)
        if image.getexif().get(_ORIENTATION, 1) != 1:
            raise DataError(f"{path} says that it has to be turned (EXIF); save it upright, without that")
    if values.size and (values.max() > 255 or values.min() < 0):
        raise DataError(f"{path} holds label {int(values.max())}; labels are 0 to 255")
    return values.astype(np.uint8)


def read_palette(path: str | Path) -> NDArray[np.uint8] | None:
    """The colours of an indexed picture, (n, 3); None if it is not indexed.

    Raises:
        DataError: The file is no picture.
    """
    with _opened(Path(path), MAX_PIXELS) as image:
        found = image.getpalette("RGB") if image.mode == "P" else None
        return None if found is None else np.asarray(found, np.uint8).reshape(-1, 3)


def rgb_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """RGB pixels of a reader, (H, W, 3) uint8, as networks take them: (3, H, W), float32 in [0, 1]."""
    return unit(torch.from_numpy(pixels).permute(2, 0, 1)).contiguous()

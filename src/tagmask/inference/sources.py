"""What people hand to a model in Python, as pictures: paths, arrays, tensors, Pillow images, bytes, files."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tagmask.data.levels import Reading
from tagmask.data.readers.images import read_picture
from tagmask.data.readers.pixels import PixelInfo, full_range
from tagmask.data.readers.stack import AnyPicture, BandPicture, as_picture
from tagmask.errors import DataError
from tagmask.inference.pictures import Broken, each_picture
from tagmask.inference.reading import read_by

__all__ = ["Source", "each_source", "read_source"]

Content = bytes | bytearray | memoryview | IO[bytes]
Source = str | PathLike[str] | AnyPicture | NDArray[Any] | torch.Tensor | Content
"""One image, in any of the forms that `read_source` takes."""


def read_source(given: Source, reading: Reading | None = None) -> tuple[AnyPicture, Path | None]:
    """One image and its path, if it has one.

    Args:
        given: A path ("~" is the home folder), a Pillow image, RGB pixels (H, W, 3) uint8, a tensor (3, H, W)
            of grey levels (uint8) or in [0, 1] (floating point), the bytes of a picture file, or a file
            opened for reading bytes. With a reading also numbers of any type, (H, W) or (H, W, C).
        reading: How numbers become levels, as the model remembers it; None for 8-bit pictures.

    Returns:
        The picture, mode RGB or levels of more bands, upright, and the path.

    Raises:
        DataError: It is none of these, or cannot be read.
    """
    if isinstance(given, str | PathLike):
        path = Path(given).expanduser()
        if path.is_dir():
            raise DataError(f"{path} is a folder; model.predict_iter('{path}') goes over its pictures")
        return read_by(reading, path), path
    if isinstance(given, BandPicture):
        return given, None
    if isinstance(given, Image.Image):
        return _from_pillow(given, reading), None
    if isinstance(given, torch.Tensor):
        return as_picture(_from_tensor(given, 3 if reading is None else reading.channels)), None
    if isinstance(given, np.ndarray):
        return as_picture(_from_array(given, reading)), None
    if isinstance(given, bytes | bytearray | memoryview):
        return read_by(reading, "the given bytes", content=bytes(given)), None
    if hasattr(given, "read"):
        content = given.read()
        if not isinstance(content, bytes):
            raise DataError("the given file gives text; open it for bytes: open(path, 'rb')")
        name = getattr(given, "name", None)
        place = Path(name) if isinstance(name, str) else None
        return read_by(reading, place or "the given file", content=content), place
    raise DataError(
        f"an image is a path, a Pillow image, RGB pixels (H, W, 3) uint8, a tensor (3, H, W), bytes or an "
        f"open file, got {type(given).__name__}"
    )


def each_source(
    given: Source | Iterable[Source], reading: Reading | None = None
) -> Iterator[tuple[str, AnyPicture | None, Path | None, str | None]]:
    """Pictures of a folder, an archive, a film, a pattern, or of anything that gives one after the other.

    Args:
        given: See `read_source`.
        reading: See `read_source`.

    Yields:
        (what messages call it, picture or None, path if it is a file, why there is no picture).
    """
    if isinstance(given, str | PathLike):
        for found in each_picture([str(Path(given).expanduser())], reading=reading):
            if isinstance(found, Broken):
                yield found.source, None, None, found.reason
                continue
            try:
                yield found.source, found.read(), Path(found.source), None
            except DataError as error:
                yield found.source, None, None, str(error)
        return
    single = isinstance(given, Image.Image | np.ndarray | torch.Tensor | bytes | bytearray | memoryview)
    anything: Any = given
    each: Iterable[Any] = [given] if single or hasattr(given, "read") else anything
    for number, one in enumerate(each):
        name = str(one) if isinstance(one, str | PathLike) else f"image {number}"
        try:
            picture, path = read_source(one, reading)
        except DataError as error:
            yield name, None, None, str(error)
        else:
            yield name, picture, path, None


def _from_pillow(image: Image.Image, reading: Reading | None) -> AnyPicture:
    if reading is not None and (image.mode in ("I", "F") or ";16" in image.mode):
        return as_picture(_from_array(np.array(image), reading))
    if image.mode in ("I", "F") or ";16" in image.mode:
        raise DataError(
            f"the Pillow image has more than 8 bits per channel ({image.mode}); make it 8-bit, choosing "
            "which values become black and white"
        )
    if image.mode == "RGB" and not image.getexif() and not image.has_transparency_data:
        return image
    # The one way of making RGB of a picture, with its turning and transparency, is the reader's.
    buffer = io.BytesIO()
    exif = image.getexif()
    plain = image if image.mode in ("RGB", "RGBA", "L", "LA", "P", "1") else image.convert("RGB")
    plain.save(buffer, "PNG", compress_level=0, exif=exif)
    return read_picture("the Pillow image", content=buffer.getvalue())


def _from_tensor(given: torch.Tensor, bands: int) -> NDArray[np.uint8]:
    values = given.detach()[0] if given.ndim == 4 and len(given) == 1 else given.detach()
    if values.ndim != 3 or values.shape[0] != bands:
        kind = "RGB image" if bands == 3 else "image"
        raise DataError(f"a tensor is one {kind} ({bands}, H, W), got {tuple(given.shape)}")
    if values.is_floating_point():
        low, high = (float(v) for v in torch.aminmax(values)) if values.numel() else (0.0, 0.0)
        if not (low >= 0 and high <= 1):
            raise DataError(
                f"a floating point tensor holds values in [0, 1], not normalised ones; got {low:.3g} to "
                f"{high:.3g}"
            )
        values = (values * 255).round().to(torch.uint8)
    levels: NDArray[np.uint8] = np.ascontiguousarray(values.permute(1, 2, 0).cpu().numpy())
    return levels if bands != 3 else _from_array(levels, None)


def _from_array(given: NDArray[Any], reading: Reading | None) -> NDArray[np.uint8]:
    if reading is not None and given.ndim in (2, 3) and given.size:
        planes = np.atleast_3d(given).transpose(2, 0, 1).astype(np.float32)
        info = PixelInfo(full_range(given.dtype), len(planes), len(planes) == 3)
        return reading.levels(planes, info, "the given array")
    if given.ndim != 3 or given.shape[2] != 3 or given.dtype != np.uint8 or not given.size:
        raise DataError(f"an image is RGB (H, W, 3) uint8, got {given.shape} {given.dtype}")
    return np.ascontiguousarray(given)

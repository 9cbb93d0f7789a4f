"""One picture as a model wants it, from a file or from the bytes of one."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from tagmask.data.levels import Reading
from tagmask.data.readers import dicom, nifti, slide
from tagmask.data.readers.images import MAX_PIXELS, read_picture
from tagmask.data.readers.pixels import file_kind
from tagmask.data.readers.stack import AnyPicture, as_picture
from tagmask.errors import DataError

__all__ = ["one_of_each_series", "read_by", "whole_kind"]


def read_by(
    reading: Reading | None, path: str | Path, max_pixels: int = MAX_PIXELS, content: bytes | None = None
) -> AnyPicture:
    """A picture as a model's reading makes it; RGB without one.

    Args:
        reading: How files become levels.
        path: The file, or how messages shall call `content`.
        max_pixels: Larger declared sizes are refused.
        content: The file's bytes, if it is not on disk.

    Raises:
        DataError: It cannot be read.
    """
    if reading is None:
        return read_picture(path, max_pixels, content=content)
    if content is None:
        return as_picture(reading.picture(Path(path), max_pixels=max_pixels))
    # Decoders of maps and volumes want a file; only its owner may read this one.
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"picture{Path(path).suffix}"
        copy.write_bytes(content)
        try:
            return as_picture(reading.picture(copy, max_pixels=max_pixels))
        except DataError as error:
            raise DataError(str(error).replace(str(copy), str(path))) from None


def one_of_each_series(names: Sequence[str]) -> Iterator[str]:
    """Names of files; of the DICOM files in a folder, which make a series, only the first."""
    seen: set[str] = set()
    for name in names:
        if PurePosixPath(name).suffix.lower() in dicom.ENDINGS:
            folder = str(PurePosixPath(name).parent)
            if folder in seen:
                continue
            seen.add(folder)
        yield name


def whole_kind(path: Path) -> str:
    """Which kind of file a path is that is predicted in one go; "" for a picture.

    "scene" is on a map, "volume" is a NIfTI file, "series" are DICOM files, "slide" is a
    whole-slide scan.

    Without rasterio a GeoTIFF of 8 bits is a picture like any other.
    """
    if path.name.lower().endswith(nifti.ENDINGS):
        return "volume"
    if path.suffix.lower() in dicom.ENDINGS:
        return "series"
    if path.suffix.lower() in slide.ENDINGS:
        return "slide"
    if path.suffix.lower() not in (".tif", ".tiff") or importlib.util.find_spec("rasterio") is None:
        return ""
    try:
        return {"geotiff": "scene", "slide": "slide"}.get(file_kind(path), "")
    except DataError:
        return ""  # whoever reads it says what is wrong

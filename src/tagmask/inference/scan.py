"""Whole-slide scans: predicted where they show tissue, written as a pyramid and as outlines for QuPath."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tagmask.data import ClassTable
from tagmask.data.levels import PHOTOGRAPHS, Reading
from tagmask.data.readers import geotiff, slide
from tagmask.data.readers.pixels import PixelInfo, need
from tagmask.data.readers.stack import AnyPicture, as_picture
from tagmask.inference.scene import Parts
from tagmask.store.files import atomic_write

__all__ = ["Slide", "open_slide", "write_annotations"]


@dataclass(frozen=True)
class _Grid:
    """A grid that is nowhere on a map."""

    height: int
    width: int
    transform: Any
    resolution: Mapping[str, str]
    crs: None = None
    gcps: tuple[tuple[()], None] = ((), None)


class Slide(Parts):
    """A scan at its full resolution.

    Args:
        path: The file.
        file: What `tagmask.data.readers.slide.opened` gives; stays open.
        reading: How numbers become levels.

    Raises:
        DataError: It cannot be read.
    """

    pyramid = True

    def __init__(self, path: Path, file: Any, reading: Reading) -> None:
        self.path, self.file, self.reading = path, file, reading
        self.width, self.height = file.dimensions
        nowhere = need("rasterio", path).Affine.identity()
        self.grid = _Grid(self.height, self.width, nowhere, _resolution(file))
        self._tissue = set(slide.tiles(path))

    def crop(self, box: tuple[int, int, int, int]) -> AnyPicture:  # type: ignore[override]
        """The part (left, top, right, bottom)."""
        left, top, right, bottom = box
        return self._levels_of(slide.region(self.file, left, top, right - left, bottom - top))

    def resize(  # type: ignore[override]
        self, size: tuple[int, int], resample: Image.Resampling, reducing_gap: float | None = None
    ) -> AnyPicture:
        """The whole at (width, height)."""
        return self._levels_of(slide.region(self.file, 0, 0, self.width, self.height, size))

    def _levels_of(self, rgb: NDArray[np.uint8]) -> AnyPicture:
        planes, info = rgb.transpose(2, 0, 1).astype(np.float32), PixelInfo((0.0, 255.0), 3, colour=True)
        return as_picture(self.reading.levels(planes, info, str(self.path)))

    def is_wanted(self, top: int, left: int, height: int, width: int) -> bool:
        """Whether any tile that a part touches shows tissue."""
        rows = range(top // slide.TILE, (top + height - 1) // slide.TILE + 1)
        columns = range(left // slide.TILE, (left + width - 1) // slide.TILE + 1)
        return any((row, column) in self._tissue for row in rows for column in columns)


def _resolution(file: Any) -> dict[str, str]:
    """Pixels a centimetre, as TIFF files say it; empty if the scan says nothing."""
    microns = [file.properties.get(f"openslide.mpp-{axis}") for axis in "xy"]
    if None in microns:
        return {}
    across, down = (repr(10_000 / float(value)) for value in microns)
    return {
        "TIFFTAG_XRESOLUTION": across,
        "TIFFTAG_YRESOLUTION": down,
        "TIFFTAG_RESOLUTIONUNIT": "3 (pixels/cm)",
    }


@contextmanager
def open_slide(path: Path, reading: Reading | None) -> Iterator[Slide]:
    """A scan as a model reads it.

    Raises:
        DataError: It cannot be read, or rasterio is missing, which writes the mask.
    """
    with slide.opened(path) as file, warnings.catch_warnings():
        # Of rasterio: that a scan has no place on a map is no news.
        warnings.filterwarnings("ignore", message=".*not georeferenced|.*geotransform.*")
        yield Slide(path, file, reading or PHOTOGRAPHS)


def write_annotations(mask: Path, classes: ClassTable, path: Path) -> int:
    """Write the outlines of a mask in pixels of its full resolution, as QuPath reads them.

    Args:
        mask: A TIFF of labels.
        classes: What the labels mean.
        path: Ends in ``.geojson``.

    Returns:
        How many outlines there are.

    Raises:
        DataError: A file cannot be read or written.
    """
    features = need("rasterio.features", mask)
    count = 0
    with (
        geotiff.opened(mask) as file,
        atomic_write(path) as target,
        target.open("w", encoding="utf-8") as out,
    ):
        out.write('{"type": "FeatureCollection", "features": [\n')
        for shape, value in features.shapes(need("rasterio", mask).band(file, 1)):
            label = int(value)
            if not 0 < label <= classes.num_classes:
                continue
            kind = {"name": classes.names[label - 1], "color": classes.palette[label].tolist()}
            feature = {
                "type": "Feature",
                "geometry": shape,
                "properties": {"objectType": "annotation", "classification": kind},
            }
            out.write((",\n" if count else "") + json.dumps(feature))
            count += 1
        out.write("\n]}\n")
    return count

"""Scenes of a map and scans: read by windows, predicted tile by tile, written in the same grid."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tagmask.data import ClassTable
from tagmask.data.levels import PHOTOGRAPHS, Reading
from tagmask.data.readers import geotiff
from tagmask.data.readers.pixels import need
from tagmask.data.readers.stack import AnyPicture, BandPicture, as_picture
from tagmask.inference.predictor import Predictor, winner
from tagmask.inference.summary import Counts
from tagmask.store.files import atomic_write
from tagmask.types import IGNORE

__all__ = ["Parts", "Scene", "new_raster", "open_scene", "predict_scene", "write_polygons"]

_BLOCK = 256
_ROWS = 20_000


class Parts(BandPicture):
    """A picture of any size that is read where it is looked at; cut and resized as a picture is.

    Attributes:
        grid: What has its height, width, crs, transform and gcps, see `new_raster`.
        pyramid: Whether its masks get smaller copies inside.
        height: H.
        width: W.
    """

    grid: Any
    pyramid: bool = False

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.uint8]:
        return np.array(self.crop((0, 0, self.width, self.height)), dtype=dtype)

    def no_data(self, top: int, left: int, height: int, width: int) -> NDArray[np.bool_] | None:
        """Pixels of a part without any data, (height, width); None where that cannot be."""
        return None

    def is_wanted(self, top: int, left: int, height: int, width: int) -> bool:
        """Whether a part is worth a look; all of it is background if not."""
        return True


class Scene(Parts):
    """A raster that is read where it is looked at; cut and resized as a picture is.

    Args:
        path: The file, for messages.
        file: What `tagmask.data.readers.geotiff.opened` gives; stays open.
        reading: How numbers become levels.

    Raises:
        DataError: It holds numbers or a coordinate system that cannot be used.
    """

    def __init__(self, path: Path, file: Any, reading: Reading) -> None:
        self.path, self.file, self.grid, self.reading = path, file, file, reading
        self.info = geotiff.describe(path, file)
        self.height, self.width = file.height, file.width

    def crop(self, box: tuple[int, int, int, int]) -> AnyPicture:  # type: ignore[override]
        """The part (left, top, right, bottom)."""
        left, top, right, bottom = box
        return self._levels_of(geotiff.window_of(self.file, top, left, bottom - top, right - left))

    def resize(  # type: ignore[override]
        self, size: tuple[int, int], resample: Image.Resampling, reducing_gap: float | None = None
    ) -> AnyPicture:
        """The whole at (width, height), from the file's overviews if it has any."""
        whole = self.height, self.width
        return self._levels_of(geotiff.window_of(self.file, 0, 0, *whole, size=(size[1], size[0])))

    def _levels_of(self, pixels: NDArray[np.float32]) -> AnyPicture:
        return as_picture(self.reading.levels(pixels, self.info, str(self.path)))

    def no_data(self, top: int, left: int, height: int, width: int) -> NDArray[np.bool_] | None:
        """Pixels of a part without any data, (height, width); None where that cannot be."""
        if self.info.full is not None and geotiff.is_all_valid(self.file):
            return None
        pixels = geotiff.window_of(self.file, top, left, height, width)
        return np.asarray(~np.isfinite(pixels).any(0))


@contextmanager
def open_scene(path: Path, reading: Reading | None) -> Iterator[Scene]:
    """A scene as a model reads it; of 8-bit pictures without a reading.

    Raises:
        DataError: It cannot be read.
    """
    with geotiff.opened(path) as file:
        yield Scene(path, file, reading or PHOTOGRAPHS)


def predict_scene(
    predictor: Predictor,
    scene: Parts,
    tags: Tensor | None,
    mask: Path,
    confidence: Path | None,
    palette: NDArray[np.uint8],
) -> Counts:
    """Write the mask of a scene or scan as a TIFF with its own grid, 255 where there is no data.

    Args:
        predictor: Makes the labels.
        scene: What to look at.
        tags: Classes that may appear, 0 or 1, (1, K); any if None.
        mask: The file to write.
        confidence: The file of the labels' probabilities, if it is wanted.
        palette: (256, 3) RGB colours of the labels.

    Returns:
        How often each label and each confidence occurs.

    Raises:
        DataError: The scene cannot be read, or the files cannot be written.
    """
    counts = Counts(scene.height, scene.width)
    with ExitStack() as stack:
        files = [stack.enter_context(new_raster(mask, scene.grid, IGNORE, palette, scene.pyramid))]
        if confidence is not None:
            files.append(stack.enter_context(new_raster(confidence, scene.grid, pyramid=scene.pyramid)))

        def emit(top: int, left: int, values: Tensor) -> None:
            label, certain = winner(values)
            height, width = label.shape
            empty = scene.no_data(top, left, height, width)
            if empty is not None:
                label[empty], certain[empty] = IGNORE, 0
            counts.add(label, certain)
            for file, plane in zip(files, (label, certain), strict=False):
                file.write(plane, 1, window=((top, top + height), (left, left + width)))

        wanted = scene.is_wanted if scene.pyramid else None
        counts.tiles = predictor.by_tiles(scene, tags, emit, wanted)
    return counts


@contextmanager
def new_raster(
    path: Path,
    like: Any,
    nodata: int | None = None,
    palette: NDArray[np.uint8] | None = None,
    pyramid: bool = False,
) -> Iterator[Any]:
    """A GeoTIFF of one band of bytes with the grid of another, to be written by windows.

    Args:
        path: Appears when it is complete.
        like: What `tagmask.data.readers.geotiff.opened` gave; or anything with these attributes, and perhaps
            `resolution`, tags of the file.
        nodata: The value of pixels without data, if there is one.
        palette: (256, 3) RGB colours of the values.
        pyramid: Also keep smaller copies in it, each half as large as the one before.

    Raises:
        DataError: It cannot be written.
    """
    rasterio, place = need("rasterio", path), {"crs": like.crs, "transform": like.transform}
    points, points_crs = like.gcps
    if points:
        place = {"crs": points_crs, "gcps": points}
    with (
        atomic_write(path) as target,
        rasterio.Env(GDAL_CACHEMAX=geotiff.CACHE),
        rasterio.open(
            target, "w", driver="GTiff", height=like.height, width=like.width, count=1, dtype="uint8",
            tiled=True, blockxsize=_BLOCK, blockysize=_BLOCK, compress="deflate", nodata=nodata,
            bigtiff="if_safer", **place,
        ) as file,
    ):  # fmt: skip
        file.update_tags(**getattr(like, "resolution", {}))
        if palette is not None:
            file.write_colormap(1, {k: tuple(colour) for k, colour in enumerate(palette.tolist())})
        yield file
        if pyramid:
            steps = (max(like.height, like.width) // _BLOCK).bit_length()
            file.build_overviews([2**step for step in range(1, steps)], rasterio.enums.Resampling.nearest)


def write_polygons(mask: Path, classes: ClassTable, geojson: Path, package: Path) -> int:
    """Write the outlines of a mask in map units, as GeoJSON and as a GeoPackage.

    Args:
        mask: A GeoTIFF of labels.
        classes: What the labels mean.
        geojson: Ends in ``.geojson``; names its coordinate system, as QGIS and GDAL understand it.
        package: Ends in ``.gpkg``.

    Returns:
        How many outlines there are.

    Raises:
        DataError: A file cannot be read or written.
    """
    features, count = need("rasterio.features", mask), 0
    with (
        geotiff.opened(mask) as file,
        atomic_write(geojson) as lines,
        lines.open("w", encoding="utf-8") as out,
        atomic_write(package) as target,
    ):
        target.unlink()  # the library begins a database of its own
        table = _Table(target, classes, file.crs)
        out.write(json.dumps(_head(file.crs))[:-1] + ', "features": [\n')
        band = need("rasterio", mask).band(file, 1)
        for shape, value in features.shapes(band, transform=file.transform):
            label = int(value)
            if not 0 < label <= classes.num_classes:
                continue
            properties = {"class": classes.names[label - 1], "label": label}
            feature = {"type": "Feature", "properties": properties, "geometry": shape}
            out.write((",\n" if count else "") + json.dumps(feature))
            table.add(shape, label)
            count += 1
        out.write("\n]}\n")
        table.flush()
    return count


def _head(crs: Any) -> dict[str, Any]:
    head: dict[str, Any] = {"type": "FeatureCollection"}
    code = None if crs is None else crs.to_epsg()
    if code is not None:
        head["crs"] = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{code}"}}
    return head


class _Table:
    """A GeoPackage of outlines that is written part by part: a large scene has millions."""

    def __init__(self, path: Path, classes: ClassTable, crs: Any) -> None:
        self._writer = need("pyogrio.raw", path)
        self._path, self._names = path, classes.names
        self._crs = None if crs is None else crs.to_wkt()
        self._rows: list[tuple[bytes, int]] = []
        self._begun = False

    def add(self, shape: Mapping[str, Any], label: int) -> None:
        """One outline, a polygon of GeoJSON."""
        self._rows.append((_wkb(shape), label))
        if len(self._rows) == _ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what is left; an empty table, if there was nothing at all."""
        if self._begun and not self._rows:
            return
        geometry = np.array([shape for shape, _ in self._rows], dtype=object)
        labels = np.array([label for _, label in self._rows], dtype=np.int64)
        names = np.array([self._names[label - 1] for label in labels], dtype=object)
        self._writer.write(
            str(self._path), geometry, [names, labels], ["class", "label"], layer="mask", driver="GPKG",
            geometry_type="Polygon", crs=self._crs, append=self._begun,
        )  # fmt: skip
        self._rows, self._begun = [], True


def _wkb(shape: Mapping[str, Any]) -> bytes:
    """A polygon of GeoJSON as well-known binary."""
    rings = shape["coordinates"]
    parts = [b"\x01", np.array([3, len(rings)], "<u4").tobytes()]
    for ring in rings:
        parts += [np.array([len(ring)], "<u4").tobytes(), np.asarray(ring, "<f8").tobytes()]
    return b"".join(parts)

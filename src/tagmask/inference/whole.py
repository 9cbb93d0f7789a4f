"""Files that are predicted in one go and written as what they are: scenes of a map, volumes and scans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tagmask.data.levels import PHOTOGRAPHS
from tagmask.data.readers import dicom, geotiff, nifti
from tagmask.data.readers.regular import irregular
from tagmask.data.readers.stack import as_picture
from tagmask.errors import UserError, one_line
from tagmask.inference.pictures import Picture
from tagmask.inference.scan import open_slide, write_annotations
from tagmask.inference.scene import Parts, open_scene, predict_scene, write_polygons
from tagmask.inference.summary import Counts, files_of, row_of_counts
from tagmask.inference.writer import Work, allowed, known_tags, outputs, overlay
from tagmask.store.files import NameRefused, atomic_write, file_for
from tagmask.types import IGNORE

__all__ = ["take_whole"]

_OVERLAY_SIDE = 2048


def take_whole(work: Work, picture: Picture) -> None:
    """Predict a file of a special kind and write all that belongs to it; what fails is told."""
    try:
        _KINDS[picture.kind](work, picture)
    except (UserError, NameRefused) as error:
        work.failed(picture.source, str(error))
    except (RuntimeError, MemoryError, ValueError, OSError) as error:
        work.failed(picture.source, f"cannot be predicted ({one_line(error)})")


def _tags(work: Work, picture: Picture) -> Tensor | None:
    return None if work.tags is None else allowed(work, picture)[None].to(work.predictor.compute.device)


def _scene(work: Work, picture: Picture) -> None:
    with open_scene(Path(picture.source), work.reading) as scene:
        ends = (".geojson", ".gpkg")
        _parts(work, picture, scene, lambda mask, *files: write_polygons(mask, work.classes, *files), ends)


def _slide(work: Work, picture: Picture) -> None:
    with open_slide(Path(picture.source), work.reading) as scan:
        ends = (".geojson",)
        _parts(work, picture, scan, lambda mask, *files: write_annotations(mask, work.classes, *files), ends)


def _parts(
    work: Work, picture: Picture, scene: Parts, outline: Callable[..., int], ends: Sequence[str]
) -> None:
    config = work.config
    mask = file_for(work.out / "masks", picture.name, ".tif")
    confidence = file_for(work.out / "confidence", picture.name, ".tif") if config.confidence else None
    tags, palette = _tags(work, picture), work.classes.palette
    found = predict_scene(work.predictor, scene, tags, mask, confidence, palette)
    if config.polygons:
        outline(mask, *(file_for(work.out / "polygons", picture.name, end) for end in ends))
    if config.overlays:
        factor = min(1.0, _OVERLAY_SIDE / max(scene.size))
        size = max(1, round(scene.width * factor)), max(1, round(scene.height * factor))
        small = scene.resize(size, Image.Resampling.BILINEAR)
        with geotiff.opened(mask) as labels, atomic_write(outputs(work, picture)[1]) as target:
            shown = labels.read(1, out_shape=(size[1], size[0])).astype(np.uint8)
            overlay(small, shown).save(target, format="JPEG", quality=88)
    row = row_of_counts(picture, found, work.classes, known_tags(work, picture))
    work.done(row | files_of(work.out, outputs(work, picture)))


def _volume(work: Work, picture: Picture) -> None:
    path = Path(picture.source)
    slices = [(path, part) for part in range(nifti.count(path))]
    labels, certain = _stack(work, picture, slices)
    for folder, planes, wanted in (("masks", labels, True), ("confidence", certain, work.config.confidence)):
        if wanted:
            with atomic_write(file_for(work.out / folder, picture.name, ".nii.gz")) as target:
                # The library goes by the whole ending, of which the target has the last part.
                named = target.with_name(f"{target.name}.nii.gz")
                nifti.write_labels(named, planes, path)
                named.replace(target)
    _finish_stack(work, picture, slices, labels, certain)


def _series(work: Work, picture: Picture) -> None:
    path = Path(picture.source)
    beside = [p for p in path.parent.iterdir() if p.suffix.lower() in dicom.ENDINGS and irregular(p) is None]
    frames = dicom.count(path)
    files = [path] if frames > 1 else dicom.series(sorted(beside))
    slices = [(path, part) for part in range(frames)] if frames > 1 else [(file, None) for file in files]
    labels, certain = _stack(work, picture, slices)
    with atomic_write(file_for(work.out / "masks", picture.name, ".dcm")) as target:
        dicom.write_segments(target, labels, files, work.classes.names)
    _finish_stack(work, picture, slices, labels, certain)


Slices = Sequence[tuple[Path, int | None]]
Planes = NDArray[np.uint8]


def _stack(work: Work, picture: Picture, slices: Slices) -> tuple[Planes, Planes]:
    """Labels and confidence of all slices, (n, H, W) uint8 each."""
    reading, tags, size = work.reading or PHOTOGRAPHS, _tags(work, picture), work.config.batch_size
    found = []
    for first in range(0, len(slices), size):
        part = slices[first : first + size]
        seen = [as_picture(reading.picture(*one, max_pixels=work.config.max_pixels)) for one in part]
        rows = None if tags is None else tags.expand(len(seen), -1)
        found += work.predictor.batch(seen, rows)
    return np.stack([one.mask for one in found]), np.stack([one.confidence for one in found])


def _finish_stack(work: Work, picture: Picture, slices: Slices, labels: Planes, certain: Planes) -> None:
    """An overlay of the slice that shows most, and the figures of the whole."""
    if work.config.overlays:
        place = int(((labels > 0) & (labels != IGNORE)).sum((1, 2)).argmax())
        seen = as_picture((work.reading or PHOTOGRAPHS).picture(*slices[place]))
        with atomic_write(file_for(work.out / "overlays", picture.name, ".jpg")) as target:
            overlay(seen, labels[place]).save(target, format="JPEG", quality=88)
    found = Counts(labels.shape[0] * labels.shape[1], labels.shape[2], len(slices))
    found.add(labels.reshape(-1, labels.shape[2]), certain.reshape(-1, labels.shape[2]))
    row = row_of_counts(picture, found, work.classes, known_tags(work, picture))
    work.done(row | files_of(work.out, outputs(work, picture)))


_KINDS: dict[str, Callable[[Work, Picture], None]] = {
    "scene": _scene,
    "volume": _volume,
    "series": _series,
    "slide": _slide,
}

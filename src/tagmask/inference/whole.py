"""Files that are predicted in one go and written as what they are: scenes of a map, volumes, scans."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from tagmask.data.readers import geotiff
from tagmask.errors import UserError, one_line
from tagmask.inference.pictures import Picture
from tagmask.inference.scene import open_scene, predict_scene, write_polygons
from tagmask.inference.summary import row_of_counts
from tagmask.inference.writer import Work, allowed, known_tags, outputs, overlay
from tagmask.store.files import NameRefused, atomic_write, file_for

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
    config = work.config
    mask = file_for(work.out / "masks", picture.name, ".tif")
    confidence = file_for(work.out / "confidence", picture.name, ".tif") if config.confidence else None
    with open_scene(Path(picture.source), work.reading) as scene:
        tags, palette = _tags(work, picture), work.classes.palette
        found = predict_scene(work.predictor, scene, tags, mask, confidence, palette)
        if config.polygons:
            files = [file_for(work.out / "polygons", picture.name, end) for end in (".geojson", ".gpkg")]
            write_polygons(mask, work.classes, *files)
        if config.overlays:
            factor = min(1.0, _OVERLAY_SIDE / max(scene.size))
            size = max(1, round(scene.width * factor)), max(1, round(scene.height * factor))
            small = scene.resize(size, Image.Resampling.BILINEAR)
            with geotiff.opened(mask) as labels, atomic_write(outputs(work, picture)[1]) as target:
                shown = labels.read(1, out_shape=(size[1], size[0])).astype(np.uint8)
                overlay(small, shown).save(target, format="JPEG", quality=88)
    work.done(row_of_counts(picture, found, work.classes, known_tags(work, picture)))


_KINDS: dict[str, Callable[[Work, Picture], None]] = {"scene": _scene}

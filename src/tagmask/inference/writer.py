"""From decoded pictures to files: batches of one size, tiles of large ones, what is broken named."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from torch import Tensor

from tagmask.config import Config, Scales
from tagmask.data import ClassTable
from tagmask.data.datasets.tagfile import read_tag_file, split_rows
from tagmask.data.levels import Reading
from tagmask.data.readers.stack import AnyPicture, people_picture
from tagmask.engine.compute import Compute
from tagmask.errors import DataError, UserError, nearest
from tagmask.inference.crf import crf_preset
from tagmask.inference.pictures import Picture
from tagmask.inference.predictor import Prediction, Predictor, Use, remembered_use
from tagmask.inference.shard import Shard
from tagmask.inference.summary import files_of, row_of
from tagmask.models.trained import Trained
from tagmask.report.panels import label_picture
from tagmask.store.files import NameRefused, PerhapsLater, atomic_write, digest, file_for
from tagmask.store.labels import mask_bytes

__all__ = [
    "PredictConfig",
    "Work",
    "allowed",
    "begin",
    "finish_all",
    "known_tags",
    "outputs",
    "overlay",
    "predictor_for",
    "take",
    "work_key",
]

_OVERLAY_SIDE = 2048
MASK_ENDINGS = {"scene": ".tif", "volume": ".nii.gz", "series": ".dcm", "slide": ".tif"}
"""Ending of the mask of what is predicted in one go."""


class PredictConfig(Config):
    """What is made of every picture, and how."""

    scales: Scales | None = None
    """Resize factors of the views; those the model was made with if not given."""
    flip: Literal["sum", "mean", "none"] | None = None
    """How a view merges with its mirror image; as the model was made if not given."""
    crf: str | None = None
    """Clean the masks by a dense CRF with these parameters: more, afa, ..."""
    tags: Path | None = None
    """Tag file (columns image and tags): only these classes may appear in an image's mask."""
    max_side: int | None = Field(default=None, ge=32)
    """Shrink larger pictures to this longer side and enlarge their masks. Worth it for photographs that are
    much larger than the training images; without it they are cut into tiles at full size."""
    tile: int = Field(default=1024, ge=64)
    """Pictures with a longer side are predicted in tiles of this side."""
    overlap: int = Field(default=128, ge=0)
    """Pixels over which neighbouring tiles fade into each other."""
    batch_size: int = Field(default=4, ge=1)
    """Pictures of one size, or tiles, that go through the network together."""
    max_pixels: int = Field(default=500_000_000, ge=1)
    """Pictures that declare more pixels are not decoded."""
    every: int = Field(default=1, ge=1)
    """Of films, every n-th frame."""
    overlays: bool = True
    """Also write every mask in colour over its picture."""
    confidence: bool = True
    """Also write the probability of every pixel's label, as 8-bit grey."""
    polygons: bool = True
    """Of pictures with a place on a map, also write the outlines in map units; of scans, in pixels."""


Known = Mapping[str, tuple[int, ...]]
"""Name of an image, with and without ending, to its 0-based classes."""


@dataclass
class Work:
    """A prediction on its way.

    Attributes:
        config: How.
        predictor: Makes labels and confidence.
        classes: What the labels mean.
        out: The folder.
        tags: Classes of tagged images; None if any class may appear anywhere.
        done: Told the figures of every finished picture, when all its files are there.
        failed: Told (source, reason) of everything that could not be done.
        reading: How files become levels; None for 8-bit pictures.
        shard: Takes the files instead of the folder.
    """

    config: PredictConfig
    predictor: Predictor
    classes: ClassTable
    out: Path
    tags: Known | None
    done: Callable[[dict[str, Any]], None]
    failed: Callable[[str, str], None]
    reading: Reading | None = None
    shard: Shard | None = None
    waiting: dict[tuple[int, int], list[tuple[Picture, AnyPicture]]] = field(default_factory=dict)


def begin(
    config: PredictConfig,
    trained: Trained,
    compute: Compute,
    out: Path,
    done: Callable[[dict[str, Any]], None],
    failed: Callable[[str, str], None],
) -> Work:
    """Prepare a prediction.

    Raises:
        UserError: Settings, tags or the model do not allow it.
    """
    known = None if config.tags is None else _read_tags(config.tags, trained.classes)
    predictor = predictor_for(config, trained, compute)
    return Work(config, predictor, trained.classes, out, known, done, failed, trained.reading)


def work_key(work: Work, trained: Trained) -> str:
    """Digest of everything that decides about a mask."""
    # Where a picture goes and in what company does not change its mask.
    harmless = {"batch_size", "max_pixels", "overlays", "confidence", "polygons"}
    matters = work.config.model_dump(mode="json", exclude=harmless)
    tags = None if work.tags is None else sorted(work.tags.items())
    precision = work.predictor.compute.precision
    return digest([matters, trained.checksum, list(trained.classes.names), precision, tags])


def predictor_for(config: PredictConfig, trained: Trained, compute: Compute) -> Predictor:
    """The predictor that some settings ask for, used as the model remembers in everything else.

    Raises:
        ConfigError: The CRF is unknown, the overlap too large, or the model makes neither masks nor maps.
    """
    use = remembered_use(trained.meta)
    changed = {k: v for k, v in (("scales", config.scales), ("flip", config.flip)) if v is not None}
    return Predictor.of(
        trained,
        compute,
        Use(use.maps, use.views.model_copy(update=changed), use.background),
        crf=crf_preset(config.crf) if config.crf else None,
        tile=config.tile,
        overlap=config.overlap,
        max_side=config.max_side,
        batch_size=config.batch_size,
    )


def _read_tags(path: Path, classes: ClassTable) -> dict[str, tuple[int, ...]]:
    """Name of an image, with and without ending, to its classes."""
    known: dict[str, tuple[int, ...]] = {}
    rows = read_tag_file(path)
    for row, names in zip(rows, split_rows(rows, path, classes.names), strict=True):
        wrong = [name for name in names if name not in classes.names]
        if wrong:
            raise DataError(
                f"{path}, line {row.line}: the model knows no class '{wrong[0]}'. "
                f"{nearest(wrong[0], classes.names)}"
            )
        indices = tuple(sorted(classes.names.index(name) for name in names))
        known[row.image] = known[str(Path(row.image).with_suffix(""))] = indices
    return known


def outputs(work: Work, picture: Picture) -> list[Path]:
    """Files a picture becomes."""
    config, ending = work.config, MASK_ENDINGS.get(picture.kind, ".png")
    chosen = [("masks", ending, True), ("overlays", ".jpg", config.overlays)]
    # A segmentation of DICOM has no place for it.
    chosen.append(("confidence", ending, config.confidence and picture.kind != "series"))
    ends = {"scene": (".geojson", ".gpkg"), "slide": (".geojson",)}.get(picture.kind, ())
    chosen += [("polygons", end, config.polygons) for end in ends]
    return [file_for(work.out / folder, picture.name, end) for folder, end, wanted in chosen if wanted]


def finish_all(work: Work, check: Callable[[], None] = lambda: None) -> None:
    """Predict the pictures that wait for company."""
    for size in list(work.waiting):
        check()
        _finish(work, work.waiting.pop(size))


def take(work: Work, picture: Picture) -> None:
    """Decode a picture; predict it at once if it is large, else when its batch is full."""
    try:
        image = picture.read()
    except PerhapsLater:
        raise  # it is not the picture's fault
    except UserError as error:
        work.failed(picture.source, str(error))
        return
    except MemoryError:
        work.failed(picture.source, "is too large for this machine's memory")
        return
    limit = min(work.config.tile, work.config.max_side or work.config.tile)
    if max(image.size) > limit:
        _finish(work, [(picture, image)])
        return
    same = work.waiting.setdefault(image.size, [])
    same.append((picture, image))
    held = sum(len(pictures) for pictures in work.waiting.values())
    if len(same) == work.config.batch_size:
        _finish(work, work.waiting.pop(image.size))
    elif held >= 8 * work.config.batch_size:
        # Many sizes: the longest waiting go first, so that memory stays bounded.
        _finish(work, work.waiting.pop(next(iter(work.waiting))))


def _finish(work: Work, pictures: list[tuple[Picture, AnyPicture]]) -> None:
    try:
        results = _predicted(work, pictures)
    except (RuntimeError, MemoryError, ValueError) as error:
        if len(pictures) > 1:
            for one in pictures:
                _finish(work, [one])
        else:
            work.failed(pictures[0][0].source, f"cannot be predicted ({' '.join(str(error).split())[:200]})")
        return
    for (picture, image), found in zip(pictures, results, strict=True):
        try:
            _write(work, picture, image, found)
        except NameRefused as error:
            work.failed(picture.source, str(error))
        except DataError:
            raise
        except (OSError, ValueError) as error:
            work.failed(picture.source, f"cannot be written ({error})")


def _predicted(work: Work, pictures: list[tuple[Picture, AnyPicture]]) -> list[Prediction]:
    rows = [allowed(work, picture) for picture, _ in pictures]
    tags = None if work.tags is None else torch.stack(rows).to(work.predictor.compute.device)
    return work.predictor.batch([image for _, image in pictures], tags)


def known_tags(work: Work, picture: Picture) -> tuple[int, ...] | None:
    """Tagged classes of a picture, if somebody tagged it."""
    if work.tags is None:
        return None
    names = (picture.file, str(Path(picture.file).with_suffix("")), Path(picture.file).name, picture.name)
    return next((work.tags[name] for name in names if name in work.tags), None)


def allowed(work: Work, picture: Picture) -> Tensor:
    """Classes that may appear in a picture, 0 or 1, (K,); all of them if nobody tagged it."""
    known = known_tags(work, picture)
    if known is None:
        return torch.ones(work.classes.num_classes)
    shown = torch.zeros(work.classes.num_classes)
    shown[list(known)] = 1
    return shown


def _write(work: Work, picture: Picture, image: AnyPicture, found: Prediction) -> None:
    made = [("masks", ".png", mask_bytes(found.mask, work.classes.palette))]
    if work.config.confidence:
        made.append(("confidence", ".png", mask_bytes(found.confidence)))
    if work.config.overlays:
        buffer = io.BytesIO()
        overlay(image, found.mask).save(buffer, format="JPEG", quality=88)
        made.append(("overlays", ".jpg", buffer.getvalue()))
    # The row comes last: it says that everything else is there.
    known = known_tags(work, picture)
    row = row_of(picture, found.mask, found.confidence, work.classes, known, found.tiles)
    if work.shard is not None:
        paths = [work.shard.add(where, picture.name, ending, content) for where, ending, content in made]
        work.done(row | {"files": {path: work.shard.files[path] for path in paths}})
        return
    for folder, ending, content in made:
        with atomic_write(file_for(work.out / folder, picture.name, ending)) as target:
            target.write_bytes(content)
    work.done(row | files_of(work.out, outputs(work, picture)))


def overlay(picture: AnyPicture, mask: NDArray[np.uint8]) -> Image.Image:
    """A mask in colour over its picture, shrunk to a size for people."""
    image = people_picture(picture)
    if max(image.size) > _OVERLAY_SIDE:
        factor = _OVERLAY_SIDE / max(image.size)
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        mask = np.array(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    return Image.fromarray(label_picture(np.asarray(image), mask))

"""Images to predicted masks on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from tagmask import methods
from tagmask.data import TagDataset
from tagmask.data.parts import Part
from tagmask.engine.lanes import lanes_for
from tagmask.errors import ConfigError, DataError
from tagmask.inference.crf import CRFName, crf_preset
from tagmask.inference.given_views import GivenViews
from tagmask.inference.predictor import Predictor, Use, picture_of
from tagmask.models.trained import Trained
from tagmask.steps.base import Context, Step, data_checksum, each_image, plain
from tagmask.steps.models import Settings
from tagmask.store.files import file_for
from tagmask.store.labels import write_mask
from tagmask.types import Batch

__all__ = ["SEGMENT", "SegmentConfig", "segment"]


class SegmentConfig(GivenViews):
    """Which images, from which views."""

    split: Part = "auto"
    """Images to segment: train, val, both, or auto for val if there is one and all if not."""
    crf: CRFName | None = None
    """Clean the masks by a dense CRF with these parameters: more, afa, seg38, weaktr_voc, ..."""
    tags: Literal["none", "dataset"] = "none"
    """With "dataset", only tagged classes may appear in a mask."""
    limit: int | None = Field(default=None, ge=1)
    """Use only this many images, from the first on."""


@dataclass(frozen=True)
class _Plan:
    """What is known to be possible before the first mask is written."""

    config: SegmentConfig
    trained: Trained
    dataset: TagDataset


def _check(config: SegmentConfig, context: Context) -> None:
    _tagged(config, context.data.open(config.split))


def _needless(context: Context) -> str | None:
    settings = context.settings
    if settings.student is not None or methods.get(settings.method).segments:
        return None
    return f"{settings.method} does not segment"


def _reads(config: SegmentConfig, context: Context) -> dict[str, Any]:
    model = context.models.checksum(context.models.segmenter_name)
    return {"model": model, "data": data_checksum(context, config.split)}


def _prepare(config: SegmentConfig, context: Context) -> _Plan:
    trained, dataset = context.models.segmenter(), context.data.open(config.split)
    if not trained.method.segments:
        raise ConfigError(
            f"{trained.name} does not segment; train a segmenter on its labels, or leave out the step segment"
        )
    if config.limit is not None and config.limit < len(dataset):
        dataset = dataset.subset(range(config.limit))
    _tagged(config, dataset)
    if config.split == "auto" and context.data.find("auto") == "val":
        context.display.say(
            f"masks of the {len(dataset)} images of split {dataset.split} (segment.split=both: all)"
        )
    return _Plan(config, trained, dataset)


def _tagged(config: SegmentConfig, dataset: TagDataset) -> None:
    count = len(dataset) if config.limit is None else min(config.limit, len(dataset))
    untagged = next((i for i in range(count) if not dataset.has_tags(i)), None)
    if config.tags == "dataset" and untagged is not None:
        raise DataError(
            f"'{dataset.names[untagged]}' has no tags, and segment.tags is dataset; set it to none"
        )


def segment(plan: _Plan, context: Context) -> dict[str, Any]:
    """Write the mask of every image to ``masks/<name>.png``.

    Args:
        plan: What `SEGMENT.prepare` gave.
        context: The run; images whose mask is there and whole are left alone.

    Returns:
        Figures worth keeping: images, the part.

    Raises:
        Stopped: A stop signal came; finished images are kept.
        UserError: An image cannot be read.
    """
    config, dataset = plan.config, plan.dataset
    folder, palette = context.out / "masks", plan.trained.classes.palette
    crf = crf_preset(config.crf) if config.crf else None
    views = config.of(type(plan.trained.method))
    predictor = Predictor.of(plan.trained, context.runtime, Use(views=views), crf=crf)

    def work(index: int, batch: Batch) -> None:
        tags = batch.tags if config.tags == "dataset" else None
        mask = predictor.predict(picture_of(batch.images), tags).mask
        write_mask(file_for(folder, batch.names[0], ".png"), mask, palette)

    def outputs(name: str) -> list[Path]:
        return [file_for(folder, name, ".png")]

    lanes = lanes_for(context.runtime.device, plan.trained.method)
    each_image(context, dataset, "segment", outputs, work, lanes)
    return {"images": len(dataset), "split": dataset.split}


def _decides(config: SegmentConfig, settings: Settings) -> dict[str, Any]:
    return {**plain(config), "precision": settings.runtime.precision}


SEGMENT = Step(
    "segment",
    writes=("masks",),
    reads=_reads,
    prepare=_prepare,
    work=segment,
    check=_check,
    needless=_needless,
    decides=_decides,
    smaller="Lower segment.size or leave out the largest of segment.scales, or use --precision bf16",
    by_hand=True,
)
"""Predict masks for the images of a run."""

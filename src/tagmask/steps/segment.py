"""Images to predicted masks on disk."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from tagmask.data.parts import Part, open_part
from tagmask.errors import ConfigError, DataError
from tagmask.inference.crf import crf_preset, segment_by_crf
from tagmask.inference.views import SegmentationConfig, image_scores
from tagmask.models.trained import Trained
from tagmask.ops.labels import strongest
from tagmask.steps.base import Context, each_image
from tagmask.store.files import file_for
from tagmask.store.labels import write_mask
from tagmask.types import Batch

__all__ = ["SegmentConfig", "segment"]


class SegmentConfig(SegmentationConfig):
    """Which images, from which views."""

    split: Part = "auto"
    """Images to segment: train, val, or auto for val if there is one."""
    crf: str | None = None
    """Clean the masks by a dense CRF with these parameters: more, afa, seg38, weaktr_voc, ..."""
    tags: Literal["none", "dataset"] = "none"
    """With "dataset", only tagged classes may appear in a mask."""
    limit: int | None = Field(default=None, ge=1)
    """Only so many images, from the first."""


def segment(config: SegmentConfig, context: Context, trained: Trained) -> dict[str, Any]:
    """Write the mask of every image to ``masks/<name>.png``.

    Args:
        config: How.
        context: The run; images whose mask is there are left alone.
        trained: The method.

    Returns:
        Figures worth keeping: images, the part.

    Raises:
        Stopped: A stop signal came; finished images are kept.
        UserError: The images or settings do not allow it.
    """
    method, runtime = trained.method.to(context.runtime.device), context.runtime
    if not method.segments:
        raise ConfigError(
            f"{trained.name} does not segment; train a segmenter on its labels, or leave out the step segment"
        )
    dataset = open_part(context.data, config.split)
    if config.limit is not None and config.limit < len(dataset):
        dataset = dataset.subset(range(config.limit))
    folder, palette = context.folder / "masks", trained.classes.palette
    crf = crf_preset(config.crf) if config.crf else None

    def work(index: int, batch: Batch) -> None:
        by_tags = config.tags == "dataset"
        if by_tags and not dataset.has_tags(index):
            raise DataError(f"'{batch.names[0]}' has no tags, and segment.tags is dataset; set it to none")
        scores = image_scores(method, batch.images, runtime, config, batch.tags if by_tags else None)
        labels = strongest(scores)
        if crf is not None:
            labels = segment_by_crf(batch.images, scores, crf, config.probabilities)
        mask = labels[0].cpu().numpy().astype(np.uint8)
        write_mask(file_for(folder, batch.names[0], ".png"), mask, palette)

    each_image(context, dataset, "segment", lambda name: [file_for(folder, name, ".png")], work)
    return {"images": len(dataset), "split": dataset.split}

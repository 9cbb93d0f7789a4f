"""Training images of any size on whole patches, so that no pixel at their right and bottom is lost."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F

from tagmask.ops.resize import pad_to_multiple
from tagmask.types import IGNORE, MEAN_COLOUR, Batch

__all__ = ["on_patches"]


def on_patches(batch: Batch, multiple: int) -> Batch:
    """The batch with its images padded at the bottom and right by the mean colour.

    Labels say "ignore" there, and the boxes leave it out; a batch that fits comes back as it is.

    Args:
        batch: Images, (B, 3, H, W).
        multiple: What both sides shall be multiples of.
    """
    if batch.corrected is not None:
        batch = dataclasses.replace(batch, corrected=on_patches(batch.corrected, multiple))
    height, width = batch.images.shape[2:]
    below, right = -height % multiple, -width % multiple
    if not (below or right):
        return batch
    boxes, labels = batch.boxes, batch.labels
    if boxes is None:
        boxes = torch.tensor([[0, height, 0, width]] * len(batch.names), device=batch.images.device)
    if labels is not None:
        labels = F.pad(labels, (0, right, 0, below), value=IGNORE)
    images = pad_to_multiple(batch.images, multiple, MEAN_COLOUR)
    return dataclasses.replace(batch, images=images, boxes=boxes, labels=labels)

"""The view of the segmentation stage: one scale for a whole batch, crop, padding at the bottom and right."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from tagmask.data.transforms.augment import Augment, Label, Picture, Rng, View, to_picture
from tagmask.data.transforms.opencv import resize_nearest
from tagmask.errors import ConfigError
from tagmask.ops.images import unit
from tagmask.types import MEAN_COLOUR

__all__ = ["BatchScaleCrop", "BatchScaleDraw"]


@dataclass(frozen=True)
class BatchScaleDraw:
    """Drawn parameters of `BatchScaleCrop`.

    Attributes:
        scale: Factor of both sides.
        flip: Mirrored or not.
        crop: (top, left) of the view in the scaled picture.
    """

    scale: float
    flip: bool
    crop: tuple[int, int]


@dataclass(frozen=True)
class BatchScaleCrop(Augment):
    """Scale (bilinear, without antialiasing), mirror, cut, pad with the mean colour.

    Attributes:
        padding_label: Label of the padding. As published it is 0, background; 255 leaves it out of the loss.
    """

    scale: tuple[float, float] = (0.7, 1.3)
    jitter: float = 0.0
    padding_label: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.padding_label not in (0, 255):
            raise ConfigError(
                f"padding_label must be 0 (background) or 255 (ignore), got {self.padding_label}"
            )

    def for_batch(self, rng: Rng) -> BatchScaleCrop:
        """The same view with its scale drawn, for all images of one batch."""
        scale = float(rng.uniform(*self.scale))
        return dataclasses.replace(self, scale=(scale, scale))

    def draw(self, size: tuple[int, int], rng: Rng) -> BatchScaleDraw:
        """Random parameters for a picture of (height, width)."""
        scale, flip = float(rng.uniform(*self.scale)), bool(rng.random() > 1 - self.flip)
        spare = [max(side - self.size, 0) for side in _scaled(size, scale)]
        # The last place is never drawn, as published.
        top, left = (int(rng.random() * s) for s in spare)
        return BatchScaleDraw(scale, flip, (top, left))

    def apply(self, image: Picture, draw: BatchScaleDraw, label: Label | None = None) -> View:
        """The view for given parameters."""
        levels = np.asarray(to_picture(image))
        height, width = _scaled(levels.shape[:2], draw.scale)
        values = torch.from_numpy(levels.astype(np.float64)).permute(2, 0, 1)[None]
        scaled = F.interpolate(values, (height, width), mode="bilinear", align_corners=False)[0]
        seen = self._cut(scaled.flip(2) if draw.flip else scaled, draw)
        pixels = torch.tensor(MEAN_COLOUR).view(3, 1, 1).repeat(1, self.size, self.size)
        pixels[:, : seen.shape[1], : seen.shape[2]] = unit(seen)
        box = torch.tensor([0, seen.shape[1], 0, seen.shape[2]])
        if label is None:
            return View(pixels, box)
        near = torch.from_numpy(resize_nearest(label, (height, width)).astype(np.int64))[None]
        part = self._cut(near.flip(2) if draw.flip else near, draw)[0]
        whole = torch.full((self.size, self.size), self.padding_label)
        whole[: part.shape[0], : part.shape[1]] = part
        return View(pixels, box, whole)

    def _cut(self, values: torch.Tensor, draw: BatchScaleDraw) -> torch.Tensor:
        top, left = draw.crop
        return values[:, top : top + self.size, left : left + self.size]

    def __call__(self, image: Picture, rng: Rng, label: Label | None = None) -> View:
        """A random view; of one scale for the batch if `for_batch` was called before."""
        picture = to_picture(image)
        return self.apply(picture, self.draw((picture.height, picture.width), rng), label)


def _scaled(size: tuple[int, ...], scale: float) -> tuple[int, int]:
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))

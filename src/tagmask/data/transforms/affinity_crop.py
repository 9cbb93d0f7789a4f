"""The view AffinityNet learns from: a crop, and one label for each of its cells (PSA, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tagmask.data.transforms.augment import (
    Augment,
    Jitter,
    Picture,
    Rng,
    View,
    coloured,
    to_picture,
    to_tensor,
)
from tagmask.data.transforms.long_side_crop import Place, draw_place
from tagmask.errors import ConfigError
from tagmask.types import IGNORE

__all__ = ["AffinityCrop", "AffinityDraw", "confident_labels"]

CELL = 8
_LEAST = 1e-5


@dataclass(frozen=True)
class AffinityDraw:
    """Drawn parameters of `AffinityCrop`.

    Attributes:
        left: Horizontal place of the view.
        top: Vertical place of the view.
        flip: Mirrored or not.
        jitter: Colour change.
    """

    left: Place
    top: Place
    flip: bool
    jitter: Jitter | None = None


@dataclass(frozen=True)
class AffinityCrop(Augment):
    """Cut a square without resizing, black outside the image.

    The label is either a label map, 255 outside, or two volumes of scores on top of each other, (2C, H, W):
    with a strong and with a weak background, channel 0 the background, the others the present classes. The
    volumes are averaged over cells of 8 pixels, as PSA does, and become one label per cell, repeated over
    the cell. Their numbers are places in the volume, which is all that pairs need.
    """

    jitter: float = 1.0
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size % CELL:
            raise ConfigError(
                f"affinity views are cut into cells of {CELL} px: size {self.size} must be a multiple"
            )

    def draw(self, size: tuple[int, int], rng: Rng) -> AffinityDraw:
        """Random parameters for a picture of (height, width)."""
        height, width = size
        jitter = self.draw_jitter(rng)
        left, top = draw_place(width, self.size, rng), draw_place(height, self.size, rng)
        return AffinityDraw(left, top, bool(rng.random() < self.flip), jitter)

    def apply(self, image: Picture, draw: AffinityDraw, label: NDArray[Any] | None = None) -> View:
        """The view for given parameters."""
        picture = coloured(to_picture(image), draw.jitter)
        pixels, box = self._cut(to_tensor(picture).numpy(), draw, 0)
        found = torch.tensor(box)
        if label is None:
            return View(torch.from_numpy(pixels), found)
        outside = IGNORE if label.ndim == 2 else 0
        part, _ = self._cut(label if label.ndim == 3 else label[None], draw, outside)
        if label.ndim == 2:
            return View(torch.from_numpy(pixels), found, torch.from_numpy(part[0]).long())
        cells = confident_labels(*np.split(part, 2))
        whole = cells.repeat(CELL, 0).repeat(CELL, 1)
        return View(torch.from_numpy(pixels), found, torch.from_numpy(whole))

    def _cut(self, values: NDArray[Any], draw: AffinityDraw, outside: int) -> tuple[NDArray[Any], list[int]]:
        top, left = draw.top, draw.left
        seen = values[:, top.picture :, left.picture :][:, : self.size - top.view, : self.size - left.view]
        box = [top.view, top.view + seen.shape[1], left.view, left.view + seen.shape[2]]
        canvas = np.full((len(values), self.size, self.size), outside, values.dtype)
        canvas[:, box[0] : box[1], box[2] : box[3]] = seen
        if draw.flip:
            canvas = np.ascontiguousarray(canvas[:, :, ::-1])
            box[2:] = self.size - box[3], self.size - box[2]
        return canvas, box

    def __call__(self, image: Picture, rng: Rng, label: NDArray[Any] | None = None) -> View:
        """A random view."""
        picture = to_picture(image)
        return self.apply(picture, self.draw((picture.height, picture.width), rng), label)


def confident_labels(strong: NDArray[np.floating], weak: NDArray[np.floating]) -> NDArray[np.int64]:
    """One label per cell from scores with a strong and with a weak background.

    Foreground that beats the strong background is trusted, background that beats the foreground although it
    is weak is trusted too; the rest, and cells without any score, stay unknown.

    Args:
        strong: (C, H, W), channel 0 the background; sides multiples of 8.
        weak: The same with a weak background.

    Returns:
        (H / 8, W / 8): 0 background, a channel of the volume, or 255.
    """
    low, high = _pooled(strong), _pooled(weak)
    labels: NDArray[np.int64] = low.argmax(0).astype(np.int64)
    labels[labels == 0] = IGNORE
    labels[high.argmax(0) == 0] = 0
    labels[(low < _LEAST).all(0) & (high < _LEAST).all(0)] = IGNORE
    return labels


def _pooled(scores: NDArray[np.floating]) -> NDArray[np.floating]:
    channels, height, width = scores.shape
    cells = scores.reshape(channels, height // CELL, CELL, width // CELL, CELL)
    pooled: NDArray[np.floating] = cells.mean(axis=(2, 4))
    return pooled

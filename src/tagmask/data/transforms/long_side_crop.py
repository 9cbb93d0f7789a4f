"""The view of TransCAM and of PSA's classifier: random longer side, then a crop with mean-colour padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from tagmask.data.transforms.augment import (
    Augment,
    Jitter,
    Label,
    Picture,
    Rng,
    View,
    coloured,
    mirrored,
    to_label,
    to_picture,
    to_tensor,
)
from tagmask.errors import ConfigError
from tagmask.types import IGNORE, MEAN_COLOUR

__all__ = ["LongSideCrop", "LongSideDraw", "Place", "draw_place"]


@dataclass(frozen=True)
class Place:
    """Where a picture and a view meet along one axis.

    Attributes:
        view: First pixel in the view; above 0 only where the picture is smaller.
        picture: First pixel of the picture that is seen; above 0 only where it is larger.
    """

    view: int
    picture: int


@dataclass(frozen=True)
class LongSideDraw:
    """Drawn parameters of `LongSideCrop`.

    Attributes:
        long_side: Longer side of the resized picture in pixels.
        flip: Mirrored or not.
        left: Horizontal place of the view.
        top: Vertical place of the view.
        jitter: Colour change.
    """

    long_side: int
    flip: bool
    left: Place
    top: Place
    jitter: Jitter | None = None


@dataclass(frozen=True)
class LongSideCrop(Augment):
    """Resize (bicubic) to a random longer side, cut a square, pad with the mean colour.

    Attributes:
        long_side: Smallest and largest longer side; TransCAM's, for views of 512. PSA's classifier: 448, 768.
    """

    long_side: tuple[int, int] = (320, 640)
    jitter: float = 1.0
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.long_side[0] <= self.long_side[1]:
            raise ConfigError(f"long_side needs 0 < smallest <= largest, got {self.long_side}")

    def scaled(self, size: tuple[int, int], long_side: int) -> tuple[int, int]:
        """(height, width) of a picture of `size` after the resize."""
        factor = long_side / max(size)
        return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))

    def draw(self, size: tuple[int, int], rng: Rng) -> LongSideDraw:
        """Random parameters for a picture of (height, width)."""
        long_side = int(rng.integers(self.long_side[0], self.long_side[1] + 1))
        height, width = self.scaled(size, long_side)
        flip, jitter = bool(rng.random() < self.flip), self.draw_jitter(rng)
        left, top = draw_place(width, self.size, rng), draw_place(height, self.size, rng)
        return LongSideDraw(long_side, flip, left, top, jitter)

    def apply(self, image: Picture, draw: LongSideDraw, label: Label | None = None) -> View:
        """The view for given parameters."""
        picture = to_picture(image)
        height, width = self.scaled((picture.height, picture.width), draw.long_side)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        picture = coloured(mirrored(picture, draw.flip), draw.jitter)
        top, left = draw.top, draw.left
        rows, columns = min(self.size, height - top.picture), min(self.size, width - left.picture)
        box = [top.view, top.view + rows, left.view, left.view + columns]
        corner = (left.picture, top.picture, left.picture + columns, top.picture + rows)
        pixels = torch.tensor(MEAN_COLOUR).view(3, 1, 1).repeat(1, self.size, self.size)
        pixels[:, box[0] : box[1], box[2] : box[3]] = to_tensor(picture.crop(corner))
        if label is None:
            return View(pixels, torch.tensor(box))
        part = Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST)
        canvas = Image.new("L", (self.size, self.size), IGNORE)
        canvas.paste(mirrored(part, draw.flip), (left.view - left.picture, top.view - top.picture))
        return View(pixels, torch.tensor(box), to_label(np.array(canvas)))

    def __call__(self, image: Picture, rng: Rng, label: Label | None = None) -> View:
        """A random view."""
        picture = to_picture(image)
        return self.apply(picture, self.draw((picture.height, picture.width), rng), label)


def draw_place(side: int, view: int, rng: Rng) -> Place:
    """A random place along one axis: of the view in a larger picture, or of a smaller picture in the view."""
    spare = side - view
    offset = int(rng.integers(abs(spare) + 1))
    return Place(0, offset) if spare > 0 else Place(offset, 0)

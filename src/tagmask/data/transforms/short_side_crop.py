"""The view of WeakTr's second phase, mmsegmentation's pipeline: scale, crop, mirror, colour, padding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from tagmask.data.readers.images import rgb_tensor
from tagmask.data.transforms.augment import Augment, Label, Picture, Rng, View, to_label, to_picture
from tagmask.data.transforms.opencv import (
    Levels,
    from_hsv,
    resize_linear,
    resize_nearest,
    to_hsv,
)
from tagmask.errors import ConfigError
from tagmask.ops.sizes import fit_short_side
from tagmask.types import IGNORE

__all__ = ["Colour", "ShortSideCrop", "ShortSideDraw"]

_TRIES = 10
# ImageNet's mean colour in hundredths of a grey level, so that the padding is zero behind the normalisation.
_PADDING = (123.68 / 255, 116.28 / 255, 103.53 / 255)


@dataclass(frozen=True)
class Colour:
    """A drawn colour change on 8 bits; what is None is left out.

    Attributes:
        brightness: Added, in grey levels.
        contrast: Factor.
        contrast_first: Whether contrast comes before saturation and hue or after them.
        saturation: Factor.
        hue: Added, in units of two degrees.
    """

    brightness: float | None = None
    contrast: float | None = None
    contrast_first: bool = False
    saturation: float | None = None
    hue: int | None = None


@dataclass(frozen=True)
class ShortSideDraw:
    """Drawn parameters of `ShortSideCrop`.

    Attributes:
        size: (height, width) the picture is resized to.
        crop: (top, left) of the view in it.
        flip: Mirrored or not.
        colour: Colour change of the view.
    """

    size: tuple[int, int]
    crop: tuple[int, int]
    flip: bool
    colour: Colour


@dataclass(frozen=True)
class ShortSideCrop(Augment):
    """Resize to a random shorter side, cut a part that shows more than one label, mirror, change colours.

    Attributes:
        jitter: 0.5, the published coin for every part of the colour change, or 0 for none.
        short_side: Shorter side in pixels at scale 1; the view's size and a twelfth if not given.
        long_side: Largest longer side at scale 1, eight shorter ones if not given.
        largest_share: A cut in which one label covers this share or more of the decided pixels is drawn
            again, at most ten times.
        padding: Colour of the padding, RGB in [0, 1]: the mean the network subtracts.
    """

    scale: tuple[float, float] = (0.5, 2.0)
    short_side: int | None = None
    long_side: int | None = None
    largest_share: float = 0.75
    brightness: float = 32 / 255
    contrast: float = 0.5
    saturation: float = 0.5
    hue: float = 0.1
    padding: tuple[float, ...] = _PADDING

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.padding) != 3 or not all(0 <= value <= 1 for value in self.padding):
            raise ConfigError(f"view setting padding must be three values in 0 to 1, got {self.padding}")
        if self.jitter not in (0, 0.5):
            raise ConfigError(f"view short_side_crop: jitter must be 0.5 or 0 (off), got {self.jitter}")
        if not 0 < self.largest_share <= 1 or min(self.short_side or 1, self.long_side or 1) < 1:
            raise ConfigError(
                f"view short_side_crop needs 0 < largest_share <= 1 and sides of at least 1, got "
                f"{self.largest_share}, {self.short_side} and {self.long_side}"
            )

    def draw(self, size: tuple[int, int], rng: Rng, label: Label | None = None) -> ShortSideDraw:
        """Random parameters for a picture of (height, width); the label decides which cuts are good."""
        scale = float(rng.uniform(*self.scale))
        short = self.short_side or round(self.size * 13 / 12)
        long = self.long_side or 8 * short
        scaled = fit_short_side(size, int(short * scale), int(long * scale))
        large = None if label is None else resize_nearest(label, scaled)
        crop = self._corner(scaled, rng)
        for _ in range(_TRIES):
            if large is None or self._varied(self._cut(large, crop)):
                break
            crop = self._corner(scaled, rng)
        flip = bool(rng.random() < self.flip)
        return ShortSideDraw(scaled, crop, flip, self._draw_colour(rng))

    def _corner(self, size: tuple[int, int], rng: Rng) -> tuple[int, int]:
        top, left = (int(rng.integers(0, max(side - self.size, 0) + 1)) for side in size)
        return top, left

    def _varied(self, label: Label) -> bool:
        counts = np.bincount(label.reshape(-1), minlength=IGNORE + 1)[:IGNORE]
        shown = counts[counts > 0]
        return len(shown) > 1 and bool(shown.max() / shown.sum() < self.largest_share)

    def _draw_colour(self, rng: Rng) -> Colour:
        if not self.jitter:
            return Colour()
        light = _maybe(rng, -255 * self.brightness, 255 * self.brightness)
        first = bool(rng.integers(0, 2) == 1)
        contrast = _maybe(rng, 1 - self.contrast, 1 + self.contrast) if first else None
        saturation = _maybe(rng, 1 - self.saturation, 1 + self.saturation)
        turn = round(180 * self.hue)
        hue = int(rng.integers(-turn, turn)) if rng.integers(0, 2) and turn else None
        if not first:
            contrast = _maybe(rng, 1 - self.contrast, 1 + self.contrast)
        return Colour(light, contrast, first, saturation, hue)

    def apply(self, image: Picture, draw: ShortSideDraw, label: Label | None = None) -> View:
        """The view for given parameters."""
        levels = np.asarray(to_picture(image))
        part = self._cut(resize_linear(levels, draw.size), draw.crop)
        part = recoloured(part[:, ::-1] if draw.flip else part, draw.colour)
        height, width = part.shape[:2]
        pixels = rgb_tensor(np.array(part))
        if (height, width) != (self.size, self.size):
            whole = torch.tensor(self.padding, dtype=torch.float32).view(3, 1, 1)
            whole = whole.repeat(1, self.size, self.size)
            whole[:, :height, :width] = pixels
            pixels = whole
        box = torch.tensor([0, height, 0, width])
        if label is None:
            return View(pixels, box)
        near = self._cut(resize_nearest(label, draw.size), draw.crop)
        canvas = np.full((self.size, self.size), IGNORE, np.uint8)
        canvas[:height, :width] = near[:, ::-1] if draw.flip else near
        return View(pixels, box, to_label(canvas))

    def _cut(self, values: Levels, corner: tuple[int, int]) -> Levels:
        top, left = corner
        return values[top : top + self.size, left : left + self.size]

    def __call__(self, image: Picture, rng: Rng, label: Label | None = None) -> View:
        """A random view."""
        picture = to_picture(image)
        return self.apply(picture, self.draw((picture.height, picture.width), rng, label), label)


def recoloured(image: Levels, colour: Colour) -> Levels:
    """An 8-bit RGB image (H, W, 3) after a colour change; every part cuts fractions off."""
    for name in _order(colour):
        if name == "brightness" and colour.brightness is not None:
            image = _changed(image, 1.0, colour.brightness)
        elif name == "contrast" and colour.contrast is not None:
            image = _changed(image, colour.contrast, 0.0)
        elif name == "saturation" and colour.saturation is not None:
            hsv = to_hsv(image)
            hsv[..., 1] = _changed(hsv[..., 1], colour.saturation, 0.0)
            image = from_hsv(hsv)
        elif name == "hue" and colour.hue is not None:
            hsv = to_hsv(image)
            hsv[..., 0] = (hsv[..., 0].astype(np.int64) + colour.hue) % 180
            image = from_hsv(hsv)
    return image


def _order(colour: Colour) -> Iterator[str]:
    yield "brightness"
    yield from (
        ("contrast", "saturation", "hue") if colour.contrast_first else ("saturation", "hue", "contrast")
    )


def _changed(values: Levels, factor: float, shift: float) -> Levels:
    moved = values.astype(np.float32) * np.float32(factor) + np.float32(shift)
    made: Levels = np.clip(moved, 0, 255).astype(np.uint8)
    return made


def _maybe(rng: Rng, low: float, high: float) -> float | None:
    return float(rng.uniform(low, high)) if rng.integers(0, 2) else None

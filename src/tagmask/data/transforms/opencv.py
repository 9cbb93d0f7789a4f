"""Resizing and hue as OpenCV computes them on 8 bits, to the grey level and without OpenCV.

Systems trained on mmsegmentation's pipeline see images through these functions. OpenCV's integer arithmetic
rounds more than once, which no interpolation of floats reproduces: one pixel in nine is a level off.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["from_hsv", "resize_linear", "resize_nearest", "to_hsv"]

Levels = NDArray[np.uint8]
_Ints = NDArray[np.int32]
_COEF = 2048  # weights along one axis are integers of this scale


def resize_linear(image: Levels, size: tuple[int, int]) -> Levels:
    """Bilinear resize of an 8-bit image, without antialiasing.

    Args:
        image: (H, W, C).
        size: Wanted (height, width).

    Returns:
        (*size, C).
    """
    if image.shape[:2] == tuple(size):
        return image
    left, right, far_left, far_right = _axis(image.shape[1], size[1], clamp=True)
    top, bottom, far_top, far_bottom = _axis(image.shape[0], size[0], clamp=False)
    # Along a row sums are kept to four bits less than exact; across rows each product is cut to 16 bits.
    wide = image.astype(np.int32)
    rows = (wide[:, left] * far_left[:, None] + wide[:, right] * far_right[:, None]) >> 4
    upper = (rows[top] * far_top[:, None, None]) >> 16
    lower = (rows[bottom] * far_bottom[:, None, None]) >> 16
    made: Levels = ((upper + lower + 2) >> 2).astype(np.uint8)
    return made


def resize_nearest(label: Levels, size: tuple[int, int]) -> Levels:
    """Nearest neighbour by rounding down; Pillow's differs by up to a pixel.

    Args:
        label: (H, W).
        size: Wanted (height, width).
    """
    # OpenCV divides by the rounded factor, which decides where a quotient is a whole number.
    rows, columns = (
        np.minimum(np.arange(new) * (1 / (new / old)), old - 1).astype(np.int64)
        for old, new in zip(label.shape, size, strict=True)
    )
    sampled: Levels = label[rows[:, None], columns]
    return sampled


def to_hsv(image: Levels) -> Levels:
    """RGB (..., 3) to hue in 0..179 (two degrees each), saturation and value in 0..255."""
    red, green, blue = (image[..., i].astype(np.int32) for i in range(3))
    value = image.max(-1).astype(np.int32)
    spread = value - image.min(-1)
    by_value, by_spread = _tables()
    saturation = (spread * by_value[value] + 2048) >> 12
    sector = np.where(
        value == red,
        green - blue,
        np.where(value == green, blue - red + 2 * spread, red - green + 4 * spread),
    )
    hue = (sector * by_spread[spread] + 2048) >> 12
    hue += np.where(hue < 0, 180, 0)
    return np.stack([hue, saturation, value], -1).astype(np.uint8)


def from_hsv(image: Levels) -> Levels:
    """What `to_hsv` gives back to RGB; fractions are cut off."""
    turn = image[..., 0].astype(np.float32) * np.float32(6 / 180)
    saturation = image[..., 1].astype(np.float32) * np.float32(1 / 255)
    value = image[..., 2].astype(np.float32) * np.float32(1 / 255)
    sector = np.floor(turn)
    part = turn - sector
    low = value * (1 - saturation)
    # OpenCV multiplies and subtracts in one rounding here, which decides one value in ten thousand.
    falling, rising = (
        value * (1 - saturation.astype(np.float64) * share).astype(np.float32) for share in (part, 1 - part)
    )
    index = sector.astype(np.int64) % 6
    red = np.choose(index, [value, falling, low, low, rising, value])
    green = np.choose(index, [rising, value, value, falling, low, low])
    blue = np.choose(index, [low, low, rising, value, value, falling])
    made: Levels = (np.stack([red, green, blue], -1) * np.float32(255)).astype(np.uint8)
    return made


def _axis(source: int, target: int, clamp: bool) -> tuple[NDArray[Any], NDArray[Any], _Ints, _Ints]:
    """Two source indices per target pixel and their integer weights.

    Beyond the border both indices are the border's; along rows the weights are then 1 and 0 (`clamp`),
    across rows they stay what they were, which rounds differently.
    """
    centre = ((np.arange(target) + 0.5) * (source / target) - 0.5).astype(np.float32)
    first = np.floor(centre).astype(np.int64)
    share = (centre - first.astype(np.float32)).astype(np.float32)
    if clamp:
        share[(first < 0) | (first >= source - 1)] = 0
    far = np.rint(share * np.float32(_COEF)).astype(np.int32)
    near = np.rint((np.float32(1) - share) * np.float32(_COEF)).astype(np.int32)
    last = source - 1
    return np.clip(first, 0, last), np.clip(first + 1, 0, last), near, far


@lru_cache(maxsize=1)
def _tables() -> tuple[_Ints, _Ints]:
    """Rounded reciprocals, 12 bits after the point: 255 / i and 30 / i."""
    levels = np.arange(1, 256)
    pair = [np.rint((top << 12) / (parts * levels)) for top, parts in ((255, 1), (180, 6))]
    by_value, by_spread = (np.concatenate([[0], row]).astype(np.int32) for row in pair)
    return by_value, by_spread

"""Pictures of more bands than Pillow has, with what is used of Pillow's own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["AnyPicture", "BandPicture", "as_picture", "people_picture", "shrunk"]


class BandPicture:
    """Levels of any number of bands: cut and resized as a Pillow image is, turned into an array alike.

    Args:
        levels: (H, W, C) uint8.
    """

    def __init__(self, levels: NDArray[np.uint8]) -> None:
        self._levels = levels
        self.height, self.width = levels.shape[:2]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), as Pillow says it."""
        return self.width, self.height

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.uint8]:
        return np.array(self._levels, dtype=dtype)

    def crop(self, box: tuple[int, int, int, int]) -> BandPicture:
        """The part (left, top, right, bottom)."""
        left, top, right, bottom = box
        return BandPicture(self._levels[top:bottom, left:right])

    def resize(
        self, size: tuple[int, int], resample: Image.Resampling, reducing_gap: float | None = None
    ) -> BandPicture:
        """Every band resized by Pillow to (width, height)."""
        bands = [
            Image.fromarray(np.ascontiguousarray(self._levels[..., band])).resize(
                size, resample, reducing_gap=reducing_gap
            )
            for band in range(self._levels.shape[2])
        ]
        return BandPicture(np.stack([np.asarray(band) for band in bands], axis=2))


AnyPicture = Image.Image | BandPicture
"""RGB, or levels of more bands."""


def as_picture(levels: NDArray[np.uint8]) -> AnyPicture:
    """Levels (H, W, C) uint8 as a picture: Pillow's with three bands."""
    return Image.fromarray(levels) if levels.shape[2] == 3 else BandPicture(levels)


def people_picture(picture: AnyPicture) -> Image.Image:
    """What people see of a picture: its first three bands as red, green and blue."""
    if isinstance(picture, Image.Image):
        return picture
    return Image.fromarray(np.ascontiguousarray(np.asarray(picture)[..., :3]))


def shrunk(picture: AnyPicture, side: int) -> AnyPicture:
    """The picture with at most this longer side."""
    if max(picture.size) <= side:
        return picture
    factor = side / max(picture.size)
    small = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture.resize(small, Image.Resampling.BILINEAR, reducing_gap=2.0)

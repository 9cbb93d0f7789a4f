"""Pictures as the page shows them: JPEGs of an image, small ones with the mask over it."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["enlarged", "jpeg", "shrunk_maps", "thumbnail"]

Labels = NDArray[np.uint8]
_IGNORE = 255


def enlarged(labels: Labels, size: tuple[int, int]) -> Labels:
    """Labels at (height, width), by the nearest pixel; unchanged if they have that size."""
    if labels.shape == size:
        return labels
    return np.array(Image.fromarray(labels).resize((size[1], size[0]), Image.Resampling.NEAREST))


def shrunk_maps(maps: NDArray[np.floating], side: int) -> Labels:
    """Maps (n, H, W) in [0, 1] as bytes, 255 being 1, their longer side at most `side`."""
    levels: Labels = np.clip(np.rint(maps * 255), 0, 255).astype(np.uint8)
    if not len(levels) or max(levels.shape[1:]) <= side:
        return levels
    factor = side / max(levels.shape[1:])
    size = tuple(max(1, round(extent * factor)) for extent in levels.shape[:0:-1])
    return np.stack([np.array(Image.fromarray(one).resize(size, Image.Resampling.BOX)) for one in levels])


def jpeg(picture: Image.Image, quality: int = 90) -> bytes:
    """A picture as JPEG; nothing of the file it came from goes with it."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def thumbnail(picture: Image.Image, labels: Labels | None, palette: NDArray[np.uint8], side: int) -> bytes:
    """A small picture with its labels in colour.

    Args:
        picture: RGB.
        labels: (H, W), whatever its size; None draws the picture alone.
        palette: RGB per label, (256, 3).
        side: Longer side.
    """
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
    if labels is not None:
        pixels = np.asarray(small, np.float32)
        there = enlarged(labels, (small.height, small.width))
        share = np.where((there == 0) | (there == _IGNORE), 0.0, 0.55)[..., None]
        mixed = pixels * (1 - share) + palette[there] * share
        small = Image.fromarray(mixed.astype(np.uint8))
    return jpeg(small, 80)

"""Pictures for people: maps and labels laid over their image, in colours that most eyes can tell apart."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tagmask.data.classes import CLASS_COLOURS

__all__ = ["class_colours", "label_picture", "map_picture", "picture_uri"]

_IGNORE = 255


def class_colours(num_classes: int) -> list[str]:
    """A colour per class as ``#rrggbb``; they repeat after 36, so names must stand beside them."""
    return [CLASS_COLOURS[i % len(CLASS_COLOURS)] for i in range(num_classes)]


def map_picture(
    image: NDArray[np.uint8], maps: NDArray[np.floating], keys: Sequence[int]
) -> NDArray[np.uint8]:
    """Every pixel tinted by its strongest class, the more the higher the map, over the image in grey.

    Args:
        image: (H, W, 3) RGB.
        maps: (n, H, W) in [0, 1].
        keys: 0-based class of each map.

    Returns:
        (H, W, 3) uint8.
    """
    if not len(keys):
        return np.asarray(_grey(image), np.uint8)
    colours = np.asarray([_rgb(key) for key in keys], np.float32)
    strongest, height = maps.argmax(0), np.clip(maps.max(0), 0, 1)[..., None]
    blend = _grey(image) * (1 - 0.85 * height) + colours[strongest] * 0.85 * height
    return np.asarray(np.clip(blend, 0, 255), np.uint8)


def label_picture(image: NDArray[np.uint8], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Labels as colour over the grey image; undecided pixels (255) are striped white.

    Args:
        image: (H, W, 3) RGB.
        labels: (H, W), 0 background, k + 1 class k, 255 ignore.

    Returns:
        (H, W, 3) uint8.
    """
    result = _grey(image)
    for label in np.unique(labels):
        inside = labels == label
        if label == _IGNORE:
            rows, columns = np.indices(labels.shape)
            result[inside & ((rows + columns) % 8 < 3)] = 255
        elif label:
            result[inside] = result[inside] * 0.35 + np.asarray(_rgb(int(label) - 1)) * 0.65
    return np.clip(result, 0, 255).astype(np.uint8)


def picture_uri(picture: NDArray[np.uint8], side: int = 280) -> str:
    """A picture as a ``data:`` address, its longer side at most `side` pixels."""
    small = Image.fromarray(picture)
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _grey(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Lightened grey, so that colours on it keep their contrast."""
    grey = image.astype(np.float32) @ np.asarray([0.299, 0.587, 0.114], np.float32)
    return np.repeat(60 + 0.7 * grey[..., None], 3, axis=2)


def _rgb(key: int) -> tuple[int, int, int]:
    text = CLASS_COLOURS[key % len(CLASS_COLOURS)]
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)

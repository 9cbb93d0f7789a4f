"""Pictures of maps and labels as arrays: colours, overlays, grids."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["heat_colours", "label_colours", "overlay_labels", "overlay_maps", "picture_grid"]

Picture = NDArray[np.uint8]
Floats = NDArray[np.floating]


def heat_colours(values: Floats) -> NDArray[np.float64]:
    """Colours from blue (0) over green to red (1), the "jet" map in 256 steps.

    Args:
        values: Any shape, in [0, 1]; what is outside is clipped.

    Returns:
        RGB levels from 0 to 255, not rounded, (*values.shape, 3).
    """
    index = np.clip(np.nan_to_num(values) * 256, 0, 255).astype(np.intp)
    return np.asarray(_jet()[index])


@cache
def _jet() -> NDArray[np.float64]:
    # Not at the top: predicting draws nothing and should not wait for matplotlib.
    from matplotlib import colormaps

    return np.asarray(colormaps["jet"](np.arange(256))[:, :3] * 255)


def overlay_maps(image: Picture, maps: Floats, opacity: float = 0.5) -> Picture:
    """Colours of the strongest class map over its image.

    Args:
        image: RGB, (H, W, 3).
        maps: Class maps in [0, 1], (K, H, W); no map at all (K = 0) counts as 0 everywhere.
        opacity: Share of the colours, from 0 (image only) to 1 (colours only).

    Returns:
        (H, W, 3).

    Raises:
        ValueError: Sizes differ.
    """
    _check_size(image, maps.shape[1:])
    strongest = maps.max(axis=0) if len(maps) else np.zeros(image.shape[:2])
    return np.asarray(opacity * heat_colours(strongest) + (1 - opacity) * image).astype(np.uint8)


def label_colours(labels: NDArray[np.integer], palette: Picture) -> Picture:
    """Every label in its colour.

    Args:
        labels: Any shape, values below the palette's length.
        palette: RGB per label, (256, 3).

    Returns:
        (*labels.shape, 3).
    """
    return np.asarray(palette[labels])


def overlay_labels(
    image: Picture, labels: NDArray[np.integer], palette: Picture, opacity: float = 0.5
) -> Picture:
    """Colours of the labelled objects over their image; the background stays as it is.

    Args:
        image: RGB, (H, W, 3).
        labels: (H, W), 0 background.
        palette: RGB per label, (256, 3).
        opacity: Share of the colours on objects.

    Returns:
        (H, W, 3).

    Raises:
        ValueError: Sizes differ.
    """
    _check_size(image, labels.shape)
    share = np.where(labels == 0, 0.0, opacity)[..., None]
    return np.asarray(share * label_colours(labels, palette) + (1 - share) * image).astype(np.uint8)


def picture_grid(pictures: Sequence[Picture], columns: int = 2, padding: int = 2, level: int = 0) -> Picture:
    """Pictures of one size side by side, row by row, with a frame around each.

    Args:
        pictures: One or more RGB pictures, each (H, W, 3).
        columns: Most pictures in a row.
        padding: Width of the frame in pixels.
        level: Grey level of the frame and of empty places.

    Returns:
        (rows * (H + padding) + padding, columns' * (W + padding) + padding, 3), where columns' is the number
        of pictures if that is smaller.

    Raises:
        ValueError: There are no pictures, or their sizes differ.
    """
    if not pictures or len({picture.shape for picture in pictures}) > 1:
        raise ValueError(
            f"a grid needs pictures of one size, got {sorted({p.shape for p in pictures}) or 'none'}"
        )
    height, width = pictures[0].shape[:2]
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    shape = (rows * (height + padding) + padding, columns * (width + padding) + padding, 3)
    grid = np.full(shape, level, np.uint8)
    for index, picture in enumerate(pictures):
        top = padding + index // columns * (height + padding)
        left = padding + index % columns * (width + padding)
        grid[top : top + height, left : left + width] = picture
    return grid


def _check_size(image: Picture, size: tuple[int, ...]) -> None:
    if image.shape[:2] != tuple(size):
        raise ValueError(f"the image is {image.shape[:2]} but what is drawn on it {tuple(size)}; resize one")

"""Resizing with every choice named: images, maps, position embeddings, padding to the patch grid."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

__all__ = ["pad_to_multiple", "resize_bilinear", "resize_positions"]


def resize_bilinear(
    values: Tensor, size: tuple[int, int], align_corners: bool = False, factor: float | None = None
) -> Tensor:
    """Bilinear resampling without antialiasing; the same tensor if the size already fits.

    Args:
        values: Images or maps, (B, C, H, W).
        size: Wanted (height, width).
        align_corners: Whether the corner pixels' centres stay in place.
        factor: The exact factor that was rounded down to `size`. Given, samples lie 1 / factor apart instead
            of at the ratio of the sizes, and what is left of a pixel at the far border is cut off.
    """
    if tuple(values.shape[2:]) == tuple(size):
        return values
    if factor is not None:
        return F.interpolate(
            values,
            scale_factor=factor,
            mode="bilinear",
            align_corners=align_corners,
            recompute_scale_factor=False,
        )
    return F.interpolate(values, size=size, mode="bilinear", align_corners=align_corners)


def resize_positions(
    rows: Tensor,
    size: tuple[int, int],
    grid: tuple[int, int] | None = None,
    *,
    offset: float = 0.0,
    mode: str = "bicubic",
    antialias: bool = False,
) -> Tensor:
    """Position embedding of another patch grid.

    Args:
        rows: One row per patch of the stored grid, row-major, (1, N, D).
        size: Wanted grid (h, w).
        grid: Stored grid; a square if None.
        offset: 0 resamples to the wanted size. Otherwise the scale factor (size + offset) / grid is used as
            such for the sampling coordinates, as DINO and the papers built on it do with 0.1: same size,
            other values (4-9 % rms on random rows).
        mode: "bicubic", "bilinear" or "nearest".
        antialias: Whether to smooth when shrinking (timm's default; the papers do not).

    Returns:
        (1, h * w, D).

    Raises:
        ValueError: If the rows do not fill the grid, or offset and antialias are combined with "nearest".
    """
    height, width = grid or (round(rows.shape[1] ** 0.5),) * 2
    if rows.ndim != 3 or rows.shape[1] != height * width:
        raise ValueError(f"{tuple(rows.shape)} position rows do not fill a grid of {height} x {width}")
    if mode == "nearest" and (offset or antialias):
        raise ValueError("nearest resampling takes neither an offset nor antialiasing")
    table = rows.transpose(1, 2).reshape(rows.shape[0], -1, height, width)
    corners = None if mode == "nearest" else False
    if offset:
        factors = ((size[0] + offset) / height, (size[1] + offset) / width)
        table = F.interpolate(
            table,
            scale_factor=factors,
            mode=mode,
            align_corners=corners,
            antialias=antialias,
            recompute_scale_factor=False,
        )
    else:
        table = F.interpolate(table, size=size, mode=mode, align_corners=corners, antialias=antialias)
    return table.flatten(2).transpose(1, 2)


def pad_to_multiple(images: Tensor, multiple: int, value: float | Sequence[float] = 0.0) -> Tensor:
    """Pad at the bottom and right until both sides are multiples of a patch.

    Args:
        images: (B, C, H, W).
        multiple: Patch side in pixels.
        value: What the border holds, one value or one per channel.
    """
    bottom, right = -images.shape[2] % multiple, -images.shape[3] % multiple
    if not (bottom or right):
        return images
    if isinstance(value, float | int):
        return F.pad(images, (0, right, 0, bottom), value=value)
    height, width = images.shape[2:]
    colour = images.new_tensor(list(value)).view(1, -1, 1, 1)
    padded = colour.repeat(images.shape[0], 1, height + bottom, width + right)
    padded[:, :, :height, :width] = images
    return padded

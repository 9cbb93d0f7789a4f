"""Pillow's bicubic resize on batches of tensors, to the grey level.

Several papers resize 8-bit images with Pillow before they look at them. Its result is rounded to grey
levels after each axis, which no interpolation of floats reproduces.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from tagmask.ops.images import unit

__all__ = ["pillow_bicubic"]

_BITS = 22  # Pillow keeps 8-bit resampling weights as integers of this scale
_SUPPORT = 2.0


def pillow_bicubic(images: Tensor, size: tuple[int, int]) -> Tensor:
    """What ``PIL.Image.resize(size, BICUBIC)`` gives for 8-bit images.

    Args:
        images: In [0, 1], (B, C, H, W); rounded to multiples of 1/255 first.
        size: Wanted (height, width).

    Returns:
        Multiples of 1/255, float32, (B, C, *size).
    """
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    levels = (images * 255).round().double()
    for axis, length in ((3, size[1]), (2, size[0])):  # Pillow resizes the rows first
        if levels.shape[axis] != length:
            weights = _weights(levels.shape[axis], length).to(levels.device)
            moved = levels.movedim(axis, -1) @ weights
            # Sums of integers below 2^53 are exact; halves go up, as in an integer shift.
            levels = torch.floor(moved / 2**_BITS + 0.5).clamp_(0, 255).movedim(-1, axis)
    return unit(levels)


@lru_cache(maxsize=64)
def _weights(source: int, target: int) -> Tensor:
    """Integer weights (source, target), as doubles."""
    scale = source / target
    stretch = max(scale, 1.0)
    centre = (torch.arange(target, dtype=torch.float64) + 0.5) * scale
    first = (centre - _SUPPORT * stretch + 0.5).trunc().clamp_(min=0)
    last = (centre + _SUPPORT * stretch + 0.5).trunc().clamp_(max=source)
    index = torch.arange(source, dtype=torch.float64).unsqueeze(1)
    raw = _bicubic((index - centre + 0.5) * (1.0 / stretch)) * ((index >= first) & (index < last))
    share = raw / raw.sum(dim=0, keepdim=True) * 2**_BITS
    return torch.where(share < 0, share - 0.5, share + 0.5).trunc()


def _bicubic(x: Tensor) -> Tensor:
    """Keys' cubic with a = -0.5."""
    x = x.abs()
    near = ((1.5 * x - 2.5) * x) * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))

"""Grey levels to [0, 1], and colours of training images as the papers' refinement sees them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["truncated_levels", "unit"]


def unit(levels: Tensor) -> Tensor:
    """Grey levels to the scale that everything behind the readers works on; nothing else divides by 255.

    Args:
        levels: 0 to 255, uint8, or floating point between grey levels; of any shape.

    Returns:
        0 to 1, float32, of the same shape.
    """
    return (levels / 255).float()


def truncated_levels(normalised: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalised images back in [0, 1] through a cast to 8 bits that cuts off instead of rounding.

    About 1.5 % of the values come out one grey level too low, because ``x * std + mean`` lands just below a
    whole number. ToCo, SeCo, AFA and MoRe refine with these colours; the order of operations matters.

    Args:
        normalised: ``(rgb - mean) / std``, (B, 3, H, W).
        mean: Channel means on the scale of [0, 1], 3 values.
        std: Channel deviations on the same scale, 3 values.

    Returns:
        Multiples of 1/255, float32, (B, 3, H, W).
    """
    channels = [
        # Python's doubles: 0.485 * 255 must become the float32 nearest to 123.675, as in the originals.
        normalised[:, i] * (std[i] * 255) + mean[i] * 255
        for i in range(3)
    ]
    levels = torch.stack(channels, dim=1).clamp_(0, 255).to(torch.uint8)
    return unit(levels)

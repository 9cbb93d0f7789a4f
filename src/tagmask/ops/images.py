"""Colours of training images as the papers' refinement sees them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["truncated_levels"]


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
    return levels.float().div_(255)

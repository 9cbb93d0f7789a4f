"""Where to cut a class map when nobody has drawn a mask: along edges of the image."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["colour_steps", "cut_evidence"]

_SHARE = 0.4

Steps = tuple[Tensor, Tensor]
"""Change from each pixel to the one below, (H - 1, W), and to the one on the right, (H, W - 1)."""


def colour_steps(image: Tensor, strongest: float = 6.0) -> Steps:
    """How much the colour changes between neighbours, mean absolute difference over channels.

    Args:
        image: (C, H, W), any range.
        strongest: Changes count at most so many times the image's mean, so that one glaring edge of the
            picture (a frame, a shadow, the edge of another thing) cannot outshout the outline that is meant.

    Returns:
        Downwards (H - 1, W) and to the right (H, W - 1), at least 0.
    """
    down = (image[:, 1:] - image[:, :-1]).abs().mean(0)
    right = (image[:, :, 1:] - image[:, :, :-1]).abs().mean(0)
    usual = (down.sum() + right.sum()) / max(1, down.numel() + right.numel())
    top = float(strongest * usual)
    return down.clamp(max=top), right.clamp(max=top)


def cut_evidence(class_map: Tensor, steps: Steps, thresholds: Tensor) -> Tensor:
    """How well the outline of ``class_map > t`` follows edges of the image, for every threshold t at once.

    The mean step along the outline over the mean step of the image, minus 1, times a power of the cut's share
    of the image, or of the rest where that is smaller. It is 0 on average for an outline that knows nothing
    of the image, and 0 where a threshold cuts nothing off. The power, 0.4, was the one among three that lost
    least on six sets of images.

    Args:
        class_map: (H, W).
        steps: Of the image at the same size, see `colour_steps`.
        thresholds: Ascending, (T,).

    Returns:
        (T,) float32.
    """
    down, right = steps
    # A pair of neighbours is parted by the thresholds that one passes and the other does not.
    level = torch.searchsorted(thresholds.to(class_map), class_map.contiguous(), right=False)
    count = len(thresholds)
    strength, length = class_map.new_zeros(count + 1), class_map.new_zeros(count + 1)
    for a, b, step in ((level[1:], level[:-1], down), (level[:, 1:], level[:, :-1], right)):
        low, high = torch.minimum(a, b).flatten(), torch.maximum(a, b).flatten()
        ones = torch.ones_like(step).flatten()
        for total, weight in ((strength, step.flatten().to(strength)), (length, ones.to(length))):
            total.index_add_(0, low, weight)
            total.index_add_(0, high, -weight)
    strength, length = strength.cumsum(0)[:count], length.cumsum(0)[:count]
    usual = (down.sum() + right.sum()) / max(1, down.numel() + right.numel())
    passed = torch.bincount(level.flatten(), minlength=count + 1).flip(0).cumsum(0).flip(0)[1:]
    share = passed.to(strength) / level.numel()
    share = torch.minimum(share, 1 - share)  # the outline of a region is that of the rest, too
    mean = strength / length.clamp(min=1)
    found = (mean / usual.clamp(min=1e-6) - 1) * share.pow(_SHARE)
    return torch.where(length > 0.5, found, torch.zeros_like(found))

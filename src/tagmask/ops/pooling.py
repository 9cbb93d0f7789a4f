"""From a map per class to one logit per class."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

__all__ = ["SoftPooling", "ranked_pool", "soft_pool"]

SoftPooling = Literal["mean", "top", "lse"]


def ranked_pool(maps: Tensor, decay: float = 0.996) -> Tensor:
    """Weighted mean of a map's values in descending order: the k-th has weight decay^k (MCTformer+).

    Decay 1 is the mean, decay 0 the maximum.

    Args:
        maps: (B, K, h, w).
        decay: In [0, 1].

    Returns:
        (B, K).
    """
    values = maps.flatten(2).sort(dim=2, descending=True).values
    weights = maps.new_tensor(decay) ** torch.arange(values.shape[2], device=maps.device)
    return (values * weights).sum(2) / weights.sum()


def soft_pool(maps: Tensor, how: SoftPooling, share: float = 0.2, sharpness: float = 4.0) -> Tensor:
    """Something between the mean and the maximum of a map, so that more than one place learns.

    Args:
        maps: (B, K, h, w).
        how: "mean"; "top", the mean of the strongest `share`; or "lse", log-mean-exp (Pinheiro and Collobert,
            CVPR 2015).
        share: Part of the places "top" averages, in (0, 1].
        sharpness: Of "lse": towards 0 it is the mean, towards infinity the maximum.

    Returns:
        (B, K).

    Raises:
        ValueError: `how` is unknown.
    """
    values = maps.flatten(2).float()
    if how == "mean":
        return values.mean(2)
    if how == "top":
        return values.topk(max(int(values.shape[2] * share), 1), dim=2).values.mean(2)
    if how == "lse":
        return ((values * sharpness).logsumexp(2) - math.log(values.shape[2])) / sharpness
    raise ValueError(f"pooling must be mean, top or lse, got {how!r}")

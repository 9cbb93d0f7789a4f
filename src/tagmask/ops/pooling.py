"""From a map per class to one logit per class."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = ["SoftPooling", "ranked_pool", "soft_pool"]

SoftPooling = Literal["mean", "top", "tenth", "lse"]


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
        how: "mean"; "top", the mean of the strongest `share`; "tenth", of the strongest tenth; or "lse",
            log-mean-exp (Pinheiro and Collobert, CVPR 2015).
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
    if how in ("top", "tenth"):
        share = 0.1 if how == "tenth" else share
        if torch.compiler.is_exporting():
            return _top_traced(values, share)
        return values.topk(max(int(values.shape[2] * share), 1), dim=2).values.mean(2)
    if how == "lse":
        return ((values * sharpness).logsumexp(2) - _places(values).log().float()) / sharpness
    raise ValueError(f"pooling must be mean, top, tenth or lse, got {how!r}")


def _places(values: Tensor) -> Tensor:
    """How many places a map has, (), float64, by counting: a graph that is traced once serves every size."""
    return torch.ones(values.shape[2], dtype=torch.float64, device=values.device).sum()


def _top_traced(values: Tensor, share: float) -> Tensor:
    # How many values `topk` gives would be a constant of the traced example.
    count = (_places(values) * share).floor().clamp_min(1)
    ranked = values.sort(dim=2, descending=True).values
    taken = torch.arange(values.shape[2], device=values.device) < count
    return torch.where(taken, ranked, 0.0).sum(2) / count.float()

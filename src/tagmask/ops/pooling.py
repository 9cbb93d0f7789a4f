"""From a map per class to one logit per class."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["ranked_pool"]


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

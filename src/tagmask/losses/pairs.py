"""Loss of AffinityNet on sampled pairs (PSA, Ahn and Kwak 2018, equations 4 to 6)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["PairLoss", "sampled_pair_loss"]

_EPSILON = 1e-5


class PairLoss(NamedTuple):
    """Total and its three parts, scalars.

    Attributes:
        total: background / 4 + foreground / 4 + negative / 2.
        background: Mean -log(affinity) of pairs inside the background.
        foreground: The same inside one foreground class.
        negative: Mean -log(1 - affinity) of pairs across classes.
    """

    total: Tensor
    background: Tensor
    foreground: Tensor
    negative: Tensor


def sampled_pair_loss(affinity: Tensor, background: Tensor, foreground: Tensor, negative: Tensor) -> PairLoss:
    """Balanced log loss of pair affinities; a kind of pair that does not occur adds nothing.

    Args:
        affinity: In (0, 1], any shape; sums run over the whole batch.
        background: Bool, same shape: pairs inside the background.
        foreground: Bool, same shape: pairs inside one class.
        negative: Bool, same shape: pairs across classes.
    """
    near = -torch.log(affinity + _EPSILON)
    far = -torch.log(1.0 + _EPSILON - affinity)
    parts = [
        (mask * values).sum() / (mask.sum() + _EPSILON)
        for mask, values in ((background, near), (foreground, near), (negative, far))
    ]
    return PairLoss(parts[0] / 4 + parts[1] / 4 + parts[2] / 2, *parts)

"""Supervision of pairs: same class pulled to 1, different classes pushed to 0."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["pair_loss"]


def pair_loss(affinity: Tensor, labels: Tensor, bias: bool = False) -> Tensor:
    """Half the mean distance of positive pairs to 1 plus half the mean of negative pairs.

    0.5 * sum_pos(1 - a) / (n_pos + 1) + 0.5 * sum_neg(a) / (n_neg + 1), sums and counts over all images
    together. The two + 1 come from the code of AFA, ToCo and AReAM; the papers leave them out.

    Args:
        affinity: Pair affinities in [0, 1], (..., B, N, N); leading axes (layers) are kept.
        labels: 1 same class, 0 different, anything else does not count, (B, N, N).
        bias: ToCo's and MoRe's form 0.5 * (1 - sum_pos(a) / (n_pos + 1)) + ...: the value is larger by
            0.5 / (n_pos + 1), the gradient is the same.

    Returns:
        Loss of shape (...), a scalar without leading axes; 0 (0.5 with `bias`) if no pair counts.

    Raises:
        ValueError: The last three axes of `affinity` differ from `labels`.
    """
    if affinity.shape[-3:] != labels.shape:
        raise ValueError(
            f"affinity (..., B, N, N) must end like labels, got {tuple(affinity.shape)} "
            f"and {tuple(labels.shape)}"
        )
    positive, negative = labels == 1, labels == 0
    num_positive, num_negative = positive.sum() + 1, negative.sum() + 1
    axes = (-3, -2, -1)
    far = torch.where(positive, 1 - affinity, 0).sum(dim=axes) + float(bias)
    near = torch.where(negative, affinity, 0).sum(dim=axes)
    return 0.5 * far / num_positive + 0.5 * near / num_negative

"""Losses on label maps."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["balanced_cross_entropy", "mean_cross_entropy"]


def balanced_cross_entropy(
    logits: Tensor, labels: Tensor, epsilon: float = 1e-6, ignore_index: int = 255
) -> Tensor:
    """Mean cross entropy of background pixels and of foreground pixels, averaged half and half.

    Counts run over the whole batch. A part without pixels contributes 0, so that a crop whose pseudo label
    is all ignore gives a loss of 0 with zero gradient, never NaN (SeCo, MoRe; ToCo and AFA divide by 0).

    Args:
        logits: (B, C, H, W), background first.
        labels: Label map of the same size, int64, (B, H, W).
        epsilon: Added to both counts.
        ignore_index: Label that takes no part.

    Returns:
        Scalar, computed in float32.

    Raises:
        ValueError: If the sizes differ.
    """
    if logits.shape[2:] != labels.shape[1:]:
        raise ValueError(
            f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} differ in size; resize the logits"
        )
    per_pixel = F.cross_entropy(logits.float(), labels, ignore_index=ignore_index, reduction="none")
    background = labels == 0
    foreground = (labels != 0) & (labels != ignore_index)
    parts = [(per_pixel * part).sum() / (part.sum() + epsilon) for part in (background, foreground)]
    return (parts[0] + parts[1]) / 2


def mean_cross_entropy(logits: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
    """Mean cross entropy of the labelled pixels of a batch; 0 with zero gradient if there is none.

    Args:
        logits: (B, C, H, W), background first.
        labels: Label map of the same size, int64, (B, H, W).
        ignore_index: Label that takes no part.

    Returns:
        Scalar, computed in float32.
    """
    total = F.cross_entropy(logits.float(), labels, ignore_index=ignore_index, reduction="sum")
    return total / (labels != ignore_index).sum().clamp(min=1)

"""Losses on image-level labels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["multilabel_soft_margin"]


def multilabel_soft_margin(logits: Tensor, tags: Tensor) -> Tensor:
    """Binary cross entropy of every class, averaged over classes and batch.

    Args:
        logits: Class logits, (B, K).
        tags: 1 for classes in the image, 0 for others, (B, K).

    Returns:
        Scalar, computed in float32.
    """
    return F.multilabel_soft_margin_loss(logits.float(), tags.float())

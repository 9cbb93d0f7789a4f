"""What a backbone gives back. RGB in [0, 1] comes in; normalisation happens inside, nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "TokenFeatures", "recomputed"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class TokenFeatures:
    """Tokens of a vision transformer.

    Attributes:
        class_tokens: (B, K, D) after the last block (normed or not as asked).
        patches: (B, D, h, w) patch tokens as a map.
        hidden: Residual stream after chosen blocks, {block index: (B, T, D)}, prefix tokens included.
        scores: Scaled attention scores before softmax of chosen blocks, {block index: (B, A, T, T)}.
        grid: (h, w).
    """

    class_tokens: Tensor
    patches: Tensor
    grid: tuple[int, int]
    hidden: dict[int, Tensor] = field(default_factory=dict)
    scores: dict[int, Tensor] = field(default_factory=dict)


def recomputed(wanted: bool, block: Callable[..., Any], *inputs: Any) -> Any:
    """``block(*inputs)``; if `wanted`, what is inside is dropped and computed again for the gradient.

    Random parts draw the same numbers the second time, so values and gradients do not change.
    """
    if wanted and torch.is_grad_enabled():
        return checkpoint(block, *inputs, use_reentrant=False)
    return block(*inputs)

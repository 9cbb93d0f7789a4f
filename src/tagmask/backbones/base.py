"""What a backbone gives back. RGB in [0, 1] comes in; normalisation happens inside, nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "TokenFeatures"]

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

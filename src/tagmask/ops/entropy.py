"""How spread out a map becomes when a block's attention moves it (AReAM, arXiv 2305.03112, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["entropy_weights", "refined_entropy"]


def refined_entropy(maps: Tensor, tags: Tensor, attention: Tensor, epsilon: float = 0.0) -> Tensor:
    """Entropy in bits of an image's class maps after one step along patch attention.

    The maps of the present classes are refined, summed, and turned into a distribution over the patches by a
    softmax. A uniform result, log2(N) bits, says that the attention has lost the object.

    Args:
        maps: Class maps, (B, K, h, w).
        tags: Present classes, (B, K).
        attention: Patch attention of one block, head mean after softmax, (B, N, N).
        epsilon: Added inside the logarithm (AReAM on Conformer: 1e-6).

    Returns:
        (B,), in [0, log2(N)].
    """
    present = torch.einsum("bkn,bk->bn", maps.flatten(2), tags.to(maps.dtype))
    probs = torch.einsum("bij,bj->bi", attention, present).softmax(1)
    if epsilon:
        return -(probs * torch.log2(probs + epsilon)).sum(1)
    nats: Tensor = torch.special.entr(probs).sum(1)
    return nats / math.log(2)


def entropy_weights(entropy: Sequence[float]) -> tuple[float, ...]:
    """Entropies shifted and scaled so that the smallest is 0 and the largest 1.

    Args:
        entropy: Mean entropy per block, in bits.

    Returns:
        One weight per block; all 0 if the entropies are equal.
    """
    low = min(entropy)
    span = max(value - low for value in entropy)
    return tuple((value - low) / span if span else 0.0 for value in entropy)

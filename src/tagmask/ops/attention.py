"""Maps and affinities read from class tokens, patch tokens and attention."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["attend_maps", "class_patch_similarity", "class_to_patch", "patch_to_patch"]


def class_patch_similarity(class_tokens: Tensor, patches: Tensor) -> Tensor:
    """Localization attention maps (LAM): dot product of every class token with every patch token.

    Neither side is normalised and negatives stay (MoRe, AAAI 2025).

    Args:
        class_tokens: (B, K, D).
        patches: Patch tokens as a map, (B, D, h, w).

    Returns:
        (B, K, h, w).
    """
    return torch.einsum("bkd,bdhw->bkhw", class_tokens, patches)


def class_to_patch(attention: Tensor, num_prefix: int, num_classes: int, grid: tuple[int, int]) -> Tensor:
    """What class tokens see of the patches, as maps.

    Args:
        attention: Scores or probabilities, (B, A, T, T), or without heads (B, T, T).
        num_prefix: P, tokens in front of the patches; the class tokens are the last of them.
        num_classes: Number of class tokens.
        grid: (h, w) of the patches.

    Returns:
        (B, A, K, h, w), or (B, K, h, w).
    """
    rows = attention[..., num_prefix - num_classes : num_prefix, num_prefix:]
    return rows.reshape(*rows.shape[:-1], *grid)


def patch_to_patch(attention: Tensor, num_prefix: int) -> Tensor:
    """The patch part of attention, (..., N, N), from (..., T, T) with P prefix tokens."""
    return attention[..., num_prefix:, num_prefix:]


def attend_maps(maps: Tensor, seen: Tensor, affinity: Tensor) -> Tensor:
    """Class maps weighted by what their class token sees, then spread along patch-to-patch attention.

    The geometric mean of both kinds of evidence (MCTformer+), then one step of a walk whose rows sum to 1.

    Args:
        maps: Class maps, not negative, (B, K, h, w).
        seen: Attention of class tokens to patches, not negative, (B, K, h, w).
        affinity: Attention of patches to patches, not negative, (B, N, N).

    Returns:
        (B, K, h, w), float32.
    """
    with torch.autocast(maps.device.type, enabled=False):
        weighed = (maps.float() * seen.float().sqrt()).flatten(2)
        steps = affinity.float()
        steps = steps / steps.sum(2, keepdim=True)
        return (weighed @ steps.transpose(1, 2)).view_as(maps)

"""Weights for attention heads, estimated from what their blocks wrote (WeakTr's adaptive fusion)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["AttentionFusion", "fuse_attention", "grouped_pool"]


class AttentionFusion(nn.Module):
    """One weight in (0, 1) per attention map of an image.

    Args:
        num_maps: Blocks times heads.
        dim: Features per map.
        reduction: How much narrower the hidden layer over all maps is.
        feature_reduction: How much narrower the hidden layer over one map's features is.
    """

    def __init__(self, num_maps: int, dim: int, reduction: int = 8, feature_reduction: int = 8) -> None:
        super().__init__()
        hidden = max(num_maps // reduction, 1)
        self.attn_head_ffn = nn.Sequential(
            nn.Linear(num_maps, hidden, bias=False),
            nn.ReLU(),
            nn.Linear(hidden, num_maps, bias=False),
            nn.Sigmoid(),
        )
        narrow = max(dim // feature_reduction, 1)
        self.attn_feat_ffn = nn.Sequential(nn.Linear(dim, narrow), nn.Linear(narrow, 1))

    def forward(self, pooled: Tensor) -> Tensor:
        """Weights (B, num_maps) from pooled features (B, num_maps, dim), head-major and block-minor."""
        weights: Tensor = self.attn_head_ffn(self.attn_feat_ffn(pooled).squeeze(2))
        return weights


def grouped_pool(tokens: Tensor, num_groups: int, pooling: str = "max") -> Tensor:
    """Features of a block pooled over its tokens and dealt out to groups that stand for its heads.

    Channel ``d * num_groups + g`` goes to group g. The heads themselves hold consecutive channels, and the
    output projection has mixed them anyway; the published weights depend on this split.

    Args:
        tokens: Output of the attention branch, (B, T, D).
        num_groups: Number of heads.
        pooling: "max" or "mean" over the tokens.

    Returns:
        (B, num_groups, D / num_groups).

    Raises:
        ValueError: The pooling is unknown.
    """
    if pooling not in ("max", "mean"):
        raise ValueError(f"pooling must be 'max' or 'mean', got '{pooling}'")
    values = tokens.amax(1) if pooling == "max" else tokens.mean(1)
    return values.reshape(values.shape[0], -1, num_groups).transpose(1, 2)


def fuse_attention(weights: Tensor, blocks: Sequence[Tensor]) -> Tensor:
    """Mean of all attention maps, each times its weight: one matrix product per block, no copy of the maps.

    Args:
        weights: (B, A * L), head-major and block-minor, as `AttentionFusion` gives them.
        blocks: Attention of the L blocks, (B, A, T, T) each.

    Returns:
        (B, T, T); the weights are not normalised by their sum.
    """
    batch, heads, count, _ = blocks[0].shape
    shares = weights.reshape(batch, heads, len(blocks)) / weights.shape[1]
    total = blocks[0].new_zeros(batch, 1, count * count)
    # Fused values are near 1e-3 and are multiplied again: autocast must not round them to half precision.
    with torch.autocast(total.device.type, enabled=False):
        for index, probs in enumerate(blocks):
            total = torch.baddbmm(total, shares[:, None, :, index].to(probs.dtype), probs.flatten(2))
    return total.reshape(batch, count, count)

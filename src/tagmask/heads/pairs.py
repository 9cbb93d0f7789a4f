"""Pair affinity learned from the attention of several blocks (AFA, Ru et al., CVPR 2022)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["PairAffinity"]


class PairAffinity(nn.Module):
    """Weighted sum of unscaled attention scores over all heads, made symmetric, through a sigmoid.

    The parameters are those of a 1x1 convolution over heads, under its names and shapes.

    Args:
        num_heads: Attention heads of all blocks read together.
    """

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, num_heads, 1, 1))
        self.bias = nn.Parameter(torch.empty(1))
        nn.init.kaiming_normal_(self.weight, a=math.sqrt(5), mode="fan_out")
        bound = 1 / math.sqrt(num_heads)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, attention: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """Affinities in (0, 1), float32, symmetric.

        Args:
            attention: Queries and keys per block, each (B, A, N, d); heads in the order of the weights.

        Returns:
            (B, N, N).
        """
        return self.logits(attention).sigmoid()

    def logits(self, attention: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """Affinities before the sigmoid, float32, (B, N, N)."""
        pairs = list(attention)
        # Scores reach +-50 and pass through a sigmoid: half precision would be off by tenths.
        with torch.autocast(self.weight.device.type, enabled=False):
            query = torch.cat([q for q, _ in pairs], dim=1).float()
            key = torch.cat([k for _, k in pairs], dim=1).float()
            # Weighting the queries and multiplying all heads at once gives the weighted sum of their score
            # maps without ever holding one map per head.
            weighted = query * self.weight.view(1, -1, 1, 1)
            scores = weighted.transpose(1, 2).flatten(2) @ key.transpose(1, 2).flatten(2).transpose(1, 2)
            return scores + scores.transpose(1, 2) + self.bias

"""Graph category representation (GCR): class tokens exchange messages with patches (MoRe, AAAI 2025)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["GraphRepresentation", "NeighbourWeight"]

NeighbourWeight = Literal["sum_product", "dot"]

_RESIDUAL = 0.1


class GraphRepresentation(nn.Module):
    """Class tokens enriched with the tokens they resemble most.

    Every class token looks at all class and patch tokens, keeps the best ``floor(keep * K)`` of them (at
    least one) as neighbours, and is mixed with their gated sum. No gradient reaches the patch tokens.

    Args:
        dim: D, width of the tokens.
        keep: Neighbours per class token as a share of K.
        weight: How a neighbour is weighted: "sum_product" multiplies the sum over the neighbour's channels by
            the sum over the gate's, as the released code does; "dot" is their dot product, its evident
            intention.
    """

    def __init__(self, dim: int, keep: float = 0.5, weight: NeighbourWeight = "sum_product") -> None:
        super().__init__()
        self.keep, self.weight = keep, weight
        self.head_proj = nn.Linear(dim, dim)
        self.tail_proj = nn.Linear(dim, dim)
        self.linear1 = nn.Linear(dim, dim)
        self.linear2 = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, class_tokens: Tensor, patch_tokens: Tensor) -> Tensor:
        """Class tokens (B, K, D) and patch tokens (B, N, D) to class tokens (B, K, D)."""
        head = self.head_proj(class_tokens)
        tail = self.tail_proj(torch.cat([class_tokens, patch_tokens.detach()], dim=1))
        scores, index = self.neighbours(head, tail)
        message = self._message(head, tail, scores, index)
        added = self.linear1(_RESIDUAL * (head + message) + class_tokens)
        multiplied = self.linear2(_RESIDUAL * head * message + class_tokens)
        result: Tensor = self.norm(F.leaky_relu(added) + F.leaky_relu(multiplied))
        return result

    def neighbours(self, head: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
        """The most similar tokens of every class token.

        Args:
            head: Projected class tokens, (B, K, D).
            tail: Projected class and patch tokens, (B, K + N, D).

        Returns:
            Scores and token indices, both (B, K, k), best first.
        """
        scores = (head * head.shape[2] ** -0.5) @ tail.transpose(1, 2)
        best = scores.topk(max(int(self.keep * head.shape[1]), 1), dim=2)
        return best.values, best.indices

    def _message(self, head: Tensor, tail: Tensor, scores: Tensor, index: Tensor) -> Tensor:
        batch = torch.arange(tail.shape[0], device=tail.device)[:, None, None]
        neighbours = tail[batch, index]
        share = scores.softmax(2)[..., None]
        own = head[:, :, None]
        gate = torch.tanh(own + (1 - share) * own + share * neighbours)
        if self.weight == "dot":
            weights = (neighbours * gate).sum(3)
        else:
            weights = neighbours.sum(3) * gate.sum(3)
        return (weights.softmax(2)[..., None] * neighbours).sum(2)

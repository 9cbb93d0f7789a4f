"""Sums of attention over blocks, taken while a backbone runs, so that no block's attention is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

__all__ = ["AttentionSums", "Part"]


@dataclass(frozen=True)
class Part:
    """One weighted sum.

    Attributes:
        weights: One per block whose scores come in, in their order; blocks of weight 0 cost nothing.
        select: What to take of the head mean, (B, T, T) to (B, ...).
    """

    weights: Sequence[float]
    select: Callable[[Tensor], Tensor]


class AttentionSums:
    """Weighted sums over blocks of the head mean of attention after softmax.

    Give it to a backbone as `reduce`, or its `visit` to one that takes that and saves a second softmax, and
    read `totals` afterwards. Serves one forward pass.

    Args:
        **parts: Named sums.
    """

    def __init__(self, **parts: Part) -> None:
        self._parts = parts
        self._block = 0
        self.totals: dict[str, Tensor] = {}

    def __call__(self, scores: Tensor) -> Tensor:
        """Add one block's scaled scores before softmax, (B, A, T, T); returns nothing worth keeping."""
        self.visit(self._block, scores.softmax(-1))
        self._block += 1
        return scores.new_empty(0)

    def visit(self, block: int, attention: Tensor, branch: Tensor | None = None) -> None:
        """Add one block's attention after the softmax, (B, A, T, T).

        Args:
            block: Which one, from 0.
            attention: Its attention.
            branch: What the attention gave; not looked at.
        """
        mean = attention.mean(1)
        for name, part in self._parts.items():
            weight = part.weights[block]
            if weight == 0:
                continue
            share = part.select(mean) * weight
            self.totals[name] = self.totals[name] + share if name in self.totals else share

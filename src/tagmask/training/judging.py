"""Whether a model that learned is better: what it says about masks held back, picture by picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tagmask.metrics.confusion import ConfusionMatrix

__all__ = ["Counts", "allowed_labels", "best_share", "counted", "within"]

Counts = NDArray[np.float64]
"""(n, C, C): of every picture how many pixels of a label, in rows, were called what."""

_DRAWS = 400
_SURE = 0.25
_IMPOSSIBLE = -1e4


def allowed_labels(labels: int, tags: Sequence[int] | None, mask: NDArray[np.uint8]) -> Tensor:
    """Which labels an image may have, bool (C,): all without tags, else the background and what is tagged.

    Args:
        labels: C, the background included.
        tags: 0-based classes.
        mask: Labels that a person drew; they may win whatever the tags say.
    """
    if tags is None:
        return torch.ones(labels, dtype=torch.bool)
    known = [0, *(key + 1 for key in tags), *np.unique(mask).tolist()]
    return torch.isin(torch.arange(labels), torch.tensor(known))


def within(logits: Tensor, allowed: Tensor) -> Tensor:
    """Logits (B, C, H, W) in which labels that are not allowed, by (B, C), cannot win."""
    return logits.masked_fill(~allowed[:, :, None, None], _IMPOSSIBLE)


def counted(preds: Tensor, target: Tensor, labels: int) -> Counts:
    """Counts of one picture, (1, C, C)."""
    matrix = ConfusionMatrix(labels)
    matrix.update(preds=preds.cpu(), target=target.cpu())
    return matrix.counts.numpy().astype(np.float64)[None]


def mean_ious(counts: Counts) -> NDArray[np.float64]:
    """Mean IoU of every one of (R, C, C) counts, over the labels in its truth; not a number without any."""
    hit, truth = np.diagonal(counts, axis1=1, axis2=2), counts.sum(2)
    union = truth + counts.sum(1) - hit
    ious = np.divide(hit, union, out=np.zeros_like(hit), where=union > 0)
    found = (truth > 0).sum(1)
    total = np.where(truth > 0, ious, 0).sum(1)
    means: NDArray[np.float64] = np.divide(total, found, out=np.full(len(counts), np.nan), where=found > 0)
    return means


def best_share(
    old: Sequence[Counts], new: Mapping[float, Sequence[Counts]], needed: float, seed: int
) -> tuple[float, float, float, bool]:
    """How far to go from the old weights to the new ones.

    A few pictures say little about others. So they are drawn again and again with replacement (Efron and
    Tibshirani, "An Introduction to the Bootstrap", 1993): the share is that whose gain is largest in the
    lower quarter of the draws, and it must be a gain even there.

    Args:
        old: Counts of the old model, of every picture.
        new: For every share those of the new one, of the same pictures in the same order.
        needed: Gain in mean IoU that counts as one.
        seed: Of the draws.

    Returns:
        Mean IoU before and after, the share, and whether that is better.
    """
    before = np.concatenate(old)
    count = len(before)
    draws = np.random.default_rng((seed, 5)).multinomial(count, np.full(count, 1 / count), _DRAWS)

    def scores(counts: Counts) -> tuple[float, NDArray[np.float64]]:
        every = np.tensordot(draws, counts, 1)
        return float(mean_ious(counts.sum(0, keepdims=True))[0]), mean_ious(every)

    was, drawn = scores(before)
    best = -np.inf, was, min(new)
    for share, parts in new.items():
        now, others = scores(np.concatenate(parts))
        low = float(np.nanquantile(others - drawn, _SURE)) if now == now else -np.inf
        best = max(best, (low, now, share))
    low, now, share = best
    if not np.isfinite(low):
        return was, float("nan"), share, False
    return was, now, share, low > 0 and now >= was + needed

"""How well image-level tags are predicted."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["average_precision", "mean_average_precision", "multilabel_f1"]


def multilabel_f1(truth: Tensor, predicted: Tensor) -> Tensor:
    """F1 of each image's tags: 2 TP / (2 TP + FP + FN), 0 where neither has any.

    The mean over images is what MoRe and AFA log; it is neither the micro nor the macro F1 of the set.

    Args:
        truth: (B, K), above 0 = tagged.
        predicted: (B, K) logits or 0/1 decisions, above 0 = predicted.

    Returns:
        (B,) float64.

    Raises:
        ValueError: The shapes differ.
    """
    _same_shape(truth, predicted)
    t, p = truth > 0, predicted > 0
    hits = 2.0 * (t & p).sum(dim=1).double()
    total = (t.sum(dim=1) + p.sum(dim=1)).double()
    return torch.where(total > 0, hits / total.clamp(min=1), torch.zeros_like(hits))


def average_precision(truth: Tensor, scores: Tensor) -> Tensor:
    """Area under the precision-recall steps of each row; equal scores count as one step.

    Args:
        truth: (R, N), above 0 = positive.
        scores: (R, N), higher = more positive.

    Returns:
        (R,) float64, NaN for rows without positives.

    Raises:
        ValueError: The shapes differ.
    """
    _same_shape(truth, scores)
    order = scores.argsort(dim=1, descending=True, stable=True)
    ranked, hits = scores.gather(1, order), (truth > 0).gather(1, order).double()
    found = hits.cumsum(1)
    precision = found / torch.arange(1, hits.shape[1] + 1, device=hits.device)
    # Inside a run of equal scores only its end is a real operating point, so all of it gets that precision.
    ends = torch.ones_like(hits, dtype=torch.bool)
    ends[:, :-1] = ranked[:, 1:] != ranked[:, :-1]
    places = torch.arange(hits.shape[1], device=hits.device).expand_as(hits)
    after = torch.where(ends, places, hits.shape[1]).flip(1).cummin(1).values.flip(1)
    return (hits * precision.gather(1, after)).sum(1) / found[:, -1]


def mean_average_precision(truth: Tensor, scores: Tensor, over: str = "classes") -> float:
    """Mean average precision of predicted tags.

    Args:
        truth: (B, K), above 0 = tagged.
        scores: (B, K), higher = more likely.
        over: "classes" ranks the images for each class (the usual mAP; classes without images are left
            out); "images" ranks the classes of each image (AReAM; images without tags are left out).

    Returns:
        The mean, NaN if nothing is left.

    Raises:
        ValueError: The shapes differ or `over` is another word.
    """
    if over not in ("classes", "images"):
        raise ValueError(f"over must be 'classes' or 'images', got '{over}'")
    rows = (truth, scores) if over == "images" else (truth.T, scores.T)
    return float(average_precision(*rows).nanmean())


def _same_shape(truth: Tensor, predicted: Tensor) -> None:
    if truth.ndim != 2 or truth.shape != predicted.shape:
        raise ValueError(
            f"need two tables of one shape, got {tuple(truth.shape)} and {tuple(predicted.shape)}"
        )

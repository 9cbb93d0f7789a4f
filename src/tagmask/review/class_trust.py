"""What the checked masks say of every class: sums over the whole set.

What the mask covers is known of every image; what of it is right, and how much of the object it covers,
follows from the model's own probabilities, shifted on the logistic scale by what the checked masks say over
all classes, and drawn towards what they say of the class itself where they show enough of it (a ratio
estimator of survey sampling, shrunk). The interval comes from bootstrap draws of the checked masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tagmask.review.queue import Row
from tagmask.types import IGNORE

__all__ = ["ClassTrust", "Overlap", "class_trust", "compare"]

_LEVEL = 0.9
_DRAWS = 200
_PRIOR = 4.0
"""How many images of a class weigh as much as what is known of all classes."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Overlap:
    """A mask beside the one that a person accepted or mended.

    Attributes:
        iou: Mean IoU over the labels that either shows, the background included.
        areas: Label (0 background, k + 1 class k) to its shares of the known pixels: in both, in the mask, in
            the person's.
    """

    iou: float
    areas: Mapping[int, tuple[float, float, float]]


@dataclass(frozen=True)
class ClassTrust:
    """What is expected of one label over the whole set.

    Attributes:
        label: 0 background, k + 1 class k.
        iou: Predicted IoU, 0 to 1; not a number if neither masks nor checks show it.
        low: Lower end of the interval.
        high: Upper end.
        checked: How many checked images show it.
        unseen: Predicted IoU over the images that nobody checked, alone.
    """

    label: int
    iou: float
    low: float
    high: float
    checked: int
    unseen: float = float("nan")


def compare(mask: NDArray[np.uint8], truth: NDArray[np.uint8]) -> Overlap:
    """How far a mask agrees with the one that a person accepted or mended.

    Args:
        mask: (H, W), 0 background, k + 1 class k.
        truth: The same, 255 where nobody knows.

    Raises:
        ValueError: They differ in size.
    """
    if mask.shape != truth.shape:
        raise ValueError(f"the masks are {mask.shape} and {truth.shape}")
    known = (truth != IGNORE) & (mask != IGNORE)
    a, b = mask[known], truth[known]
    both, first, second = (np.bincount(values, minlength=256) for values in (a[a == b], a, b))
    union, total = first + second - both, max(int(known.sum()), 1)
    shown = np.flatnonzero(union)
    iou = float((both[shown] / union[shown]).mean()) if len(shown) else float("nan")
    areas = {int(k): (both[k] / total, first[k] / total, second[k] / total) for k in shown}
    return Overlap(iou, areas)


def class_trust(
    rows: Sequence[Row], known: Sequence[int], overlaps: Sequence[Overlap], num_classes: int, seed: int
) -> tuple[ClassTrust, ...]:
    """What is expected of every label over the whole set, see the module's description.

    Args:
        rows: The images.
        known: Places of the checked ones.
        overlaps: What was found of them.
        num_classes: K.
        seed: Of the bootstrap draws.
    """
    labels = range(num_classes + 1)
    sums = np.zeros((len(known), num_classes + 1, 3))
    for place, overlap in enumerate(overlaps):
        for label, shares in overlap.areas.items():
            if label <= num_classes:
                sums[place, label] = shares
    own = np.array([_expected(row, num_classes) for row in rows])
    rest = np.ones(len(rows), bool)
    rest[list(known)] = False
    rng = np.random.default_rng(seed)
    everyone = np.arange(len(known))
    best, unseen = _class_ious(sums, own[known], own[rest].sum(0), everyone)
    draws = [
        _class_ious(sums, own[known], own[rest].sum(0), rng.choice(everyone, len(known)))[0]
        for _ in range(_DRAWS)
    ]
    values = np.where(np.isnan(draws), best, np.array(draws))
    low, high = np.quantile(values, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2], axis=0)
    counts = (sums[..., 1:].sum(2) > 0).sum(0)
    return tuple(
        ClassTrust(
            k,
            float(best[k]),
            float(min(low[k], best[k])),
            float(max(high[k], best[k])),
            int(counts[k]),
            float(unseen[k]),
        )
        for k in labels
    )


def _expected(row: Row, num_classes: int) -> list[tuple[float, float, float]]:
    """What the model's probabilities say of every label: share that is right, in the mask, in the truth."""
    areas = {key + 1: area for key, area in row.areas.items()}
    areas[0] = max(1 - sum(areas.values()), 0.0)
    found = []
    for label in range(num_classes + 1):
        area = areas.get(label, 0.0)
        hit, mass = row.expected.get(label, (0.8 * area, area))
        found.append((hit, area, mass))
    return found


def _class_ious(sums: Floats, own: Floats, rest: Floats, drawn: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """IoU of every label, (C,): measured on the drawn checks and expected of the rest; of the rest alone.

    Args:
        sums: Of the checked images and labels, (n, C, 3): share in both, in the mask, in the truth.
        own: What the model expected there, (n, C, 3).
        rest: What it expects of all other images together, (C, 3).
        drawn: Which checks count.
    """
    seen, said = sums[drawn].sum(0), own[drawn].sum(0)
    size = (sums[drawn, :, 1] + sums[drawn, :, 2]).sum(0) / 2
    images = (sums[drawn][..., 1:].sum(2) > 0).sum(0)
    prior = _PRIOR * size / np.maximum(images, 1)
    right = _shifted(seen[:, 0], seen[:, 1], said[:, 0], said[:, 1], rest[:, 0], rest[:, 1], prior)
    covered = _shifted(seen[:, 0], seen[:, 2], said[:, 0], said[:, 2], rest[:, 0], rest[:, 2], prior)
    hit = right * rest[:, 1]
    truth = hit / np.maximum(covered, 1e-6)
    both = seen[:, 0] + hit
    union = seen[:, 1] + seen[:, 2] - seen[:, 0] + rest[:, 1] + truth - hit
    return _ratio(both, union), _ratio(hit, rest[:, 1] + truth - hit)


def _ratio(both: Floats, union: Floats) -> Floats:
    ious: Floats = np.where(union > 1e-9, both / np.maximum(union, 1e-9), np.nan)
    return ious


def _shifted(
    hit: Floats,
    area: Floats,
    said_hit: Floats,
    said_area: Floats,
    hit_rest: Floats,
    area_rest: Floats,
    prior: Floats,
) -> Floats:
    """A share (precision or recall) of the rest, by class.

    The model's own share is shifted by one amount for all classes, then mixed with what was measured of the
    class: `prior` is the area that the former counts as.
    """
    measured, claimed = (
        _logit(hit.sum() / max(area.sum(), 1e-9)),
        _logit(said_hit.sum() / max(said_area.sum(), 1e-9)),
    )
    shift = measured - claimed
    here, there = (
        _logit(a / np.maximum(b, 1e-9)) + shift for a, b in ((said_hit, said_area), (hit_rest, area_rest))
    )
    # The class's own deviation from that, weighed by how much of it was seen.
    own = _logit(hit / np.maximum(area, 1e-9)) - here
    weight = area / np.maximum(area + prior, 1e-9)
    share: Floats = 1 / (1 + np.exp(-(there + weight * own)))
    return share


def _logit(share: Floats | float) -> Floats:
    clipped = np.clip(share, 0.005, 0.995)
    value: Floats = np.log(clipped / (1 - clipped))
    return value

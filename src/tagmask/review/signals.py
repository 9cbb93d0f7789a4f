"""Signals of one image that need no true mask. Each is in [0, 1]; higher means more doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tagmask.types import IGNORE

__all__ = ["Evidence", "agreement", "border_entropy", "expected_iou", "expected_shares", "shares", "signals"]

BORDER = 3
"""Pixels on both sides of a border whose entropy is looked at."""
SPECK = 0.001
"""A class with a smaller share of the image counts as absent."""

Labels = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Evidence:
    """What is known about the mask of one image.

    Attributes:
        mask: The mask in question, (H, W) uint8, 0 background, k + 1 class k.
        opinions: Other label images by name ("cam", "lam", "label"), (H, W) uint8, 255 undecided.
        probabilities: Probability of every label, (K + 1, H, W); None if the method does not segment.
        tags: 0-based classes that somebody tagged; None if nobody did.
    """

    mask: Labels
    opinions: Mapping[str, Labels]
    probabilities: Floats | None
    tags: Sequence[int] | None


def signals(evidence: Evidence) -> dict[str, float]:
    """All signals that the evidence allows.

    Returns:
        "cam", "lam", "label", ...: 1 - agreement of the mask with that opinion. "overlap": 1 - expected IoU.
        "borders": entropy near borders. "missing": share of the tags without pixels. "untagged": share of the
        object pixels whose class is not tagged.
    """
    found = {name: 1 - agreement(evidence.mask, other) for name, other in evidence.opinions.items()}
    if evidence.probabilities is not None:
        found["overlap"] = 1 - expected_iou(evidence.mask, evidence.probabilities)
        found["borders"] = border_entropy(evidence.mask, evidence.probabilities)
    if evidence.tags is not None:
        areas = shares(evidence.mask)
        tagged = set(evidence.tags)
        lost = [key for key in tagged if areas.get(key, 0.0) < SPECK]
        found["missing"] = len(lost) / max(len(tagged), 1)
        total = sum(areas.values())
        strange = sum(share for key, share in areas.items() if key not in tagged)
        found["untagged"] = strange / total if total >= SPECK else 0.0
    return found


def shares(mask: Labels) -> dict[int, float]:
    """0-based class to its share of the pixels, for the classes in a mask."""
    counts = np.bincount(mask.reshape(-1), minlength=256)
    return {k - 1: float(counts[k]) / mask.size for k in np.flatnonzero(counts).tolist() if 0 < k < IGNORE}


def agreement(first: Labels, second: Labels) -> float:
    """Mean IoU of two label images over the classes that either shows, background left out.

    Pixels undecided (255) in either count nowhere.

    Returns:
        0 to 1; 1 if neither shows a class.
    """
    counted = (first != IGNORE) & (second != IGNORE)
    a, b = first[counted], second[counted]
    both = np.bincount(a[a == b], minlength=256)
    union = np.bincount(a, minlength=256) + np.bincount(b, minlength=256) - both
    present = np.flatnonzero(union[1:]) + 1
    return float((both[present] / union[present]).mean()) if len(present) else 1.0


def expected_iou(mask: Labels, probabilities: Floats) -> float:
    """IoU that a mask would have on average if its pixels' labels were drawn from the probabilities.

    A class's expected intersection over its expected union, averaged over the classes in the mask and the
    background.

    Args:
        mask: (H, W) uint8.
        probabilities: (K + 1, H, W), adding up to 1.
    """
    found = []
    total = probabilities.sum((1, 2))
    for label in np.unique(mask[mask != IGNORE]).tolist():
        inside = mask == label
        hit = float(probabilities[label][inside].sum())
        found.append(hit / max(float(inside.sum()) + float(total[label]) - hit, 1e-9))
    return float(np.mean(found)) if found else 1.0


def expected_shares(mask: Labels, probabilities: Floats) -> dict[int, tuple[float, float]]:
    """What the probabilities say of a label: share of pixels that are right in the mask, and that show it.

    Args:
        mask: (H, W) uint8.
        probabilities: (K + 1, H, W), adding up to 1.
    """
    found = {}
    for label, plane in enumerate(probabilities):
        hit, mass = float(plane[mask == label].sum()) / mask.size, float(plane.sum()) / mask.size
        if mass > 1e-4:
            found[label] = (hit, mass)
    return found


def border_entropy(mask: Labels, probabilities: Floats) -> float:
    """Mean entropy of the label within `BORDER` pixels of the mask's borders; of all pixels if it has none.

    Returns:
        0 (certain) to 1 (all labels equally likely).
    """
    p = np.clip(probabilities, 1e-7, 1)
    entropy = -(p * np.log(p)).sum(0) / np.log(len(p))
    size = (2 * BORDER + 1,) * 2
    near = ndimage.maximum_filter(mask, size) != ndimage.minimum_filter(mask, size)
    return float((entropy[near] if near.any() else entropy).mean())

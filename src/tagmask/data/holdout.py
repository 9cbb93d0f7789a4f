"""Which images are held out for scoring tags where the data names no split."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from tagmask.data.base import Item

__all__ = ["FEWEST", "SHARE", "hold_out"]

SHARE = 0.1
"""Usual share of the tagged images."""
FEWEST = 50
"""Of fewer tagged images all are taught: a score of four images says nothing."""


def hold_out(items: Sequence[Item], share: float = SHARE, seed: int = 0) -> frozenset[str]:
    """Choose images to score tags on, the same ones every time, in about the same share of every class.

    The choice follows from the names: adding images to a data set moves few others to the other side. No
    class loses its last image to learn from, and images that nobody tagged are never chosen.

    Args:
        items: All images.
        share: Part of the tagged images, from 0 (none) to 0.5.
        seed: Another seed chooses other images.

    Returns:
        Names of the chosen images, ``round(share * tagged)`` of them unless classes are too small; none of
        fewer than `FEWEST` tagged images.
    """
    tagged = [item for item in items if item.tags is not None]
    if not share or len(tagged) < FEWEST:
        return frozenset()
    order = sorted(tagged, key=lambda item: hashlib.sha256(f"{seed}:{item.name}".encode()).digest())
    count = Counter(k for item in tagged for k in _groups(item))
    wanted = {k: round(share * n) for k, n in count.items()}
    left, kept, chosen = Counter(count), Counter[int](), dict[str, None]()

    def take(item: Item) -> None:
        if item.name not in chosen and all(left[k] > 1 for k in item.tags or ()):
            chosen[item.name] = None
            left.subtract(_groups(item))
            kept.update(_groups(item))

    # Rare classes first: what they need also counts for the others.
    for k, _ in sorted(count.items(), key=lambda pair: (pair[1], pair[0])):
        for item in order:
            if kept[k] < wanted[k] and k in _groups(item):
                take(item)
    total = round(share * len(tagged))
    for item in order:
        if len(chosen) < total:
            take(item)
    return frozenset(list(chosen)[:total])


def _groups(item: Item) -> tuple[int, ...]:
    """Classes of an image; those without any are a group of their own."""
    return item.tags or (-1,)

"""What the masks that a person accepted or mended say of those that nobody looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tagmask.review.class_trust import Overlap, compare
from tagmask.store.files import file_for
from tagmask.store.labels import read_mask
from tagmask.types import IGNORE

__all__ = ["CHECKED", "checked_masks", "overlap"]

CHECKED = Path("reviewed") / "masks"
"""Where the app keeps the masks that a person accepted or mended."""
_MARKED = 0.5


def overlap(mask: NDArray[np.uint8] | None, truth: NDArray[np.uint8]) -> Overlap | None:
    """A mask beside the one that a person kept; None where that says nothing about the whole mask.

    Strokes that leave most pixels unknown stand where the mask was wrong, so they are no draw of its pixels.

    Args:
        mask: The run's own, (H, W); None if it has none.
        truth: The kept one, 255 where nobody knows.
    """
    if mask is None or mask.shape != truth.shape or float((truth != IGNORE).mean()) < _MARKED:
        return None
    return compare(mask, truth)


def checked_masks(
    run: Path, names: Iterable[str], mask_of: Callable[[str], NDArray[np.uint8] | None]
) -> dict[str, Overlap]:
    """Every checked mask of a run beside the run's own, by name.

    Args:
        run: The run folder.
        names: Images to look for.
        mask_of: The run's own mask of an image.

    Raises:
        DataError: A mask is damaged.
    """
    found = {}
    for name in names:
        path = file_for(run / CHECKED, name, ".png")
        if path.is_file() and (seen := overlap(mask_of(name), read_mask(path))) is not None:
            found[name] = seen
    return found

"""Sizes of pictures: what is left of a shape when one of its sides is given."""

from __future__ import annotations

__all__ = ["fit_long_side", "fit_short_side"]


def fit_long_side(size: tuple[int, int], long: int) -> tuple[int, int]:
    """(height, width) scaled so that the longer side is `long`, rounded down.

    Args:
        size: (height, width) in pixels.
        long: Wanted longer side.
    """
    factor = long / max(size)
    return int(size[0] * factor), int(size[1] * factor)


def fit_short_side(size: tuple[int, int], short: int, long: int) -> tuple[int, int]:
    """(height, width) scaled so that the shorter side is `short`, unless the longer one would exceed `long`.

    Args:
        size: (height, width) in pixels.
        short: Wanted shorter side.
        long: Largest longer side.
    """
    factor = min(long / max(size), short / min(size))
    return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))

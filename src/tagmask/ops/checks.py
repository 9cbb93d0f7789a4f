"""Checks that several operations share."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["NotFiniteError", "require_finite", "require_unit"]

# Resampling and rounding may leave the range by a little; normalised images and grey levels leave it by far.
_SLACK = 0.05


class NotFiniteError(ValueError):
    """Values that must be finite are not."""


def require_finite(name: str, values: Tensor) -> None:
    """Refuse NaN and infinity, with one pass over the values and one wait for the device.

    Args:
        name: What the values are, for the message.
        values: Floating-point tensor of any shape.

    Raises:
        NotFiniteError: If a value is NaN or infinite.
    """
    if not values.numel():
        return
    low, high = torch.aminmax(values.detach())
    if not bool(torch.isfinite(high.float() - low.float())):
        raise NotFiniteError(f"{name} hold NaN or infinite values; every value must be finite")


def require_unit(name: str, values: Tensor) -> None:
    """Refuse NaN, infinity and values that are plainly not between 0 and 1, with one pass and one wait.

    Args:
        name: What the values are, for the message.
        values: Floating-point tensor of any shape.

    Raises:
        ValueError: If a value is not finite or is outside [0, 1] by more than rounding can explain.
    """
    if not values.numel():
        return
    low, high = (float(value) for value in torch.aminmax(values.detach()))
    if not math.isfinite(high - low):
        raise NotFiniteError(f"{name} hold NaN or infinite values; every value must be finite")
    if low < -_SLACK or high > 1 + _SLACK:
        raise ValueError(
            f"{name} must lie between 0 and 1, got {low:.3g} to {high:.3g}; undo a normalisation by mean and "
            "deviation, divide grey levels by 255"
        )

"""Checks that several operations share."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["require_finite"]


def require_finite(name: str, values: Tensor) -> None:
    """Refuse NaN and infinity, with one pass over the values and one wait for the device.

    Args:
        name: What the values are, for the message.
        values: Floating-point tensor of any shape.

    Raises:
        ValueError: If a value is NaN or infinite.
    """
    if not values.numel():
        return
    low, high = torch.aminmax(values.detach())
    if not bool(torch.isfinite(high.float() - low.float())):
        raise ValueError(f"{name} hold NaN or infinite values; every value must be finite")

"""NumPy arrays where tensors are meant: the public operations take either and give back the same."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["A", "Array", "like", "tensor"]

Array = Tensor | NDArray[Any]
A = TypeVar("A", Tensor, NDArray[Any])


def tensor(name: str, values: Array) -> Tensor:
    """The values as a tensor; no copy is made where none is needed.

    Args:
        name: What the values are, for the message.
        values: A tensor, or an array of any shape.

    Raises:
        TypeError: It is neither, or an array of something other than numbers.
    """
    if isinstance(values, Tensor):
        return values
    if not isinstance(values, np.ndarray):
        raise TypeError(f"{name} must be a PyTorch tensor or a NumPy array, got {type(values).__name__}")
    if values.dtype.kind not in "buif" or not values.dtype.isnative:
        raise TypeError(f"{name} must hold plain numbers, got an array of {values.dtype}")
    # PyTorch refuses steps backwards (a mirrored view) and warns about memory it must not write to.
    plain = np.ascontiguousarray(values)
    return torch.from_numpy(plain if plain.flags.writeable else plain.copy())


def like(given: A, result: Tensor) -> A:
    """The result as what was given: a tensor for a tensor, an array for an array."""
    return result if isinstance(given, Tensor) else result.detach().cpu().numpy()

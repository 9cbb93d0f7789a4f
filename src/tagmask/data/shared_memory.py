"""Whether batches of data workers fit into the memory through which they are handed over."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from tagmask.errors import DataError
from tagmask.types import Batch

__all__ = ["check_room", "check_shared_memory"]

_SHARED = Path("/dev/shm")
_AHEAD = 3
"""Batches of every worker on their way: PyTorch asks for two, and one is being used."""
_PLENTY = 8 << 30


def check_room(size: int, workers: int) -> None:
    """Refuse workers that would find no room: they are killed, and who waits for them may hang.

    Args:
        size: Bytes of a batch such as the workers will hand over, or less.
        workers: How many processes.

    Raises:
        DataError: There is too little shared memory.
    """
    free = _free()
    needed = _AHEAD * workers * size
    if free is not None and needed > free:
        raise DataError(
            f"{workers} data workers hand over {needed / 2**20:.1f} MiB or more at once through {_SHARED}, "
            f"which has {free / 2**20:.1f} MiB free. Set train.workers=0 to read in the main process, or "
            "give it more (docker run --shm-size=1g)"
        )


def check_shared_memory(sample: Callable[[], Batch | None], workers: int) -> None:
    """The same for a real batch.

    Args:
        sample: Makes a batch such as the workers will hand over; only called where memory is scarce.
        workers: How many processes.

    Raises:
        DataError: There is too little shared memory.
    """
    free = _free()
    if free is None or free >= _PLENTY:
        return
    batch = sample()
    tensors = [] if batch is None else [v for v in vars(batch).values() if isinstance(v, torch.Tensor)]
    check_room(sum(value.numel() * value.element_size() for value in tensors), workers)


def _free() -> int | None:
    """Bytes that are free; None where a system hands batches over in another way."""
    return shutil.disk_usage(_SHARED).free if _SHARED.is_dir() else None

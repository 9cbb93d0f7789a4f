"""Work in blocks that stay in the cache."""

from __future__ import annotations

import torch

__all__ = ["rows_per_block"]

# PyTorch splits an element-wise operation over threads from this many elements per thread on.
_PER_THREAD = 32_768
# Accelerators want large operations; the limit only bounds their temporary memory to 64 MB.
_ACCELERATOR = 16_000_000


def rows_per_block(floats_per_row: int, floats: int, device: torch.device) -> int:
    """How many rows to work on at a time.

    Args:
        floats_per_row: Size of one row of the largest temporary.
        floats: Wanted size of a block on one CPU thread.
        device: Where the work is done; accelerators take much larger blocks.

    Returns:
        At least 1.
    """
    limit = max(floats, _PER_THREAD * torch.get_num_threads()) if device.type == "cpu" else _ACCELERATOR
    return max(limit // max(floats_per_row, 1), 1)

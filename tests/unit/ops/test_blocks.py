from __future__ import annotations

import torch

from tagmask.ops.blocks import rows_per_block


def test_blocks_grow_with_threads_and_hold_a_row_at_least():
    cpu = torch.device("cpu")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert rows_per_block(100, 150_000, cpu) == 1500
        assert rows_per_block(10**9, 150_000, cpu) == 1
        assert rows_per_block(0, 150_000, cpu) > 0
        torch.set_num_threads(8)
        assert rows_per_block(100, 150_000, cpu) == 8 * 32_768 // 100
    finally:
        torch.set_num_threads(before)
    assert rows_per_block(100, 150_000, torch.device("cuda")) == 160_000

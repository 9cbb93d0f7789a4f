"""What the blocks of a plain ViT get beside their tokens: rotary angles, or a bias of their attention."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tagmask.ops.resize import resize_positions

__all__ = ["RelativeBias", "positions_of_blocks", "take_biases", "with_own_names"]

_TABLE, _OWN = "attn.relative_position_bias_table", "attn.relative.table"


class RelativeBias(nn.Module):
    """BEiT's bias of attention by the offset between two patches, for any patch grid and any class tokens.

    Args:
        table: (n, A) for A heads: (2h - 1)(2w - 1) offsets of a grid of h x w, query minus key, row-major;
            then what a class token adds to a patch, a patch to a class token, and class tokens to each other.
        grid: (h, w).
    """

    def __init__(self, table: nn.Parameter, grid: tuple[int, int]) -> None:
        super().__init__()
        self.table = table
        self.grid = grid

    def forward(self, grid: tuple[int, int], prefix: int) -> Tensor:
        """What is added to the scores of `prefix` tokens and a patch grid, (1, A, T, T)."""
        height, width = grid
        offsets = self.table[None, :-3]
        # An exported graph resamples always; to the stored grid that changes nothing.
        if torch.compiler.is_exporting() or tuple(grid) != tuple(self.grid):
            stored = (2 * self.grid[0] - 1, 2 * self.grid[1] - 1)
            offsets = resize_positions(offsets, (2 * height - 1, 2 * width - 1), stored)
        down, across = (self._offsets(side) for side in grid)
        # Rows (query row, query column, key row, key column) of one long table: a plain look-up exports.
        index = down[:, None, :, None] * (2 * width - 1) + across[None, :, None, :]
        between = offsets[0].index_select(0, index.flatten())
        between = between.view(height * width, height * width, -1).permute(2, 0, 1)
        patches = between.shape[1]
        to_patch, to_class, classes = (row[:, None, None] for row in self.table[-3:])
        left = torch.cat([classes.expand(-1, prefix, prefix), to_class.expand(-1, patches, prefix)], 1)
        right = torch.cat([to_patch.expand(-1, prefix, patches), between], 1)
        return torch.cat([left, right], 2)[None]

    def _offsets(self, side: int) -> Tensor:
        """Query minus key, counted from the smallest, (side, side)."""
        places = torch.arange(side, device=self.table.device)
        return places[:, None] - places[None, :] + side - 1


def take_biases(blocks: Iterable[nn.Module], grid: tuple[int, int]) -> bool:
    """Give BEiT's blocks a bias that serves every grid, in place of timm's for a single one.

    Args:
        blocks: Of any plain ViT; others than BEiT's stay as they are.
        grid: The grid that their tables are made for.

    Returns:
        Whether there are such blocks.
    """
    from timm.models.beit import Attention as BiasedAttention  # see vit_names.py

    found = False
    for block in blocks:
        attention: Any = block.get_submodule("attn")
        biased = isinstance(attention, BiasedAttention)
        if biased and attention.relative_position_bias_table is not None:
            attention.relative = RelativeBias(attention.relative_position_bias_table, grid)
            attention.relative_position_bias_table = attention.relative_position_index = None
            found = True
    return found


def with_own_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """BEiT's weights under the names that `take_biases` leaves; other weights as they are."""
    kept = {key: value for key, value in state.items() if not key.endswith("relative_position_index")}
    return {key.replace(_TABLE, _OWN): value for key, value in kept.items()}


def positions_of_blocks(
    blocks: Any, rope: Any, grid: tuple[int, int], prefix: int
) -> Callable[[int], tuple[Tensor, ...]]:
    """A function that gives what a block, named by its index, gets beside its tokens.

    Args:
        blocks: All of them.
        rope: timm's rotary embedding, or None.
        grid: Of the patches.
        prefix: Tokens in front of the patches.
    """
    if rope is None:

        def biased(index: int) -> tuple[Tensor, ...]:
            # A block whose work was done before has no attention left.
            relative = getattr(getattr(blocks[index], "attn", None), "relative", None)
            return () if relative is None else (relative(grid, prefix),)

        return biased
    made = rope.get_embed(shape=list(grid))
    mixed = made.ndim > 3  # learned angles differ from block to block
    return lambda index: (made[index] if mixed else made,)

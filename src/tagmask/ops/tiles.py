"""Class probabilities of pictures of any size, tile by tile, joined without seams in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Emit", "Spans", "Wanted", "join_tiles", "skipping", "tile_spans"]

_STEP = 16
_MANY = 1 << 22
"""Pixels of overlap that are kept for a row of tiles; times C numbers."""
Emit = Callable[[int, int, Tensor], None]
Cut = Callable[[int, int, int, int], Tensor]
Run = Callable[[Tensor], Tensor]
Wanted = Callable[[int, int, int, int], bool]


@dataclass(frozen=True)
class Spans:
    """Equal, overlapping tiles along one axis.

    Attributes:
        length: Pixels of a tile.
        starts: First pixel of every tile, ascending; the last tile ends with the axis.
        overlap: Pixels over which one tile fades into the next.
    """

    length: int
    starts: tuple[int, ...]
    overlap: int

    def done(self, index: int) -> int:
        """How many pixels of a tile, from its first, no later tile adds to."""
        if index + 1 == len(self.starts):
            return self.length
        return self.starts[index + 1] - self.starts[index]

    def weights(self, index: int) -> Tensor:
        """Share of a tile in the result, (length,); over all tiles they add up to 1 at every pixel."""
        result = torch.ones(self.length)
        ramp = (torch.arange(self.overlap) + 0.5) / max(self.overlap, 1)
        if index > 0:
            result[: self.overlap] = ramp
        if index + 1 < len(self.starts):
            end = self.done(index)
            result[end : end + self.overlap] = 1 - ramp
            result[end + self.overlap :] = 0
        return result


def tile_spans(side: int, tile: int, overlap: int) -> Spans:
    """Tiles of at most `tile` pixels that cover an axis.

    They start at multiples of 16 where possible, so that the patches of most networks fall on the same pixels
    in all of them.

    Args:
        side: Length of the axis.
        tile: Longest tile.
        overlap: Pixels that neighbours share, at most half a tile.

    Raises:
        ValueError: The overlap is negative or over half a tile.
    """
    if not 0 <= 2 * overlap <= tile:
        raise ValueError(f"the overlap must be 0 to half of the tile ({tile} px), got {overlap}")
    if side <= tile:
        return Spans(side, (0,), 0)
    rest = side - overlap
    for step in (_STEP, 1):
        stride = -(-rest // -(-rest // (tile - overlap)))
        stride = min(-(-stride // step) * step, tile - overlap)
        count = -(-rest // stride)
        if rest - (count - 1) * stride >= overlap:
            break
    length = stride + overlap
    # Short tiles would fade in and out at the same pixels; they fade over fewer.
    fading = min(overlap, stride, rest - (count - 1) * stride)
    return Spans(length, (*range(0, (count - 1) * stride, stride), side - length), fading)


def join_tiles(
    fn: Callable[[Tensor], Tensor],
    cut: Callable[[int, int, int, int], Tensor],
    emit: Emit,
    rows: Spans,
    columns: Spans,
    batch_size: int = 1,
) -> None:
    """Run a function over all tiles and hand out the joined result part by part.

    Where tiles overlap, their results fade linearly into each other. Kept in memory are the tiles in work,
    the overlap with the tile to the left, and the overlap with the row above: (C, overlap, W) numbers. Of
    pictures so wide that these are many, the columns are worked on one after the other instead.

    Args:
        fn: (n, 3, h, w) to (n, C, h, w).
        cut: (top, left, height, width) to that part of the picture, (3, h, w).
        emit: Takes (top, left, values (C, h, w)); the parts cover every pixel once.
        rows: Tiles from top to bottom.
        columns: Tiles from left to right.
        batch_size: Tiles that go through `fn` together.
    """
    width = columns.starts[-1] + columns.length
    if rows.overlap * width > _MANY and width > rows.starts[-1] + rows.length:
        _by_columns(fn, cut, emit, rows, columns, batch_size)
        return
    above: Tensor | None = None
    for row, top in enumerate(rows.starts):
        beside: Tensor | None = None
        for column, values in _row(fn, cut, top, rows.length, columns, batch_size):
            left, done = columns.starts[column], columns.done(column)
            values = values * (rows.weights(row)[:, None] * columns.weights(column)).to(values)
            if beside is not None:
                values[..., : columns.overlap] += beside
            beside = values[..., done : done + columns.overlap].clone()
            ready, low = values[..., :done], rows.done(row)
            if above is None:
                above = values.new_zeros(values.shape[0], rows.overlap, width)
            if row > 0:
                ready[:, : rows.overlap] += above[..., left : left + done]
            if row + 1 < len(rows.starts):
                above[..., left : left + done] = ready[:, low : low + rows.overlap]
            emit(top, left, ready[:, :low])


def _by_columns(
    fn: Callable[[Tensor], Tensor],
    cut: Callable[[int, int, int, int], Tensor],
    emit: Emit,
    rows: Spans,
    columns: Spans,
    batch_size: int,
) -> None:
    """`join_tiles` of the transposed picture; the function itself sees every tile as it is."""
    join_tiles(
        lambda images: fn(images.transpose(2, 3)).transpose(2, 3),
        lambda top, left, height, width: cut(left, top, width, height).transpose(1, 2),
        lambda top, left, values: emit(left, top, values.transpose(1, 2)),
        columns,
        rows,
        batch_size,
    )


def _row(
    fn: Callable[[Tensor], Tensor],
    cut: Callable[[int, int, int, int], Tensor],
    top: int,
    height: int,
    columns: Spans,
    batch_size: int,
) -> Iterator[tuple[int, Tensor]]:
    for first in range(0, len(columns.starts), batch_size):
        starts = columns.starts[first : first + batch_size]
        images = torch.stack([cut(top, left, height, columns.length) for left in starts])
        yield from enumerate(fn(images), start=first)


def skipping(fn: Run, cut: Cut, wanted: Wanted | None, blank: Tensor) -> tuple[Run, Cut, Callable[[], int]]:
    """What `join_tiles` takes as `fn` and `cut`, where some tiles are not worth a look.

    Args:
        fn: (n, c, h, w) to (n, C, h, w).
        cut: See `join_tiles`.
        wanted: Whether a tile (top, left, height, width) is cut out and looked at; all are if None.
        blank: The result at every pixel of the others, (C,), on the device of `fn`.

    Returns:
        The two, and how many tiles were looked at so far.
    """
    flags: list[bool] = []
    channels = 0 if wanted is None else cut(0, 0, 1, 1).shape[0]

    def part(top: int, left: int, height: int, width: int) -> Tensor:
        flags.append(wanted is None or wanted(top, left, height, width))
        return cut(top, left, height, width) if flags[-1] else torch.zeros(channels, height, width)

    def run(images: Tensor) -> Tensor:
        # These are the tiles that were cut out last.
        seen = torch.tensor(flags[-len(images) :])
        if seen.all():
            return fn(images)
        made = blank[:, None, None].expand(len(images), -1, *images.shape[2:]).contiguous()
        if seen.any():
            made[seen.to(made.device)] = fn(images[seen])
        return made

    return run, part, lambda: sum(flags)

"""Pairs of nearby positions: their affinity, their labels, and walks along them (PSA, Ahn and Kwak 2018).

A pair starts at a position of the "from" rectangle, rows 0 .. h-q-1 and columns q .. w-q-1 with
q = radius - 1, and ends at that position moved by one of O offsets. P = (h - q) * (w - 2q) positions are
kept row by row, so pair tensors are (B, O, P). Everything works on shifted slices of the map: nothing of
size N x N, and no copy of the features per offset, is ever held.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tagmask.names import deprecated

__all__ = ["affinity_matrix", "pair_affinity", "pair_labels", "pair_offsets", "random_walk", "walk_scores"]


@lru_cache(maxsize=8)
def pair_offsets(radius: int) -> tuple[tuple[int, int], ...]:
    """Offsets (down, right) of a pair's end from its start: the half disc below, closer than `radius`.

    Args:
        radius: In cells; PSA uses 5, which gives 34 offsets.

    Raises:
        ValueError: `radius` is below 2, so that no pair exists.
    """
    if radius < 2:
        raise ValueError(f"radius must be at least 2 cells, got {radius}")
    row = [(0, right) for right in range(1, radius)]
    below = [
        (down, right)
        for down in range(1, radius)
        for right in range(1 - radius, radius)
        if down * down + right * right < radius * radius
    ]
    return (*row, *below)


def pair_affinity(features: Tensor, radius: int = 5, full: bool = False) -> Tensor:
    """Affinity exp(-mean |f_end - f_start|) of all pairs (PSA, equation 2), in (0, 1].

    In training each offset is computed again on the way back instead of keeping B x D x P values for it.

    Args:
        features: (B, D, h, w).
        radius: Pairs are closer than this.
        full: Let every position start its pairs, P = h * w; those that leave the map have affinity 0.
            As published (False), cells near the border have fewer pairs and three corners none.

    Returns:
        (B, O, P), with gradient if the features have one.

    Raises:
        ValueError: The map is smaller than the pairs need.
    """
    if full:
        features = F.pad(features, _margin(radius), value=float("inf"))
    _check_size(features.shape[-2:], radius)

    def one(x: Tensor, offset: tuple[int, int]) -> Tensor:
        end = _end(x, offset, radius)
        return torch.exp(-(end - _start(x, radius)).abs().mean(dim=1)).flatten(1)

    if features.requires_grad and torch.is_grad_enabled():
        rows = [
            checkpoint(one, features, offset, use_reentrant=False, preserve_rng_state=False)
            for offset in pair_offsets(radius)
        ]
    else:
        rows = [one(features, offset) for offset in pair_offsets(radius)]
    return torch.stack(rows, dim=1)


@deprecated("0.2", arguments={"ignore": "ignore_index"})
def pair_labels(labels: Tensor, radius: int = 5, ignore_index: int = 255) -> tuple[Tensor, Tensor, Tensor]:
    """What the pairs of a label map should be.

    Args:
        labels: (B, h, w) integers, 0 background, `ignore_index` unknown.
        radius: Pairs are closer than this.
        ignore_index: Label of positions whose pairs say nothing.

    Returns:
        Three bool tensors (B, O, P): both background; both the same foreground class; different classes.

    Raises:
        ValueError: The map is smaller than the pairs need.
    """
    _check_size(labels.shape[-2:], radius)
    start = _start(labels, radius).flatten(1).unsqueeze(1)
    end = torch.stack([_end(labels, offset, radius).flatten(1) for offset in pair_offsets(radius)], dim=1)
    known = (start != ignore_index) & (end != ignore_index)
    same = known & (start == end)
    return same & (start == 0), same & (start != 0), known & ~same


def affinity_matrix(affinity: Tensor, size: tuple[int, int], radius: int = 5) -> Tensor:
    """The symmetric matrix behind one image's pairs: 1 on the diagonal, 0 where no pair exists.

    For inspection and tests; `random_walk` never builds it (N = h * w, 35 MB for a 375 x 500 image).

    Args:
        affinity: (O, P).
        size: (h, w) of the map.
        radius: As for `pair_affinity`.

    Returns:
        (N, N).
    """
    _check_size(size, radius)
    index = torch.arange(size[0] * size[1], device=affinity.device).view(size)
    matrix = torch.eye(index.numel(), dtype=affinity.dtype, device=affinity.device)
    start = _start(index, radius).flatten()
    for offset, values in zip(pair_offsets(radius), affinity, strict=True):
        end = _end(index, offset, radius).flatten()
        matrix[start, end] = values
        matrix[end, start] = values
    return matrix


@torch.no_grad()
def random_walk(
    scores: Tensor,
    affinity: Tensor,
    radius: int = 5,
    beta: float = 8.0,
    steps: int = 256,
    full: bool = False,
) -> Tensor:
    """Spread scores along affinities: scores T^steps with T = affinity^beta over its column sums.

    The published code squares the dense T log2(steps) times. Here T acts on the few score rows directly,
    2 * O shifted multiply-adds a step, which equals it up to rounding at a fraction of time and memory. It
    walks in double precision where the device has it, as rounding adds up over the steps.

    Args:
        scores: (C, h, w); only channels that are not zero everywhere are worth passing.
        affinity: (O, P) of the same map.
        radius: As for `pair_affinity`.
        beta: Power that weakens small affinities.
        steps: Length of the walk; 0 returns a copy.
        full: Whether the affinity has a pair for every position.

    Returns:
        (C, h, w).

    Raises:
        ValueError: Shapes do not fit or `steps` is negative.
    """
    if full:
        spread = random_walk(F.pad(scores, _margin(radius)), affinity, radius, beta, steps)
        return spread[..., : scores.shape[-2], radius - 1 : radius - 1 + scores.shape[-1]]
    height, width = scores.shape[-2:]
    _check_size((height, width), radius)
    reach = radius - 1
    area = (height - reach, width - 2 * reach)
    offsets = pair_offsets(radius)
    if affinity.shape != (len(offsets), area[0] * area[1]):
        raise ValueError(
            f"affinity must be ({len(offsets)}, {area[0] * area[1]}) for a {height} x {width} map and "
            f"radius {radius}, got {tuple(affinity.shape)}"
        )
    if steps < 0:
        raise ValueError(f"steps must not be negative, got {steps}")
    wide = torch.float32 if scores.device.type == "mps" else torch.float64
    now = scores.to(wide, copy=True)
    powered = affinity.to(wide).pow(beta).view(len(offsets), *area)
    total = _neighbours(torch.ones_like(now[:1]), powered, radius)
    for _ in range(steps):
        now = _neighbours(now, powered, radius).div_(total)
    return now.to(scores.dtype)


def walk_scores(
    scores: Tensor,
    affinity: Tensor,
    stride: int = 8,
    radius: int = 5,
    beta: float = 8.0,
    steps: int = 256,
    full: bool = False,
) -> Tensor:
    """Random walk of full-resolution scores: mean pooling, walk, bilinear back.

    Args:
        scores: Background first, then the present classes, (C, H, W).
        affinity: (O, P) of the padded image's map, ceil(H / stride) x ceil(W / stride).
        stride: Pixels per cell.
        radius: As for `pair_affinity`.
        beta: As for `random_walk`.
        steps: As for `random_walk`.
        full: As for `random_walk`.

    Returns:
        (C, H, W). The right and bottom edges are padded with zeros for the walk, background included.
    """
    height, width = scores.shape[-2:]
    padded = F.pad(scores, (0, -width % stride, 0, -height % stride))
    pooled = F.avg_pool2d(padded, stride)
    walked = random_walk(pooled, affinity, radius, beta, steps, full)
    large = F.interpolate(walked[None], padded.shape[-2:], mode="bilinear", align_corners=False)[0]
    return large[:, :height, :width]


def _neighbours(values: Tensor, affinity: Tensor, radius: int) -> Tensor:
    """(C, h, w) times the symmetric affinity matrix."""
    result = values.clone()
    start, gathered = _start(values, radius), _start(result, radius)
    for offset, weight in zip(pair_offsets(radius), affinity, strict=True):
        _end(result, offset, radius).addcmul_(weight, start)
        gathered.addcmul_(weight, _end(values, offset, radius))
    return result


def _margin(radius: int) -> list[int]:
    """Padding (left, right, top, bottom) after which the "from" rectangle is the whole map."""
    return [radius - 1, radius - 1, 0, radius - 1]


def _start(x: Tensor, radius: int) -> Tensor:
    """View of the "from" rectangle."""
    reach = radius - 1
    return x[..., : x.shape[-2] - reach, reach : x.shape[-1] - reach]


def _end(x: Tensor, offset: tuple[int, int], radius: int) -> Tensor:
    """View of the rectangle moved by one offset."""
    (down, right), reach = offset, radius - 1
    height, width = x.shape[-2] - reach, x.shape[-1] - 2 * reach
    return x[..., down : down + height, reach + right : reach + right + width]


def _check_size(size: tuple[int, ...] | torch.Size, radius: int) -> None:
    height, width = size
    if height < radius or width < 2 * radius - 1:
        raise ValueError(
            f"pairs of radius {radius} need a map of at least {radius} x {2 * radius - 1} cells, "
            f"got {height} x {width}; use a larger image or a smaller radius"
        )

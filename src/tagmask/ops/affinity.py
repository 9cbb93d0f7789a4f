"""Pairs of positions: which ones belong together, which ones are near, and walking along them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tagmask.ops.arrays import A, Array, like, tensor

__all__ = ["affinity_labels", "propagate", "propagate_with_background", "radius_mask", "transition"]

_IGNORE = 255


def affinity_labels(labels: A, mask: Array | None = None, diagonal: bool = True) -> A:
    """Whether two positions carry the same label, for every pair of positions of an image.

    Args:
        labels: Label map on the patch grid, any integer type, (B, h, w); 255 = ignore.
        mask: Pairs that count, bool, (N, N) or (B, N, N) with N = h * w; all of them if None.
        diagonal: Whether the pair of a position with itself counts.

    Returns:
        uint8 (B, N, N): 1 same label (background with background included), 0 another one, 255 where the
        pair does not count or either label is 255.

    Raises:
        ValueError: `labels` is not (B, h, w) or `mask` does not fit it.
    """
    known = None if mask is None else tensor("mask", mask)
    return like(labels, _affinity_labels(tensor("labels", labels), known, diagonal))


def _affinity_labels(labels: Tensor, mask: Tensor | None, diagonal: bool) -> Tensor:
    if labels.ndim != 3:
        raise ValueError(f"labels must be (B, h, w), got {tuple(labels.shape)}")
    flat = labels.flatten(1)
    known = flat != _IGNORE
    counts = known.unsqueeze(2) & known.unsqueeze(1)
    if mask is not None:
        _check_mask(mask, counts)
        counts &= mask
    if not diagonal:
        counts.diagonal(dim1=1, dim2=2).fill_(False)
    same = (flat.unsqueeze(2) == flat.unsqueeze(1)).to(torch.uint8)
    return same.masked_fill_(~counts, _IGNORE)


def radius_mask(h: int, w: int, radius: int, device: torch.device | str | None = None) -> Tensor:
    """Pairs of grid positions at most `radius` rows and `radius` columns apart (a square window).

    Args:
        h: Rows of the grid.
        w: Columns of the grid.
        radius: Largest distance in grid cells along either axis; 0 leaves each position with itself.
        device: Where to build the mask.

    Returns:
        bool (N, N) with N = h * w in row-major order; symmetric, true on the diagonal.

    Raises:
        ValueError: The grid is empty or `radius` is negative.
    """
    if h < 1 or w < 1 or radius < 0:
        raise ValueError(f"need a grid of at least 1 x 1 and a radius >= 0, got {h} x {w} and {radius}")
    rows, columns = _band(h, radius, device), _band(w, radius, device)
    # Near in both axes = outer product of two small bands: one N x N write, no N x N distances.
    return (rows[:, None, :, None] & columns[None, :, None, :]).reshape(h * w, h * w)


def _band(length: int, radius: int, device: torch.device | str | None) -> Tensor:
    index = torch.arange(length, device=device)
    return (index.unsqueeze(1) - index.unsqueeze(0)).abs() <= radius


def transition(
    affinity: A,
    mask: Array | None = None,
    power: float = 2.0,
    epsilon: float = 0.1,
    doublings: int = 0,
) -> A:
    """Column-normalised walk matrix of an affinity (AFA, section 3.4; PSA with power 8 and epsilon 0).

    Args:
        affinity: Non-negative pair affinities, (B, N, N).
        mask: Pairs the walk may use, bool, (N, N) or (B, N, N); all of them if None.
        power: Exponent of each entry; large values suppress weak pairs.
        epsilon: Added to each column sum; above 0 the mass of weakly connected positions shrinks.
        doublings: How often the matrix is squared, for walks of 2**doublings steps.

    Returns:
        (B, N, N); entry (i, j) is what position j takes from position i.

    Raises:
        ValueError: `affinity` is not (B, N, N), holds a negative value, or `mask` does not fit it.
    """
    known = None if mask is None else tensor("mask", mask)
    return like(affinity, _transition(tensor("affinity", affinity), known, power, epsilon, doublings))


def _transition(
    affinity: Tensor, mask: Tensor | None, power: float, epsilon: float, doublings: int
) -> Tensor:
    if affinity.ndim != 3 or affinity.shape[1] != affinity.shape[2]:
        raise ValueError(f"affinity must be (B, N, N), got {tuple(affinity.shape)}")
    if not affinity.is_floating_point() or bool((affinity < 0).any()):
        raise ValueError(
            f"affinity must be floating point and at least 0 everywhere, got {affinity.dtype}; a sigmoid "
            "makes affinities of logits"
        )
    if mask is not None:
        _check_mask(mask, affinity)
        affinity = affinity * mask
    weights = affinity.square() if power == 2 else affinity.pow(power)
    steps = weights / (weights.sum(dim=1, keepdim=True) + epsilon)
    with torch.autocast(steps.device.type, enabled=False):
        for _ in range(doublings):
            steps = steps @ steps
    return steps


def propagate(maps: A, steps: Array) -> A:
    """Walk class maps along a transition matrix.

    Args:
        maps: (B, C, h, w).
        steps: (B, N, N) with N = h * w, from `transition`.

    Returns:
        (B, C, h, w), float32.

    Raises:
        ValueError: `maps` or `steps` has another shape, or the grid of `maps` has not N cells.
    """
    return like(maps, _propagate(tensor("maps", maps), tensor("steps", steps)))


def _propagate(maps: Tensor, steps: Tensor) -> Tensor:
    if maps.ndim != 4 or steps.ndim != 3:
        raise ValueError(
            f"maps must be (B, C, h, w) and steps (B, N, N), got {tuple(maps.shape)} and {tuple(steps.shape)}"
        )
    if steps.shape[-1] != maps.shape[-2] * maps.shape[-1]:
        raise ValueError(
            f"maps of {maps.shape[-2]} x {maps.shape[-1]} cells do not fit a walk over {steps.shape[-1]}; "
            "resize the maps to the grid of the affinity first"
        )
    with torch.autocast(maps.device.type, enabled=False):
        return (maps.float().flatten(2) @ steps.float()).view_as(maps)


def propagate_with_background(
    maps: Tensor,
    tags: Tensor,
    backgrounds: Sequence[float],
    steps: Tensor,
) -> Tensor:
    """Random walk of class maps that compete with a constant background (AFA, equation 5 and its code).

    Each image's background and present classes go through a softmax first, absent classes stay 0. All
    background scores share one product with the walk matrix.

    Args:
        maps: Class maps in [0, 1], (B, K, h, w).
        tags: Present classes, 0 or 1, (B, K).
        backgrounds: S constant background scores.
        steps: (B, N, N) with N = h * w, from `transition`.

    Returns:
        (S, B, K + 1, h, w), background first.
    """
    batch, classes, h, w = maps.shape
    present = torch.cat([tags.new_ones(batch, 1), tags], dim=1) > 0
    plane = maps.new_tensor(list(backgrounds)).view(-1, 1, 1, 1, 1).expand(-1, batch, 1, h, w)
    stacked = torch.cat([plane, maps.expand(len(backgrounds), batch, classes, h, w)], dim=2)
    absent = ~present.view(1, batch, classes + 1, 1, 1)
    shares = stacked.masked_fill(absent, float("-inf")).softmax(dim=2)
    rows = shares.transpose(0, 1).reshape(batch, -1, h, w)
    walked = _propagate(rows, steps)
    return walked.view(batch, len(backgrounds), classes + 1, h, w).transpose(0, 1)


def _check_mask(mask: Tensor, pairs: Tensor) -> None:
    if mask.shape[-2:] != pairs.shape[-2:] or mask.ndim not in (2, 3):
        raise ValueError(
            f"mask must be (N, N) or (B, N, N) with N = {pairs.shape[-1]}, got {tuple(mask.shape)}"
        )

"""Run a network over scales and mirrored views of an image and merge what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from tagmask.ops.maps import min_max
from tagmask.ops.resize import resize_bilinear

__all__ = ["Views", "multi_scale", "segment_views", "view_sizes"]

MapFunction = Callable[[Tensor], Mapping[str, Tensor]]


class Views(Protocol):
    """The settings `multi_scale` reads; `tagmask.types.ViewPlan` has them."""

    @property
    def scales(self) -> tuple[float, ...]:
        """Resize factors of the image."""

    @property
    def flip(self) -> str:
        """How a view and its mirrored twin merge: "max", "sum" or "none"."""

    @property
    def relu(self) -> str:
        """Where negatives are cut: "view", "sum" or "none"."""

    @property
    def epsilon(self) -> float:
        """Added to the range when maps are scaled to [0, 1)."""


def view_sizes(
    height: int, width: int, scales: Sequence[float], base: int | None = None
) -> list[tuple[int, int]]:
    """Sizes of the views: ``int(scale * side)``, of the image or of a square.

    Args:
        height: Image height in pixels.
        width: Image width in pixels.
        scales: Resize factors.
        base: Side of a square that replaces the image's own size (the aspect ratio is lost).
    """
    if base is not None:
        height = width = base
    return [(int(scale * height), int(scale * width)) for scale in scales]


def multi_scale(
    fn: MapFunction, images: Tensor, plan: Views, known: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Class maps merged over scales and flips, each scaled to [0, 1).

    A view and its mirrored twin go through `fn` in one call, the twin in the second half of the batch.

    Args:
        fn: Maps of one batch of views: (n, 3, H', W') to {kind: (n, K, h, w)}, any range.
        images: RGB in [0, 1], (B, 3, H, W).
        plan: Scales, flip rule, rectification and epsilon.
        known: What `fn` would give for the images themselves (scale 1, not mirrored), if the caller has it:
            that pass is then skipped.

    Returns:
        {kind: (B, K, H, W)}, float32.

    Raises:
        ValueError: If the plan names an unknown rule or has no scales.
    """
    _check_plan(plan)
    size = (images.shape[2], images.shape[3])
    total: dict[str, Tensor] = {}
    for view_size in view_sizes(*size, plan.scales):
        given = known if view_size == size else None
        for kind, maps in _one_scale(fn, images, view_size, plan, given).items():
            total[kind] = total[kind].add_(maps) if kind in total else maps
    if plan.relu == "sum":
        total = {kind: maps.relu() for kind, maps in total.items()}
    return {kind: min_max(maps, plan.epsilon) for kind, maps in total.items()}


def _one_scale(
    fn: MapFunction,
    images: Tensor,
    view_size: tuple[int, int],
    plan: Views,
    known: Mapping[str, Tensor] | None,
) -> dict[str, Tensor]:
    count, size = images.shape[0], (images.shape[2], images.shape[3])
    view = resize_bilinear(images, view_size)
    plain: Mapping[str, Tensor]
    twin: Mapping[str, Tensor]
    if plan.flip == "none":
        plain, twin = known or fn(view), {}
    elif known is not None:
        plain, twin = known, fn(view.flip(3))
    else:
        both = fn(torch.cat([view, view.flip(3)]))
        plain = {kind: maps[:count] for kind, maps in both.items()}
        twin = {kind: maps[count:] for kind, maps in both.items()}
    merged = {}
    for kind, maps in plain.items():
        # Mirroring the small map before it is enlarged gives the same values for less work.
        large = resize_bilinear(maps.float(), size)
        if kind in twin:
            mirrored = resize_bilinear(twin[kind].float().flip(3), size)
            large = torch.maximum(large, mirrored) if plan.flip == "max" else large + mirrored
        merged[kind] = large.relu() if plan.relu == "view" else large
    return merged


def segment_views(
    fn: Callable[[Tensor], Tensor],
    images: Tensor,
    sizes: Sequence[tuple[int, int]],
    out_size: tuple[int, int],
    *,
    flip: str = "sum",
    merge: str = "max",
    probabilities: bool = False,
    align_corners: bool = False,
) -> Tensor:
    """Segmentation scores merged over sizes and flips.

    MoRe sums a view with its mirrored twin and keeps the largest sum over the sizes; others average, or
    compare probabilities.

    Args:
        fn: Logits of a batch: (n, 3, H', W') to (n, C, h, w).
        images: RGB in [0, 1], (B, 3, H, W).
        sizes: (height, width) of every view, see `view_sizes`.
        out_size: Size of the merged scores; logits are enlarged to it one view at a time.
        flip: "sum" or "mean" of a view and its mirrored twin, or "none".
        merge: "max", "mean" or "sum" over the sizes.
        probabilities: Merge softmax values instead of logits.
        align_corners: How the image is sampled for its views (logits never align corners).

    Returns:
        Scores, float32, (B, C, *out_size).

    Raises:
        ValueError: If a rule is unknown or no size is given.
    """
    if flip not in ("sum", "mean", "none") or merge not in ("max", "mean", "sum") or not sizes:
        raise ValueError(
            f"needs one size or more, flip sum|mean|none and merge max|mean|sum, got {len(sizes)} sizes, "
            f"flip {flip!r}, merge {merge!r}"
        )
    total: Tensor | None = None
    for scores in _segmented(fn, images, sizes, out_size, flip, probabilities, align_corners):
        if total is None:
            total = scores
        else:
            total = torch.maximum(total, scores) if merge == "max" else total.add_(scores)
    assert total is not None
    return total / len(sizes) if merge == "mean" else total


def _segmented(
    fn: Callable[[Tensor], Tensor],
    images: Tensor,
    sizes: Sequence[tuple[int, int]],
    out_size: tuple[int, int],
    flip: str,
    probabilities: bool,
    align_corners: bool,
) -> Iterator[Tensor]:
    for size in sizes:
        view = resize_bilinear(images, size, align_corners)
        both = fn(view if flip == "none" else torch.cat([view, view.flip(3)])).float()
        plain, *twin = torch.split(both, images.shape[0])
        parts = [plain, *(part.flip(3) for part in twin)]
        large = [resize_bilinear(part, out_size) for part in parts]
        if probabilities:
            large = [part.softmax(1) for part in large]
        scores = large[0] if flip == "none" else large[0] + large[1]
        yield scores / 2 if flip == "mean" else scores


def _check_plan(plan: Views) -> None:
    if not plan.scales or any(scale <= 0 for scale in plan.scales):
        raise ValueError(f"scales must be one or more positive factors, got {plan.scales}")
    if plan.flip not in ("max", "sum", "none"):
        raise ValueError(f"flip must be max, sum or none, got {plan.flip!r}")
    if plan.relu not in ("view", "sum", "none"):
        raise ValueError(f"relu must be view, sum or none, got {plan.relu!r}")

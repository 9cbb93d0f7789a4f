"""Run a segmentation network over sizes and mirrored views of an image and merge its scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from tagmask.ops.resize import resize_bilinear

__all__ = ["segment_views"]


def segment_views(
    fn: Callable[[Tensor], Tensor],
    images: Tensor,
    sizes: Sequence[tuple[int, int]],
    out_size: tuple[int, int] | None,
    *,
    flip: str = "sum",
    merge: str = "max",
    probabilities: bool = False,
    align_corners: bool = False,
    factors: Sequence[float] | None = None,
    resample: Callable[[Tensor, tuple[int, int]], Tensor] | None = None,
    exits: Sequence[float] = (),
) -> Tensor:
    """Segmentation scores merged over sizes and flips.

    MoRe sums a view with its mirror image and keeps the largest sum over the sizes; others average, or
    compare probabilities.

    Args:
        fn: Logits of a batch: (n, 3, H', W') to (n, C, h, w), or (n, E, C, h, w) with `exits`.
        images: RGB in [0, 1], (B, 3, H, W).
        sizes: (height, width) of every view, see `view_sizes`.
        out_size: Size of the merged scores, to which logits are resized one view at a time; that of the first
            view's logits if None.
        flip: "sum" or "mean" of a view and its mirror image, or "none".
        merge: "max", "mean" or "sum" over the sizes.
        probabilities: Merge softmax values instead of logits.
        align_corners: How the image is sampled for its views (logits never align corners).
        factors: The exact factor behind every size, if samples shall be that far apart (AFA); see
            `resize_bilinear`.
        resample: Makes a view of a size from the images, instead of bilinear resampling.
        exits: Weights of the network's E exits; their scores (probabilities if so chosen) are summed with
            these weights, which need not sum to 1.

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
    exact: Sequence[float | None] = factors or [None] * len(sizes)
    views = (
        resize_bilinear(images, size, align_corners, factor) if resample is None else resample(images, size)
        for size, factor in zip(sizes, exact, strict=True)
    )
    for scores in _segmented(fn, views, out_size, flip, probabilities, exits):
        if total is None:
            total = scores
        else:
            total = torch.maximum(total, scores) if merge == "max" else total.add_(scores)
    assert total is not None
    return total / len(sizes) if merge == "mean" else total


def _segmented(
    fn: Callable[[Tensor], Tensor],
    views: Iterable[Tensor],
    out_size: tuple[int, int] | None,
    flip: str,
    probabilities: bool,
    exits: Sequence[float],
) -> Iterator[Tensor]:
    for view in views:
        both = fn(view if flip == "none" else torch.cat([view, view.flip(3)])).float()
        out_size = out_size or (both.shape[-2], both.shape[-1])
        plain, *twin = torch.split(both, view.shape[0])
        parts = [plain, *(part.flip(-1) for part in twin)]
        large = [_scores(part, out_size, probabilities, exits) for part in parts]
        scores = large[0] if flip == "none" else large[0] + large[1]
        yield scores / 2 if flip == "mean" else scores


def _scores(logits: Tensor, size: tuple[int, int], probabilities: bool, exits: Sequence[float]) -> Tensor:
    """Scores (n, C, *size) of one view; several exits are summed with their weights."""
    each = logits.unbind(1) if exits else (logits,)
    total: Tensor | None = None
    for part, weight in zip(each, exits or (1.0,), strict=True):
        large = resize_bilinear(part, size)
        large = large.softmax(1) if probabilities else large
        large = large if weight == 1 else large * weight
        total = large if total is None else total + large
    assert total is not None
    return total

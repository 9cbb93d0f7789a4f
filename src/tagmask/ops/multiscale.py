"""Run a network over scales and mirrored views of an image and merge what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import overload

import torch
from torch import Tensor

from tagmask.ops.arrays import A, like, tensor
from tagmask.ops.maps import scale_maps
from tagmask.ops.pillow import pillow_bicubic
from tagmask.ops.plans import PlainViews, Views
from tagmask.ops.resize import pad_to_multiple, resize_bilinear

__all__ = [
    "Views",
    "each_view",
    "in_small_calls",
    "merge_views",
    "multi_scale",
    "view_sizes",
]

MapFunction = Callable[[Tensor], Mapping[str, Tensor]]

# What a small ViT makes of this many pixels fits the caches of current processors.
_CPU_PIXELS = 2**19


def view_sizes(
    height: int, width: int, scales: Sequence[float], base: int | None = None, rounding: str = "down"
) -> list[tuple[int, int]]:
    """Sizes of the views: ``scale * side``, of the image or of a square; a pixel at least.

    Args:
        height: Image height in pixels.
        width: Image width in pixels.
        scales: Resize factors.
        base: Side of a square that replaces the image's own size (the aspect ratio is lost).
        rounding: "down", or "nearest" (halves to the even side, as Python's `round`).
    """
    if base is not None:
        height = width = base
    whole = round if rounding == "nearest" else int
    return [(max(whole(scale * height), 1), max(whole(scale * width), 1)) for scale in scales]


@overload
def multi_scale(
    fn: Callable[[Tensor], Tensor],
    images: A,
    plan: Views | None = None,
    known: None = None,
    *,
    scales: Sequence[float] = (1.0,),
    flip: str = "max",
) -> A: ...
@overload
def multi_scale(
    fn: MapFunction,
    images: A,
    plan: Views | None = None,
    known: Mapping[str, Tensor] | None = None,
    *,
    scales: Sequence[float] = (1.0,),
    flip: str = "max",
) -> dict[str, A]: ...
def multi_scale(
    fn: Callable[[Tensor], Tensor | Mapping[str, Tensor]],
    images: A,
    plan: Views | None = None,
    known: Mapping[str, Tensor] | None = None,
    *,
    scales: Sequence[float] = (1.0,),
    flip: str = "max",
) -> A | dict[str, A]:
    """Class maps merged over scales and flips, each scaled to [0, 1).

    A view and its mirror image go through `fn` in one call, the twin in the second half of the batch.

    Args:
        fn: Maps of one batch of views: (n, 3, H', W') to (n, K, h, w) or {kind: (n, K, h, w)}, any range;
            gets tensors.
        images: RGB in [0, 1], (B, 3, H, W), tensor or NumPy array.
        plan: Scales, flip rule, rectification and epsilon; takes the place of the two last arguments.
        known: What `fn` would give for the images themselves (scale 1, not mirrored), if the caller has it:
            that pass is then skipped.
        scales: Resize factors of the images.
        flip: How a view and its mirror image merge: "max", "sum" or "none".

    Returns:
        (B, K, H, W) or {kind: (B, K, H, W)}, as `fn` gives them, float32.

    Raises:
        ValueError: If the plan names an unknown rule or has no scales, or the images have another shape.
    """
    plan = plan or PlainViews(tuple(scales), flip)
    pixels = tensor("images", images)
    single = False

    def named(views: Tensor) -> Mapping[str, Tensor]:
        nonlocal single
        made = fn(views)
        single = isinstance(made, Tensor)
        return {"": made} if isinstance(made, Tensor) else made

    merged = {kind: like(images, maps) for kind, maps in _merged(named, pixels, plan, known).items()}
    return merged[""] if single else merged


def _merged(
    fn: MapFunction, images: Tensor, plan: Views, known: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    _check_plan(plan)
    if images.ndim != 4 or images.shape[1] < 3 or not images.is_floating_point():
        raise ValueError(
            f"images must be floating point (B, 3, H, W), got {images.dtype} {tuple(images.shape)}; grey "
            "levels are divided by 255, a single image needs a batch dimension"
        )
    count, size = images.shape[0], (images.shape[2], images.shape[3])

    def found() -> Iterator[tuple[tuple[int, int], Mapping[str, Tensor]]]:
        for view_size, views in each_view(images, plan):
            if known is None or view_size != size:
                yield view_size, fn(views)
            elif plan.flip == "none":
                yield view_size, known
            else:
                twin = fn(views[count:])
                yield view_size, {kind: torch.cat([maps, twin[kind]]) for kind, maps in known.items()}

    return merge_views(found(), size, plan)


def each_view(images: Tensor, plan: Views) -> Iterator[tuple[tuple[int, int], Tensor]]:
    """The views of a plan, one scale after the other, for callers who want more of them than maps.

    Args:
        images: RGB in [0, 1], (B, 3, H, W).
        plan: Scales, flip rule and padding.

    Yields:
        Size of the view without its padding, and the view (B, 3, H', W') with its mirror image in the second
        half of the batch (2 B, 3, H', W') unless the plan does without.

    Raises:
        ValueError: If the plan names an unknown rule or has no scales.
    """
    _check_plan(plan)
    for view_size in view_sizes(images.shape[2], images.shape[3], plan.scales, plan.base, plan.rounding):
        view, twin = _make_views(images, view_size, plan)
        yield view_size, view if plan.flip == "none" else torch.cat([view, twin])


def merge_views(
    found: Iterable[tuple[tuple[int, int], Mapping[str, Tensor]]], size: tuple[int, int], plan: Views
) -> dict[str, Tensor]:
    """What `multi_scale` makes of the maps of all views.

    Args:
        found: Size and maps {kind: (2 B, K, h, w)} of every view of `each_view`.
        size: (H, W) of the images.
        plan: Flip rule, rectification and epsilon.

    Returns:
        {kind: (B, K, H, W)}, float32.
    """
    total: dict[str, Tensor] = {}
    for view_size, both in found:
        for kind, maps in both.items():
            merged = _merge_twins(maps.float(), view_size, size, plan)
            total[kind] = total[kind].add_(merged) if kind in total else merged
    if plan.relu == "sum":
        total = {kind: maps.relu() for kind, maps in total.items()}
    return {kind: scale_maps(maps, plan.scaling, plan.epsilon) for kind, maps in total.items()}


def in_small_calls(fn: MapFunction, views: Tensor) -> dict[str, Tensor]:
    """All views through a function that treats each on its own; on a CPU a few at a time.

    Large calls leave a processor's caches and take longer per image.

    Args:
        fn: Maps of some views: (n, 3, H', W') to {kind: (n, K, h, w)}.
        views: (B, 3, H', W').

    Returns:
        What one call would give, up to rounding.
    """
    pixels = views.shape[2] * views.shape[3]
    calls = -(-len(views) * pixels // _CPU_PIXELS) if views.device.type == "cpu" else 1
    parts = [fn(part) for part in views.chunk(max(calls, 1))]
    return {kind: torch.cat([part[kind] for part in parts]) for kind in parts[0]}


def _merge_twins(both: Tensor, view_size: tuple[int, int], size: tuple[int, int], plan: Views) -> Tensor:
    """Maps of a view and its mirror image, merged at image size."""
    plain, *twin = both.chunk(1 if plan.flip == "none" else 2)
    large = _enlarge(plain, view_size, size, plan, mirrored=False)
    for maps in twin:
        mirrored = _enlarge(maps, view_size, size, plan, mirrored=True)
        large = torch.maximum(large, mirrored) if plan.flip == "max" else large + mirrored
    return large.relu() if plan.relu == "view" else large


def _make_views(images: Tensor, view_size: tuple[int, int], plan: Views) -> tuple[Tensor, Tensor]:
    resample = pillow_bicubic if plan.resample == "pillow" else resize_bilinear
    view = resample(images, view_size)
    if plan.mirror_padding:
        view = pad_to_multiple(view, plan.pad, plan.pad_colour)
        return view, view.flip(3)
    plain, mirrored = (pad_to_multiple(x, plan.pad, plan.pad_colour) for x in (view, view.flip(3)))
    return plain, mirrored


def _enlarge(
    maps: Tensor, view_size: tuple[int, int], size: tuple[int, int], plan: Views, mirrored: bool
) -> Tensor:
    """Maps of one view at image size: padding cut off, mirroring undone."""
    if not (view_size[0] % plan.pad or view_size[1] % plan.pad):
        # Mirroring the small map before it is enlarged gives the same values for less work.
        return resize_bilinear(maps.flip(3) if mirrored else maps, size)
    height, width = view_size
    large = resize_bilinear(maps, (height + -height % plan.pad, width + -width % plan.pad))
    if mirrored and plan.mirror_padding:
        large = large.flip(3)
    large = large[:, :, :height, :width]
    if mirrored and not plan.mirror_padding:
        large = large.flip(3)
    return resize_bilinear(large, size)


def _check_plan(plan: Views) -> None:
    if not plan.scales or any(scale <= 0 for scale in plan.scales):
        raise ValueError(f"scales must be one or more positive factors, got {plan.scales}")
    if plan.flip not in ("max", "sum", "none"):
        raise ValueError(f"flip must be max, sum or none, got {plan.flip!r}")
    if plan.relu not in ("view", "sum", "none"):
        raise ValueError(f"relu must be view, sum or none, got {plan.relu!r}")
    if plan.rounding not in ("down", "nearest"):
        raise ValueError(f"rounding must be down or nearest, got {plan.rounding!r}")
    if plan.resample not in ("bilinear", "pillow") or plan.pad < 1:
        raise ValueError(
            f"resample must be bilinear or pillow and pad at least 1, got {plan.resample!r} and {plan.pad}"
        )

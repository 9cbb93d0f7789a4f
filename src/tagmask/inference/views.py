"""From whole images to maps, scores and tags at their own size: which views, and how they merge.

Images with a side below 32 pixels get more of their border until they have 32, which is cut off again: a
patch grid needs a few patches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from tagmask.config import Config, Scales
from tagmask.data.readers.images import rgb_tensor
from tagmask.data.transforms.opencv import resize_linear
from tagmask.engine.compute import Compute
from tagmask.errors import ConfigError, nearest
from tagmask.methods.base import Method, SegmentationViews
from tagmask.ops.labels import predicted_tags, strongest
from tagmask.ops.maps import fuse
from tagmask.ops.resize import extended, on_whole_patches, pad_to_multiple, resize_bilinear
from tagmask.ops.segmentation_views import segment_views
from tagmask.ops.windows import windowed
from tagmask.types import MEAN_COLOUR, SegmentationPlan, ViewPlan

__all__ = [
    "SMALLEST",
    "MapConfig",
    "image_maps",
    "image_scores",
    "image_tags",
    "map_kinds",
    "map_views",
    "tag_chances",
    "tag_logits",
]

FUSED = "fused"
SMALLEST = 32
"""Images are extended to this side, see the module's description."""


class MapConfig(Config):
    """How class maps of whole images are made."""

    kinds: tuple[str, ...] | None = None
    """Which maps: kinds the method offers, or "fused" (CAM times LAM). All of them if not given."""
    size: int | None = Field(default=None, ge=16)
    """Images become squares of this side first, as MoRe does; their own size if not given."""
    scales: Scales | None = None
    """Resize factors of the views, merged; the method's own if not given."""
    flip: Literal["max", "sum", "none"] | None = None
    """How a view merges with its mirror image; the method's own if not given."""
    border: Literal["pad", "stretch"] = "pad"
    """Views whose sides are no multiple of a patch: "pad" fills them up with the mean colour and cuts that
    off again; "stretch" loses what exceeds a patch at the right and bottom and stretches the rest over the
    whole view, as the code of MCTformer and WeakTr does."""


def map_kinds(method: Method | type[Method], wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The kinds of maps to make.

    Raises:
        ConfigError: The method does not offer one of them.
    """
    known = (*method.map_kinds, *((FUSED,) if {"cam", "lam"} <= set(method.map_kinds) else ()))
    for kind in wanted or ():
        if kind not in known:
            name = method.__name__ if isinstance(method, type) else type(method).__name__
            raise ConfigError(f"{name} makes no '{kind}' maps. {nearest(kind, known)}")
    return tuple(wanted or method.map_kinds)


def image_maps(
    method: Method, images: Tensor, compute: Compute, config: MapConfig, tags: Tensor | None = None
) -> dict[str, Tensor]:
    """Class maps at the images' own size.

    Args:
        method: In eval mode.
        images: RGB in [0, 1], (B, 3, H, W).
        compute: Precision.
        config: Which, and from which views.
        tags: Classes the images are known to show, (B, K), if anybody knows.

    Returns:
        {kind: (B, K, H, W)} float32 in [0, 1], for all K classes whether tagged or not.

    Raises:
        ConfigError: The method does not offer a kind.
    """
    kinds = map_kinds(method, config.kinds)
    needed = tuple(dict.fromkeys(k for kind in kinds for k in (("cam", "lam") if kind == FUSED else (kind,))))
    height, width = images.shape[2:]
    images = extended(images, SMALLEST)
    size = (images.shape[2], images.shape[3])
    if config.size is not None:
        images = resize_bilinear(images, (config.size, config.size))
    maps: dict[str, Tensor] = {}
    with compute.predicting():
        for kind in needed:
            plan = method.view_plan(kind)
            if kind not in maps:
                shared = _same_plan(method, needed, plan)
                maps |= method.maps(images, shared, _changed(method, plan, config), tags)
        if FUSED in kinds:
            maps[FUSED] = fuse(maps["cam"], maps["lam"], method.view_plan("cam").epsilon)
        return {kind: resize_bilinear(maps[kind].float(), size)[..., :height, :width] for kind in kinds}


def _same_plan(method: Method, kinds: Sequence[str], plan: ViewPlan) -> tuple[str, ...]:
    # Kinds that are seen through the same views share their passes.
    return tuple(kind for kind in kinds if method.view_plan(kind) == plan)


def _changed(method: Method, plan: ViewPlan, config: MapConfig) -> ViewPlan:
    scales, flip = config.scales or plan.scales, config.flip or plan.flip
    pad = max(plan.pad, method.side_multiple) if config.border == "pad" else plan.pad
    return dataclasses.replace(plan, scales=scales, flip=flip, pad=pad)


def map_views(method: Method, config: MapConfig) -> dict[str, dict[str, Any]]:
    """Scales and flip rule of every kind of map, for result files."""
    kinds = [kind for kind in map_kinds(method, config.kinds) if kind != FUSED]
    plans = {kind: _changed(method, method.view_plan(kind), config) for kind in kinds}
    return {kind: {"scales": list(plan.scales), "flip": plan.flip} for kind, plan in plans.items()}


def image_scores(
    method: Method,
    images: Tensor,
    compute: Compute,
    config: SegmentationViews,
    allowed: Tensor | None = None,
) -> Tensor:
    """Segmentation scores at the images' own size.

    Args:
        method: In eval mode; must segment.
        images: RGB in [0, 1], (B, 3, H, W).
        compute: Precision.
        config: Views and how they merge.
        allowed: Classes that may win, 0 or 1, (B, K); all if None.

    Returns:
        (B, K + 1, H, W) float32, background first; minus infinity for classes that are not allowed.
    """
    height, width = images.shape[2:]
    images = extended(images, SMALLEST)
    size = (images.shape[2], images.shape[3])
    plan = config.plan(size)
    if plan.first is not None:
        images = resize_bilinear(images, plan.first)
    with compute.predicting():
        scores = segment_views(
            _logits(method, plan),
            images,
            plan.sizes,
            None if plan.at_logits else size,
            flip=plan.flip,
            merge=plan.merge,
            probabilities=plan.probabilities,
            align_corners=plan.sampling == "corners",
            factors=plan.factors,
            resample=_opencv if plan.sampling == "opencv" else None,
            exits=plan.exits,
        )
        scores = resize_bilinear(scores, size)[..., :height, :width]
        if allowed is not None:
            scores[:, 1:].masked_fill_(allowed[:, :, None, None] == 0, -float("inf"))
        return scores


def _logits(method: Method, plan: SegmentationPlan) -> Callable[[Tensor], Tensor]:
    fn: Callable[[Tensor], Tensor] = method.segment
    if plan.exits:
        fn = partial(method.segment_exits, count=len(plan.exits))
    fn = on_whole_patches(fn, method.side_multiple, MEAN_COLOUR)
    return fn if plan.window is None else windowed(fn, *plan.window)


def _opencv(images: Tensor, size: tuple[int, int]) -> Tensor:
    levels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return torch.stack([rgb_tensor(resize_linear(image, size)) for image in levels]).to(images.device)


def image_tags(
    method: Method, images: Tensor, compute: Compute, rule: Literal["classifier", "mask"]
) -> Tensor:
    """Which classes images show, when nobody tagged them.

    Args:
        method: In eval mode; must classify, and segment for "mask".
        images: RGB in [0, 1], (B, 3, H, W).
        compute: Precision.
        rule: What is trusted first, see `tagmask.ops.labels.predicted_tags`.

    Returns:
        (B, K), 0 or 1; never all 0 unless the method also sees nothing.
    """
    with compute.predicting():
        images = extended(images, SMALLEST)
        logits = tag_logits(method, images)
        if not method.segments:
            return (logits > 0).float()
        labels = strongest(on_whole_patches(method.segment, method.side_multiple, MEAN_COLOUR)(images))
        return predicted_tags(logits, labels, rule, min_cells=5 if rule == "classifier" else 4)


def tag_chances(method: Method, images: Tensor, compute: Compute) -> Tensor:
    """What the classifier says of images (B, 3, H, W): probability of every class, (B, K) float32."""
    with compute.predicting():
        return tag_logits(method, extended(images, SMALLEST)).sigmoid().cpu()


def tag_logits(method: Method, images: Tensor) -> Tensor:
    """Logits of the classifier, (B, K) float32, for images (B, 3, H, W) padded to whole patches."""
    return method.classify(pad_to_multiple(images, method.side_multiple, MEAN_COLOUR)).float()

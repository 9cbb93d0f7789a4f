"""From class maps to label maps: thresholds, the ignore band between two of them, refinement, boxes.

Channels may be all K classes or, with `keys`, only the classes an image shows (see
`ops.maps.present_classes`); the labels are the same, at a fraction of the memory for many classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tagmask.ops.arrays import A, Array, like, tensor
from tagmask.ops.maps import keep_present, present_classes, take_classes
from tagmask.ops.resize import resize_bilinear

__all__ = [
    "box_mask",
    "labels_from_maps",
    "labels_with_ignore",
    "predicted_tags",
    "refine_labels",
    "refine_shares",
    "strongest",
]

IGNORE = 255


def strongest(scores: Tensor, dim: int = 1) -> Tensor:
    """Index of the largest channel, the first of equal ones, int64, without that dimension.

    The same as `torch.argmax`, which is many times slower along a strided dimension on a CPU.
    """
    return scores.max(dim).indices


def labels_from_maps(
    maps: A, tags: Array, background: float, boxes: Array | None = None, keys: Array | None = None
) -> A:
    """The strongest present class of every pixel, or background where none exceeds a threshold.

    Args:
        maps: Class maps in [0, 1], (B, K, H, W).
        tags: 1 for classes in the image, 0 for others, (B, K).
        background: Values up to and including this one are background.
        boxes: Valid content as [top, bottom, left, right), int, (B, 4); the rest becomes 255.
        keys: Class index of every channel, int64, (B, K), if the channels are a selection.

    Returns:
        Labels, int64, (B, H, W): 0 background, k + 1 class k, 255 ignore.
    """
    value, labels = _strongest(*_given(maps, tags, keys))
    return like(maps, _outside_ignored(labels.masked_fill(value <= background, 0), _optional("boxes", boxes)))


def labels_with_ignore(
    maps: A,
    tags: Array,
    high: float,
    low: float,
    boxes: Array | None = None,
    keys: Array | None = None,
) -> A:
    """As `labels_from_maps` with two thresholds: background up to `low`, ignore between it and `high`.

    Args:
        maps: Class maps in [0, 1], (B, K, H, W).
        tags: 1 for classes in the image, 0 for others, (B, K).
        high: Only values above it name a class.
        low: Values up to it are background.
        boxes: Valid content as [top, bottom, left, right), int, (B, 4); the rest becomes 255.
        keys: Class index of every channel, int64, (B, K), if the channels are a selection.

    Returns:
        Labels, int64, (B, H, W).
    """
    value, labels = _strongest(*_given(maps, tags, keys))
    labels = labels.masked_fill(value <= high, IGNORE).masked_fill(value <= low, 0)
    return like(maps, _outside_ignored(labels, _optional("boxes", boxes)))


def _optional(name: str, values: Array | None) -> Tensor | None:
    return None if values is None else tensor(name, values)


def _given(maps: Array, tags: Array, keys: Array | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Maps and tags as tensors that fit each other."""
    stack, shown, chosen = tensor("maps", maps), tensor("tags", tags), _optional("keys", keys)
    if stack.ndim != 4 or tuple(shown.shape) != tuple(stack.shape[:2]):
        raise ValueError(
            f"maps must be (B, K, H, W) and tags (B, K), got {tuple(stack.shape)} and {tuple(shown.shape)}"
        )
    return stack, shown, chosen


def refine_labels(
    images: Tensor,
    maps: Tensor,
    tags: Tensor,
    high: float,
    low: float,
    refine: Callable[[Tensor, Tensor], Tensor],
    boxes: Tensor | None = None,
    keys: Tensor | None = None,
    shrink: int = 2,
) -> Tensor:
    """Pseudo labels from two refined label maps, one with an eager and one with a shy background.

    A constant background plane of height `high` (or `low`) competes with the maps of the present classes in
    a softmax; `refine` spreads the result along the image's colours at reduced size; the arg max at full
    size is the label. Foreground comes from the high plane, background from where both planes say so, the
    rest is ignored (ToCo, SeCo, AFA, AReAM, MoRe).

    Args:
        images: RGB in [0, 1], (B, 3, H, W).
        maps: Class maps in [0, 1], (B, K, H, W).
        tags: 1 for classes in the image, 0 for others, (B, K).
        high: Background plane that decides foreground.
        low: Background plane that decides background.
        refine: (images (B, 3, h, w), maps (B, M, h, w)) to refined maps; must treat channels independently
            (PAR does), since both planes and zero padding share one call. Equal planes are one.
        boxes: Valid content as [top, bottom, left, right), int, (B, 4); the rest becomes 255.
        keys: Class index of every channel, int64, (B, K), if the channels are a selection.
        shrink: Refinement runs at 1/shrink of the size.

    Returns:
        Labels, int64, (B, H, W).
    """
    maps, valid, keys = _selection(maps, tags, keys)
    size = (maps.shape[2], maps.shape[3])
    small = (max(size[0] // shrink, 1), max(size[1] // shrink, 1))
    small_maps = resize_bilinear(maps, small)
    planes = []
    levels = (high,) if high == low else (high, low)  # the same plane twice would be work for nothing
    for level in levels:
        stack = torch.cat([torch.full_like(small_maps[:, :1], level), small_maps], dim=1)
        stack[:, 1:].masked_fill_(~valid[:, :, None, None], -torch.inf)
        planes.append(stack.softmax(1))
    refined = refine(resize_bilinear(images, small), torch.cat(planes, dim=1))
    return _outside_ignored(_two_sided(refined, keys, size, len(levels)), boxes)


def refine_shares(
    images: Tensor,
    shares: Tensor,
    keys: Tensor,
    refine: Callable[[Tensor, Tensor], Tensor],
    boxes: Tensor | None = None,
    shrink: int = 2,
) -> Tensor:
    """As `refine_labels`, for maps in which background and classes have already shared out every pixel.

    Refinement sees nothing but the inside of the boxes, so that padding cannot leak into the labels; images
    with the same box are refined together (AFA's labels from its random walk).

    Args:
        images: RGB in [0, 1], (B, 3, H, W).
        shares: Shares against the high and against the low background plane, (2, B, M + 1, H, W), background
            first, 0 for classes that do not count.
        keys: Class index of the channels behind the background, int64, (B, M).
        refine: See `refine_labels`.
        boxes: Valid content as [top, bottom, left, right), int, (B, 4); the rest becomes 255.
        shrink: Refinement runs at 1/shrink of the box.

    Returns:
        Labels, int64, (B, H, W).
    """
    batch, _, height, width = images.shape
    groups: dict[tuple[int, int, int, int], list[int]] = {}
    rows = [[0, height, 0, width]] * batch if boxes is None else boxes.tolist()
    for index, (top, bottom, left, right) in enumerate(rows):
        box = (max(top, 0), min(bottom, height), max(left, 0), min(right, width))
        groups.setdefault(box, []).append(index)
    labels = torch.full((batch, height, width), IGNORE, dtype=torch.int64, device=images.device)
    for (top, bottom, left, right), members in groups.items():
        size = (bottom - top, right - left)
        small = (max(size[0] // shrink, 1), max(size[1] // shrink, 1))
        inside = shares[:, members, :, top:bottom, left:right].transpose(0, 1).flatten(1, 2)
        view = resize_bilinear(images[members, :, top:bottom, left:right], small)
        refined = refine(view, resize_bilinear(inside, small, align_corners=True))
        labels[members, top:bottom, left:right] = _two_sided(refined, keys[members], size)
    return labels


def _two_sided(refined: Tensor, keys: Tensor, size: tuple[int, int], sides: int = 2) -> Tensor:
    """Foreground from the first half of the channels, background where both halves agree, else ignore.

    With one side, all channels are both halves.
    """
    # Class 0 of the lookup is the background plane; padded channels are zero and never win.
    names = torch.cat([torch.zeros_like(keys[:, :1]), keys + 1], dim=1)
    found = [_look_up(names, strongest(resize_bilinear(part, size))) for part in refined.chunk(sides, dim=1)]
    high, low = found[0], found[-1]
    return high.masked_fill(high == 0, IGNORE).masked_fill((high == 0) & (low == 0), 0)


def box_mask(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Which pixels are inside the boxes.

    Args:
        boxes: [top, bottom, left, right), int, (B, 4); parts outside the image are cut off.
        size: (H, W).

    Returns:
        Bool, (B, H, W).
    """
    top, bottom, left, right = boxes.long()[:, :, None].unbind(1)
    rows = torch.arange(size[0], device=boxes.device)
    columns = torch.arange(size[1], device=boxes.device)
    in_rows = (rows >= top) & (rows < bottom)
    in_columns = (columns >= left) & (columns < right)
    return in_rows[:, :, None] & in_columns[:, None, :]


def predicted_tags(logits: Tensor, labels: Tensor, prefer: str, min_cells: int) -> Tensor:
    """Which classes an image shows when nobody tagged it, from the classifier and a predicted mask.

    MoRe's tools differ: one trusts the classifier and falls back on the mask ("classifier", 5 cells), the
    other trusts the mask unless it is all background ("mask", 4 cells).

    Args:
        logits: Class logits, (B, K).
        labels: Arg max of the segmentation logits on the patch grid, int, (B, h, w).
        prefer: "classifier" or "mask".
        min_cells: A class of the mask counts from this many cells on. The first class listed in the mask is
            exempt: background when it occurs, else the class with the lowest index (as the originals do).

    Returns:
        Tags, float32, (B, K).

    Raises:
        ValueError: If `prefer` is unknown.
    """
    if prefer not in ("classifier", "mask"):
        raise ValueError(f"prefer must be 'classifier' or 'mask', got {prefer!r}")
    num_classes = logits.shape[1]
    counts = torch.stack([row.flatten().long().bincount(minlength=num_classes + 1) for row in labels])
    first = (counts > 0).int().argmax(1, keepdim=True)
    listed = (counts >= min_cells).scatter(1, first, True)[:, 1:]
    positive = logits > 0
    if prefer == "classifier":
        chosen = torch.where(positive.any(1, keepdim=True), positive, listed)
    else:
        empty = ((labels == 0).flatten(1).all(1))[:, None]
        chosen = torch.where(empty, positive, listed)
    return chosen.float()


def _selection(maps: Tensor, tags: Tensor, keys: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    if keys is not None:
        return maps, tags > 0, keys
    keys, valid = present_classes(tags)
    return take_classes(maps, keys), valid, keys


def _strongest(maps: Tensor, tags: Tensor, keys: Tensor | None) -> tuple[Tensor, Tensor]:
    value, index = keep_present(maps, tags).max(1)
    return value, index + 1 if keys is None else _look_up(keys + 1, index)


def _look_up(names: Tensor, index: Tensor) -> Tensor:
    return names.gather(1, index.flatten(1)).view_as(index)


def _outside_ignored(labels: Tensor, boxes: Tensor | None) -> Tensor:
    if boxes is None:
        return labels
    inside = box_mask(boxes, (labels.shape[1], labels.shape[2]))
    return labels.masked_fill(~inside, IGNORE)

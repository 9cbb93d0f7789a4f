"""COCO's region formats as masks, pixel for pixel what the official toolkit draws from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "annotated", "count_runs", "decode_counts", "draw_polygon", "format_counts", "has_region", "parse_counts",
    "region_mask",
]  # fmt: skip

_FINE = 5  # the official toolkit walks outlines on a grid five times finer than the pixels
_FEW_STEPS, _STEPS_PER_PIXEL, _MOST_STEPS = 1_000_000, 20, 50_000_000
Bools = NDArray[np.bool_]


def region_mask(region: Any, size: tuple[int, int]) -> Bools:
    """Pixels of one annotated region.

    Args:
        region: The "segmentation" of an annotation: a list of polygons [x0, y0, x1, y1, ...] in pixels, or
            run lengths {"counts": list or compressed text, "size": [H, W]}.
        size: (H, W) of the image.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: The region is none of these, or does not fit the size.
    """
    if isinstance(region, Mapping):
        own = region.get("size", size)
        if not isinstance(own, Sequence) or tuple(own) != tuple(size):
            raise ValueError(f"run lengths are of size {own}, the image is {list(size)}")
        counts = region.get("counts")
        if isinstance(counts, (str, bytes)):
            counts = parse_counts(counts if isinstance(counts, str) else counts.decode("ascii"))
        if not isinstance(counts, Sequence):
            raise ValueError("run lengths need 'counts', a list of numbers or a text")
        return decode_counts(counts, size)
    if not isinstance(region, Sequence) or isinstance(region, str):
        raise ValueError(f"a region is a list of polygons or run lengths, not {type(region).__name__}")
    mask = np.zeros(size, bool)
    for polygon in region:
        mask |= draw_polygon(polygon, size)
    return mask


def annotated(annotation: Mapping[str, Any], size: tuple[int, int]) -> Bools:
    """Pixels of one annotation, (H, W) bool, see `region_mask`; its "bbox" must not contradict them.

    Args:
        annotation: With "segmentation".
        size: (H, W) of the image.

    Raises:
        ValueError: See `region_mask`; or the box is elsewhere, but fits if run lengths go along the rows,
            or begin with set pixels, or if corners are y and x.
    """
    region = annotation["segmentation"]
    mask = region_mask(region, size)
    box = _declared(annotation.get("bbox"))
    if box is None or _fits(mask, box):
        return mask
    if isinstance(region, Mapping):
        others = {
            "its run lengths go along the rows": np.asarray(mask.T.reshape(size)),
            "its run lengths begin with set pixels": ~mask,
        }
    else:
        turned = [np.reshape(part, (-1, 2))[:, ::-1].reshape(-1).tolist() for part in region]
        others = {"its corners are y and x": region_mask(turned, size)}
    for said, other in others.items():
        if _fits(other, box):
            raise ValueError(
                f"it is outside its bbox {[round(value) for value in box]}, and fits it if {said}; COCO's "
                "run lengths go down the columns and begin with unset pixels, its corners are x and y"
            )
    return mask


def _declared(bbox: Any) -> tuple[float, float, float, float] | None:
    """x, y, width and height; None if they are none."""
    try:
        x, y, width, height = (float(value) for value in bbox)
    except (TypeError, ValueError):
        return None
    return (x, y, width, height) if width > 0 and height > 0 else None


def _fits(mask: Bools, box: tuple[float, float, float, float]) -> bool:
    """Whether the smallest box around some pixels is about the declared one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return False
    own = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    x, y, width, height = box
    return all(abs(a - b) <= 2 for a, b in zip(own, (x, y, x + width, y + height), strict=True))


def has_region(annotation: Mapping[str, Any]) -> bool:
    """Whether an annotation outlines pixels; a box alone, with "segmentation" missing or [], does not."""
    region = annotation.get("segmentation")
    return any(bool(part) for part in region) if isinstance(region, list) else bool(region)


def decode_counts(counts: Sequence[int], size: tuple[int, int]) -> Bools:
    """Mask from run lengths: unset, set, unset, ... down the columns, (H, W) bool.

    Raises:
        ValueError: A run is negative, or the runs do not add up to H * W.
    """
    runs = np.asarray(counts)
    if runs.size and runs.dtype.kind not in "iu":
        raise ValueError("run lengths must be whole numbers")
    if (runs < 0).any() or int(runs.sum(dtype=object)) != size[0] * size[1]:
        raise ValueError(f"run lengths must be at least 0 and add up to {size[0]} x {size[1]} pixels")
    flat = np.repeat(np.arange(runs.size) % 2 == 1, runs.astype(np.int64))
    return flat.reshape(size[1], size[0]).T


def parse_counts(text: str) -> list[int]:
    """Run lengths from COCO's compressed text.

    Each number is written five bits a character, lowest first, offset by 48; bit 6 says that more follow, and
    from the third on it is the difference to the number two before.

    Raises:
        ValueError: The text holds other characters or breaks off inside a number.
    """
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        part = ord(character) - 48
        if not 0 <= part < 64 or shift > 60:
            raise ValueError(f"'{character}' is not allowed in compressed run lengths")
        value |= (part & 31) << shift
        shift += 5
        if part & 32:
            continue
        if part & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value, shift = 0, 0
    if shift:
        raise ValueError("compressed run lengths break off inside a number")
    return counts


def count_runs(mask: Bools) -> list[int]:
    """Run lengths of a mask, (H, W) bool: unset, set, unset, ... down the columns."""
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return [0, *runs] if flat.size and flat[0] else runs


def format_counts(counts: Sequence[int]) -> str:
    """Run lengths as COCO's compressed text, see `parse_counts`."""
    text = []
    for place, count in enumerate(counts):
        value = count - counts[place - 2] if place > 2 else count
        more = True
        while more:
            part, value = value & 31, value >> 5
            # The number ends where all that is left repeats the sign bit of the part written last.
            more = value != (-1 if part & 16 else 0)
            text.append(chr(part + 32 * more + 48))
    return "".join(text)


def draw_polygon(points: Sequence[float], size: tuple[int, int]) -> Bools:
    """Pixels inside one closed outline, (H, W) bool.

    Args:
        points: [x0, y0, x1, y1, ...] in pixels, at least three corners.
        size: (H, W).

    Raises:
        ValueError: There are fewer corners, an odd count, or coordinates that are no numbers or far outside.
    """
    height, width = size
    corners = _corners(points, size)
    flips = np.concatenate([_crossings(part, size) for part in _parts(corners, size)])
    mask = np.zeros(size, bool)
    if not flips.size:
        return mask
    # Fill by parity, column by column, where there is anything to fill.
    first, last = int(flips.min()) // height, min(int(flips.max()) // height, width - 1)
    count = (last - first + 1) * height
    parity = np.bincount(flips - first * height, minlength=count)[:count].cumsum() & 1
    mask[:, first : last + 1] = parity.astype(bool).reshape(last - first + 1, height).T
    return mask


def _parts(corners: NDArray[np.int64], size: tuple[int, int]) -> Iterator[NDArray[np.int64]]:
    """The outline in pieces that can be walked in memory; each begins where the one before ends.

    Raises:
        ValueError: It is longer than outlines of things on a picture of this size can be.
    """
    steps = np.abs(np.diff(corners, axis=0)).max(axis=1) + 1
    total, most = int(steps.sum()), min(_MOST_STEPS, _FEW_STEPS + _STEPS_PER_PIXEL * size[0] * size[1])
    if total > most:
        raise ValueError(f"a polygon of {len(corners) - 1:,} corners is too long an outline for its image")
    cuts = np.searchsorted(np.cumsum(steps), np.arange(_FEW_STEPS, total, _FEW_STEPS)) + 1
    ends = np.unique([0, *cuts.tolist(), len(corners) - 1])
    for start, end in pairwise(ends.tolist()):
        yield corners[start : end + 1]


def _crossings(corners: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.int64]:
    """Where the fill flips: column times height plus row of the pixel below each change of column."""
    height, width = size
    u, v = _walk(corners)
    crossing = np.flatnonzero(np.diff(u))
    before, after = u[crossing], u[crossing + 1]
    column = (np.where(after < before, after, after - 1) + 0.5) / _FINE - 0.5
    row = (np.minimum(v[crossing], v[crossing + 1]) + 0.5) / _FINE - 0.5
    inside = (column == np.floor(column)) & (column >= 0) & (column <= width - 1)
    row = np.ceil(np.clip(row[inside], 0, height))
    return np.asarray(column[inside] * height + row, np.int64)


def _corners(points: Sequence[float], size: tuple[int, int]) -> NDArray[np.int64]:
    """Corners on the fine grid, closed, (n + 1, 2) as (x, y)."""
    try:
        flat = np.asarray(points, np.float64)
    except (TypeError, ValueError):
        raise ValueError("a polygon is a list of numbers [x0, y0, x1, y1, ...]") from None
    if flat.ndim != 1 or flat.size < 6 or flat.size % 2:
        raise ValueError(f"a polygon needs x and y of at least 3 corners, got {flat.size} numbers")
    # An outline far outside would be walked step by step for nothing, so it is taken for damage.
    if not (np.abs(flat) <= 10 * max(size) + 1000).all():
        raise ValueError("a polygon has corners far outside its image, or that are no numbers")
    corners = np.trunc(_FINE * flat.reshape(-1, 2) + 0.5).astype(np.int64)
    return np.concatenate([corners, corners[:1]])


def _walk(corners: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All points of the outline on the fine grid, one step of the longer axis at a time: (x, y)."""
    start, end = corners[:-1], corners[1:]
    span = np.abs(end - start)
    flat = span[:, 0] >= span[:, 1]  # walks along x
    length = span.max(axis=1)
    # Every line is computed from its lower end, so that rounding does not depend on the direction.
    major = np.where(flat, 0, 1)
    edge = np.arange(len(start))
    back = start[edge, major] > end[edge, major]
    low, high = np.where(back[:, None], end, start), np.where(back[:, None], start, end)
    slope = (high[edge, 1 - major] - low[edge, 1 - major]) / np.maximum(length, 1)
    count = length + 1
    line = np.repeat(edge, count)
    step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    step = np.where(back[line], length[line] - step, step)
    along = low[line, major[line]] + step
    across = np.trunc(low[line, 1 - major[line]] + slope[line] * step + 0.5).astype(np.int64)
    return np.where(flat[line], along, across), np.where(flat[line], across, along)

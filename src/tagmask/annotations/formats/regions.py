"""Label images as regions and outlines, the way annotation tools hold them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from contourpy import FillType, contour_generator
from numpy.typing import NDArray
from scipy import ndimage

from tagmask.data.readers.rle import draw_polygon
from tagmask.types import IGNORE

__all__ = ["MIN_IOU", "Region", "components", "outlines", "polygon_mask"]

MIN_IOU = 0.95
"""Outlines are simplified only as far as they still overlap their region by this intersection over union."""
_TOLERANCES = (1.5, 1.0, 0.7, 0.4)
_ROUND = 2

Bools = NDArray[np.bool_]
Points = NDArray[np.float64]


@dataclass(frozen=True)
class Region:
    """Connected pixels of one class.

    Attributes:
        label: 1 to K.
        top: First row of its box in the image.
        left: First column of its box.
        pixels: Its pixels within the box, (h, w) bool.
    """

    label: int
    top: int
    left: int
    pixels: Bools

    @property
    def area(self) -> int:
        """Number of its pixels."""
        return int(self.pixels.sum())

    def whole(self, size: tuple[int, int]) -> Bools:
        """Its pixels in the image, (H, W) bool."""
        result = np.zeros(size, bool)
        height, width = self.pixels.shape
        result[self.top : self.top + height, self.left : self.left + width] = self.pixels
        return result


def components(mask: NDArray[np.uint8]) -> list[Region]:
    """Connected regions of every class, the largest first; diagonal neighbours count, ignored pixels do not.

    Args:
        mask: Labels, (H, W) uint8.
    """
    found = []
    for label in np.unique(mask):
        if label in (0, IGNORE):
            continue
        numbers, _ = ndimage.label(mask == label, structure=np.ones((3, 3), int))
        for number, box in enumerate(ndimage.find_objects(numbers), start=1):
            rows, columns = box
            found.append(Region(int(label), rows.start, columns.start, numbers[box] == number))
    return sorted(found, key=lambda region: -region.area)


def outlines(region: Region, min_iou: float = MIN_IOU) -> list[Points]:
    """Closed outlines of a region, simplified as far as the wanted overlap allows.

    Coordinates are (x, y) in pixels of the image, 0 at the left and upper border of the first pixel. A hole
    becomes part of its outline by a cut of no width, since most tools know no holes.

    Args:
        region: The region.
        min_iou: Least overlap of what `polygon_mask` draws with the region.

    Returns:
        One or more (n, 2) arrays, n at least 3; together they cover the region.
    """
    exact = list(_trace(region.pixels))
    shift = np.asarray([region.left, region.top], np.float64)
    for tolerance in _TOLERANCES:
        polygons = [_cut([simplify(ring, tolerance) for ring in rings]) for rings in exact]
        if _overlap(polygons, region.pixels) >= min_iou:
            break
    else:
        polygons = [_cut([simplify(ring, 0.0) for ring in rings]) for rings in exact]
    return [np.round(polygon + shift, _ROUND) for polygon in polygons]


def polygon_mask(polygons: Sequence[NDArray[np.floating]], size: tuple[int, int]) -> Bools:
    """Pixels inside any of some outlines, as COCO's toolkit draws them, (H, W) bool.

    Raises:
        ValueError: An outline has fewer than 3 corners, or corners far outside.
    """
    result = np.zeros(size, bool)
    for polygon in polygons:
        result |= draw_polygon(np.asarray(polygon, np.float64).reshape(-1).tolist(), size)
    return result


def _overlap(polygons: Sequence[Points], pixels: Bools) -> float:
    drawn = polygon_mask(polygons, (pixels.shape[0], pixels.shape[1]))
    return float((drawn & pixels).sum() / (drawn | pixels).sum())


def _trace(pixels: Bools) -> Iterator[list[Points]]:
    """Outer ring and rings of the holes of every piece, half-way between pixels inside and outside."""
    padded = np.pad(pixels, 1).astype(np.float64)
    found = contour_generator(z=padded, fill_type=FillType.OuterOffset).filled(0.5, 2.0)
    for points, offsets in zip(found[0], cast(list[NDArray[np.uint32]], found[1]), strict=True):
        # The padding shifts by one pixel, and a pixel's centre is half a pixel inside it.
        rings = np.split(np.asarray(points, np.float64) - 0.5, np.asarray(offsets[1:-1], int))
        yield [ring[:-1] for ring in rings]


def simplify(ring: Points, tolerance: float) -> Points:
    """A closed ring with fewer corners, none of those left out further away than the tolerance.

    Douglas and Peucker, "Algorithms for the reduction of the number of points required to represent a
    digitized line or its caricature", 1973.

    Args:
        ring: (n, 2), the first corner not repeated.
        tolerance: Distance in pixels; 0 leaves out only corners on a straight line.

    Returns:
        (m, 2); the ring itself where fewer than 3 corners would be left.
    """
    far = int(((ring - ring[0]) ** 2).sum(1).argmax())
    keep = np.zeros(len(ring) + 1, bool)
    keep[[0, far, len(ring)]] = True
    closed = np.concatenate([ring, ring[:1]])
    open_parts = [(0, far), (far, len(ring))]
    while open_parts:
        first, last = open_parts.pop()
        if last - first < 2:
            continue
        away = _distances(closed[first + 1 : last], closed[first], closed[last])
        worst = int(away.argmax())
        if away[worst] > tolerance + 1e-9:
            middle = first + 1 + worst
            keep[middle] = True
            open_parts += [(first, middle), (middle, last)]
    chosen = closed[:-1][keep[:-1]]
    return chosen if len(chosen) >= 3 else ring


def _distances(points: Points, start: Points, end: Points) -> Points:
    """Distance of points from the line through two others, or from the one they both are."""
    direction, offset = end - start, points - start
    length = float(np.hypot(*direction))
    if length == 0:
        return np.hypot(offset[:, 0], offset[:, 1])
    return np.asarray(np.abs(direction[0] * offset[:, 1] - direction[1] * offset[:, 0]) / length)


def _cut(rings: Sequence[Points]) -> Points:
    """One outline of an outer ring and its holes, each joined where it is nearest."""
    outline, *holes = rings
    for hole in sorted(holes, key=lambda ring: float(ring[:, 0].min())):
        distance = ((outline[:, None] - hole[None]) ** 2).sum(2)
        here, there = np.unravel_index(int(distance.argmin()), distance.shape)
        turned = np.roll(hole, -int(there), axis=0)
        outline = np.concatenate([outline[: here + 1], turned, turned[:1], outline[here:]])
    return outline

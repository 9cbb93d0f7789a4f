"""From a few strokes to a whole label image: regions along image edges, and walks that spread labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.sparse import coo_matrix, diags
from scipy.sparse.linalg import splu

from tagmask.ops.crf import dense_crf
from tagmask.ops.crf_presets import unary_from_probabilities

__all__ = ["UNMARKED", "regions", "spread_strokes"]

UNMARKED = 255
"""Value of pixels that nobody marked."""
_WALK_SIDE = 224
_CRF_SIDE = 512
_SMALLEST_WEIGHT = 1e-4
_PRIOR = 0.002
"""Weight of the prior at a pixel beside weights of at most 1 to its four neighbours."""

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]


def regions(image: Bytes, count: int = 600) -> NDArray[np.uint16]:
    """Cut an image into regions of about one size whose borders follow its edges.

    A watershed of the gradient from seeds on a grid (Beucher and Meyer, 1993), each seed moved to the
    flattest place near it as SLIC does (Achanta et al., 2012).

    Args:
        image: RGB, (H, W, 3).
        count: About how many regions; at most 60,000.

    Returns:
        Number of every pixel's region, from 1, (H, W).
    """
    height, width = image.shape[:2]
    steep = _steepness(image)
    step = max(2.0, (height * width / min(count, 60_000)) ** 0.5)
    rows = np.arange(step / 2, height, step).astype(int)
    columns = np.arange(step / 2, width, step).astype(int)
    seeds = np.zeros((height, width), np.int32)
    reach = max(1, int(step / 4))
    number = 0
    for row in rows if len(rows) else [height // 2]:
        for column in columns if len(columns) else [width // 2]:
            top, left = max(row - reach, 0), max(column - reach, 0)
            near = steep[top : row + reach + 1, left : column + reach + 1]
            y, x = np.unravel_index(int(near.argmin()), near.shape)
            number += 1
            seeds[top + y, left + x] = number
    scaled = np.clip(steep / max(float(steep.max()), 1e-9) * 255, 0, 255).astype(np.uint8)
    return np.asarray(ndimage.watershed_ift(scaled, seeds), np.uint16)


def _steepness(image: Bytes) -> NDArray[np.float32]:
    """Length of the colour gradient, (H, W)."""
    smooth = ndimage.gaussian_filter(image.astype(np.float32), (1, 1, 0))
    down, right = ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1)
    return np.asarray(np.sqrt((down**2 + right**2).sum(-1)), np.float32)


def spread_strokes(image: Bytes, strokes: Bytes, prior: Bytes | None = None) -> Bytes:
    """Labels of all pixels from those that a person marked.

    A random walker (Grady, 2006) that starts at a pixel arrives at strokes of different labels with
    probabilities that the image's edges decide; with a prior it may also end at every pixel (Grady, 2005),
    and where it mostly ends off the strokes the pixel stays what it was. A dense CRF then moves the borders
    to the image's own.

    Args:
        image: RGB, (H, W, 3).
        strokes: Marked labels, 255 where nothing is marked, (H, W).
        prior: What was there before, (H, W), 255 where undecided; the strokes alone decide if None.

    Returns:
        Labels, (H, W): marked pixels keep theirs.

    Raises:
        ValueError: Sizes differ, or nothing is marked.
    """
    if image.shape[:2] != strokes.shape or (prior is not None and prior.shape != strokes.shape):
        raise ValueError("image, strokes and prior must have one size")
    marked = np.unique(strokes[strokes != UNMARKED])
    if not len(marked):
        raise ValueError("nothing is marked")
    # 255 stands for everything that was there before and is not marked.
    labels = marked if prior is None else np.append(marked, np.uint8(UNMARKED))
    if len(labels) == 1:
        return np.full_like(strokes, labels[0])
    rest = None if prior is None else np.where(np.isin(prior, marked), prior, np.uint8(UNMARKED))
    small = _size(strokes.shape, _WALK_SIDE)
    marks, before = _marks(strokes, small, labels), _before(rest, small, labels)
    shares = _walk(_resized(image, small), marks, before)
    size = _size(strokes.shape, _CRF_SIDE)
    planes = np.stack([_resized(plane.astype(np.float32), size) for plane in shares])
    known = _strokes_at(strokes, size)
    planes[:, known != UNMARKED] = 0
    for row, label in enumerate(marked):
        planes[row, known == label] = 1
    # 0.9: walks that hardly met an edge are near certain, and the CRF could not move their borders.
    soft = 0.9 * planes + 0.1 / len(labels)
    unary = unary_from_probabilities(torch.from_numpy(np.ascontiguousarray(soft, np.float32)))
    picture = torch.from_numpy(np.array(_resized(image, size)))
    winner = dense_crf(picture, unary, "more").argmax(0).numpy().astype(np.uint8)
    found = labels[_resized(winner, (strokes.shape[0], strokes.shape[1]), nearest=True)].astype(np.uint8)
    if prior is not None:
        found = np.where(found == UNMARKED, prior, found)
    return np.where(strokes == UNMARKED, found, strokes)


def _walk(image: Bytes, marks: Floats, before: Floats | None) -> Floats:
    """Probability of every label at every pixel, (n, h, w)."""
    height, width = image.shape[:2]
    pixels = ndimage.gaussian_filter(image.astype(np.float64), (0.7, 0.7, 0))
    grid = np.arange(height * width).reshape(height, width)
    pairs = [(grid[:, :-1], grid[:, 1:]), (grid[:-1], grid[1:])]
    one = np.concatenate([a.reshape(-1) for a, _ in pairs])
    other = np.concatenate([b.reshape(-1) for _, b in pairs])
    flat = pixels.reshape(-1, 3)
    apart = ((flat[one] - flat[other]) ** 2).sum(1)
    weight = np.exp(-apart / max(2 * float(apart.mean()), 1e-6)) + _SMALLEST_WEIGHT
    both = coo_matrix(
        (np.tile(weight, 2), (np.concatenate([one, other]), np.concatenate([other, one]))),
        shape=(grid.size, grid.size),
    ).tocsr()
    count, rows = len(marks), marks.reshape(len(marks), -1)
    known = rows.sum(0) > 0
    result = rows / np.maximum(rows.sum(0), 1)
    degree = np.asarray(both.sum(1)).reshape(-1)
    pull = np.zeros((count, grid.size)) if before is None else _PRIOR * before.reshape(count, -1)
    open_ = ~known
    if open_.any():
        inner: Any = diags(degree[open_] + pull.sum(0)[open_]) - both[open_][:, open_]
        right = both[open_][:, known] @ result[:, known].T + pull[:, open_].T
        result[:, open_] = splu(inner.tocsc()).solve(right).T
    return np.asarray(np.clip(result, 0, 1).reshape(count, height, width))


def _size(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    factor = min(1.0, side / max(shape))
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def _resized(values: NDArray[Any], size: tuple[int, int], nearest: bool = False) -> NDArray[Any]:
    if values.shape[:2] == size:
        return values
    how = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    return np.array(Image.fromarray(values).resize((size[1], size[0]), how))


def _strokes_at(strokes: Bytes, size: tuple[int, int]) -> Bytes:
    """Strokes at a smaller size; thin ones stay, since every marked pixel marks the one it falls into."""
    if strokes.shape == size:
        return strokes
    result = np.full(size, UNMARKED, np.uint8)
    rows, columns = np.nonzero(strokes != UNMARKED)
    result[rows * size[0] // strokes.shape[0], columns * size[1] // strokes.shape[1]] = strokes[rows, columns]
    return result


def _marks(strokes: Bytes, size: tuple[int, int], labels: Bytes) -> Floats:
    small = _strokes_at(strokes, size)
    return np.stack([(small == label) & (label != UNMARKED) for label in labels]).astype(np.float64)


def _before(prior: Bytes | None, size: tuple[int, int], labels: Bytes) -> Floats | None:
    if prior is None:
        return None
    small = _resized(prior, size, nearest=True)
    return np.stack([(small == label).astype(np.float64) for label in labels])

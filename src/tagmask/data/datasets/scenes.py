"""Procedural scenes: textured objects on clutter, with tags for training and masks for scoring only.

Colour and outline say nothing about the class: an object belongs to its class by its texture alone. Plain
shapes and two textures that belong to no class are strewn in between, so neither "has an outline" nor "has a
texture" is enough to find an object. Every scene is a function of its seed and index.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tagmask.data.classes import class_file
from tagmask.data.datasets.tagfile import write_tag_file

CLASSES = ("stripes", "dots", "checker", "rings", "marble")
_NEGATIVE_SHARE = 0.05

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Scene:
    """One picture and what is known about it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8, 0 background, k + 1 for class k of `CLASSES`. For scoring, never for training.
        tags: names of the classes in the mask, in class order; empty for a picture without any object.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    tags: tuple[str, ...]


def render(index: int, seed: int, size: int = 96, num_classes: int = 5) -> Scene:
    """Draw scene `index` of the endless set `seed`.

    Args:
        index: Number of the scene, 0 or more.
        seed: Number of the set, 0 or more. Sets of different seeds share no scene.
        size: Height and width in pixels, at least 32. Objects and textures scale with it.
        num_classes: How many of `CLASSES` may appear, 1 to 5.

    Returns:
        The scene. About one in twenty holds no object and has no tags.

    Raises:
        ValueError: On a size below 32, a class count outside 1 to 5, or a negative index or seed.
    """
    if size < 32:
        raise ValueError(f"size is {size}; scenes need at least 32 px")
    if not 1 <= num_classes <= len(CLASSES):
        raise ValueError(f"num_classes is {num_classes}; allowed are 1 to {len(CLASSES)}")
    if index < 0 or seed < 0:
        raise ValueError(f"index and seed must be 0 or more, got {index} and {seed}")
    rng = np.random.default_rng((seed, index))
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    canvas = _background(rng, y, x)
    for _ in range(rng.integers(2, 6)):
        _paint(canvas, _shape(rng, y, x, rng.uniform(0.05, 0.18)), _distractor(rng, y, x))
    mask = np.zeros((size, size), np.uint8)
    num_objects = 0 if rng.random() < _NEGATIVE_SHARE else int(rng.integers(1, 4))
    for _ in range(num_objects):
        label = int(rng.integers(num_classes))
        shape = _free_shape(rng, y, x, mask > 0)
        if shape is not None:
            _paint(canvas, shape, _coloured(rng, _texture(rng, y, x, CLASSES[label], shape)))
            mask[shape] = label + 1
    light = 1 + rng.uniform(-0.25, 0.25) * (x - 0.5) + rng.uniform(-0.25, 0.25) * (y - 0.5)
    canvas = canvas * light[..., None] + rng.normal(0, 0.02, canvas.shape).astype(np.float32)
    image = (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8)
    present = np.unique(mask)
    return Scene(image, mask, tuple(CLASSES[k - 1] for k in present if k > 0))


def write_dataset(root: Path | str, num_train: int, num_val: int, size: int = 96, seed: int = 0) -> Path:
    """Write scenes as a `folder` data set.

    The layout is `images/00000.png`, `tags.csv` (columns image, tags, split), `classes.txt`, and, for the
    validation split only, `masks/00000.png` in indexed colours: no mask of the training split could leak.

    Args:
        root: Folder to write into; made when missing. Files of the same names are overwritten.
        num_train: Scenes in split `train`, taken from set `seed` from index 0 on.
        num_val: Scenes in split `val`, the indices after these.
        size: Height and width in pixels.
        seed: Number of the set.

    Returns:
        The root.
    """
    root = Path(root)
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(num_train + num_val):
        scene = render(index, seed, size)
        name, split = f"{index:05d}.png", "train" if index < num_train else "val"
        # Level 1 writes four times faster than the default and the noise leaves little to compress.
        Image.fromarray(scene.image).save(root / "images" / name, compress_level=1)
        if split == "val":
            indexed = Image.fromarray(scene.mask)
            indexed.putpalette(_PALETTE)
            indexed.save(root / "masks" / name)
        rows.append((name, scene.tags, split))
    write_tag_file(root / "tags.csv", rows)
    (root / "classes.txt").write_text(class_file(CLASSES), encoding="utf-8")
    return root


_PALETTE = bytes([0, 0, 0, 230, 75, 60, 60, 130, 230, 245, 200, 65, 60, 180, 110, 160, 90, 200])


def _texture(rng: np.random.Generator, y: Floats, x: Floats, name: str, inside: Bools) -> Floats:
    """Grey pattern in [0, 1]: a soft two-tone field with random period, angle and phase."""
    period = rng.uniform(0.07, 0.12)
    if name == "marble":
        return _tone(_bumps(rng, y, x, 1.4 * period), 6.0)
    if name == "rings":
        # A centre near the object's own: far from it the bands would be straight, which is another class.
        cy = float(y[inside].mean()) + rng.uniform(-0.06, 0.06)
        cx = float(x[inside].mean()) + rng.uniform(-0.06, 0.06)
        return _tone(np.sin(2 * np.pi / period * np.hypot(y - cy, x - cx)), 3.0)
    u, v = _rotated(rng, y, x, 2 * np.pi / period)
    if name == "stripes":
        return _tone(np.sin(u), 3.0)
    if name == "dots":
        return _tone(np.cos(u) + np.cos(v) - rng.uniform(0.3, 0.8), 3.0)
    return _tone(np.sin(u / 1.6) * np.sin(v / 1.6), 6.0)


def _distractor(rng: np.random.Generator, y: Floats, x: Floats) -> Floats:
    """(H, W, 3) fill that belongs to no class: plain with a gradient (most), speckle, or a grid of lines."""
    kind = rng.random()
    if kind < 0.6:
        u, _ = _rotated(rng, y, x, 1.0)
        return _coloured(rng, (u - u.min()) / (u.max() - u.min() + 1e-6) * 0.4)
    if kind < 0.8:
        return _coloured(rng, rng.random(y.shape, dtype=np.float32))
    u, v = _rotated(rng, y, x, 2 * np.pi / rng.uniform(0.08, 0.14))
    return _coloured(rng, _tone(np.maximum(np.cos(u), np.cos(v)) - 0.75, 8.0))


def _background(rng: np.random.Generator, y: Floats, x: Floats) -> Floats:
    """(H, W, 3) soft clouds between two random colours, crossed by a few straight edges."""
    clouds = _bumps(rng, y, x, rng.uniform(0.4, 0.8)) + 0.4 * _bumps(rng, y, x, 0.25)
    canvas = _coloured(rng, _tone(clouds, 1.0), contrast=0.15)
    for _ in range(rng.integers(1, 4)):
        u, _v = _rotated(rng, y, x, 1.0)
        side = u > rng.uniform(float(u.min()), float(u.max()))
        canvas[side] = canvas[side] * 0.6 + 0.4 * rng.random(3, dtype=np.float32)
    return canvas


def _bumps(rng: np.random.Generator, y: Floats, x: Floats, scale: float) -> Floats:
    """Noise with features of about `scale` picture widths: plane waves of like length, random direction."""
    num = 10
    angle, phase = rng.uniform(0, 2 * np.pi, (2, num)).astype(np.float32)
    rate = (2 * np.pi / scale * rng.uniform(0.6, 1.3, num)).astype(np.float32)
    # A wave is the imaginary part of a product of a row and a column factor: no sine per pixel is needed.
    rows = np.exp(1j * (y[:, :1] * (rate * np.sin(angle)) + phase)).astype(np.complex64)
    cols = np.exp(1j * (x[:1].T * (rate * np.cos(angle)))).astype(np.complex64)
    return np.asarray((rows @ cols.T).imag, np.float32) * np.float32(np.sqrt(2 / num))


def _rotated(rng: np.random.Generator, y: Floats, x: Floats, rate: float) -> tuple[Floats, Floats]:
    """Two perpendicular coordinates at a random angle, with random offsets, in units of 1 / rate."""
    angle = rng.uniform(0, 2 * np.pi)
    c, s = np.float32(rate * np.cos(angle)), np.float32(rate * np.sin(angle))
    du, dv = rng.uniform(0, 2 * np.pi, 2).astype(np.float32)
    return c * x + s * y + du, c * y - s * x + dv


def _tone(field: Floats, gain: float) -> Floats:
    """Squash to [0, 1]; a higher gain gives harder edges."""
    return np.asarray(0.5 + 0.5 * np.tanh(gain * field), np.float32)


def _coloured(rng: np.random.Generator, grey: Floats, contrast: float = 0.45) -> Floats:
    """(H, W, 3) blend of two random colours at least `contrast` apart in mean absolute difference."""
    first = rng.random(3, dtype=np.float32)
    second = rng.random(3, dtype=np.float32)
    while np.abs(first - second).mean() < contrast:
        first, second = rng.random((2, 3), dtype=np.float32)
    return first + grey[..., None] * (second - first)


def _shape(rng: np.random.Generator, y: Floats, x: Floats, radius: float) -> Bools:
    """Filled outline of about `radius` picture widths around a random centre: ellipse, polygon or blob."""
    cy, cx = rng.uniform(0.12, 0.88, 2)
    stretch = rng.uniform(0.75, 1.33)
    dy, dx = (y - cy) * np.float32(stretch), (x - cx) / np.float32(stretch)
    # Outside its square of twice the radius no outline reaches, so the angle is worked out there only.
    inside = np.zeros(y.shape, bool)
    near = (np.abs(dy) < 2 * radius) & (np.abs(dx) < 2 * radius)
    distance, angle = np.hypot(dy[near], dx[near]), np.arctan2(dy[near], dx[near])
    turn = rng.uniform(0, 2 * np.pi)
    kind = rng.integers(3)
    edge = np.full_like(angle, radius)
    if kind == 1:
        half = np.pi / rng.integers(3, 7)
        edge = 1.25 * radius * np.cos(half) / np.cos((angle - turn) % (2 * half) - half)
    elif kind == 2:
        lobes, depth = rng.integers(3, 7), rng.uniform(0.1, 0.3)
        edge = radius * (1 + depth * np.sin(lobes * angle + turn))
    inside[near] = distance < edge
    return inside


def _free_shape(rng: np.random.Generator, y: Floats, x: Floats, taken: Bools) -> Bools | None:
    """An object's outline that covers little of the earlier ones, or None when eight tries find no room."""
    for _ in range(8):
        shape = _shape(rng, y, x, rng.uniform(0.16, 0.27))
        if not (shape & taken).any() or (shape & taken).sum() < 0.1 * min(shape.sum(), taken.sum()):
            return shape
    return None


def _paint(canvas: Floats, shape: Bools, fill: Floats) -> None:
    """Overwrite the canvas inside the outline."""
    canvas[shape] = fill[shape]

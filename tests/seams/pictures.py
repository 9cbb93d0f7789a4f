"""Photographs with known statistics, and what of them enters a network.

Their blue is a fixed mixture of their red and green, with a constant in it. Cutting, mirroring and every
linear way of resizing keep that tie; swapped channels, another range and padding break it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

LIGHTS = {"bright": (165, 80, 190, 60, 40), "dark": (12, 60, 50, -38, 6)}
"""Red at the left, its rise to the right, green at the top, its rise downwards, the constant of blue."""
CLASSES = ("first", "second", "third")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def photograph(light: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A smooth picture, (H, W, 3) uint8; red says how far right a pixel lies, green how far down."""
    red, to_right, green, down, constant = LIGHTS[light]
    y, x = (np.arange(side) / max(side - 1, 1) for side in size)
    r = np.broadcast_to(red + to_right * x, size)
    g = np.broadcast_to((green + down * y)[:, None], size)
    return np.stack([r, g, 0.5 * r + 0.25 * g + constant], -1).round().astype(np.uint8)


def stripes(light: str, size: tuple[int, int], labels: Sequence[int] = (0, 1, 3, 255)) -> NDArray[np.uint8]:
    """A label map of upright stripes, (H, W) uint8: what the red of the photograph says as well."""
    place = np.arange(size[1]) * len(labels) // size[1]
    return np.broadcast_to(np.asarray(labels, np.uint8)[place], size).copy()


def figures(levels: NDArray[np.floating]) -> NDArray[np.floating]:
    """Mean, deviation, smallest and largest value of every channel of (n, 3) grey levels, (4, 3)."""
    return np.stack([levels.mean(0), levels.std(0), levels.min(0), levels.max(0)])


def grey_levels(image: Tensor) -> NDArray[np.floating]:
    """(3, H, W) in [0, 1] to (H, W, 3) in grey levels; no function of the toolkit takes part."""
    return image.detach().double().permute(1, 2, 0).numpy() * 255


def tied(levels: NDArray[np.floating], light: str, slack: float = 2.5) -> NDArray[np.bool_]:
    """Which pixels of (..., 3) grey levels keep the tie and the range of a photograph."""
    red, to_right, green, down, constant = LIGHTS[light]
    gap = levels[..., 2] - (0.5 * levels[..., 0] + 0.25 * levels[..., 1] + constant)
    ends = ((red, red + to_right), (min(green, green + down), max(green, green + down)))
    inside = [(levels[..., i] > low - 3) & (levels[..., i] < high + 3) for i, (low, high) in enumerate(ends)]
    return (np.abs(gap) <= slack) & inside[0] & inside[1]


def write_folder(
    root: Path, size: tuple[int, int], labels: bool = False, split: str | None = None
) -> dict[str, NDArray[np.uint8]]:
    """A data set of the two photographs, tagged alike; its masks are the stripes. Gives name to pixels."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    rows, made = ["image,tags" + (",split" if split else "")], {}
    for light in LIGHTS:
        made[light] = photograph(light, size)
        Image.fromarray(made[light]).save(root / "images" / f"{light}.png")
        Image.fromarray(stripes(light, size)).save(root / "masks" / f"{light}.png")
        rows.append(f"{light}.png,first;third" + (f",{split}" if split else ""))
    (root / "tags.csv").write_text("\n".join(rows) + "\n")
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    return made


@contextmanager
def entering(
    module: nn.Module, expected: tuple[tuple[float, ...], tuple[float, ...]]
) -> Iterator[list[Tensor]]:
    """Whatever enters the first layer that sees colours, normalisation undone: (B, 3, H, W) each time."""
    seen: list[Tensor] = []
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in expected)

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].ndim == 4 and inputs[0].shape[1] == 3:
            seen.append(inputs[0].detach().float() * std + mean)

    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d) and layer.in_channels == 3]
    handles = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()

"""Draw the pictures of docs/concepts/refinement.md: ``python docs/make_figures/refinement.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tagmask.losses.energy import dense_energy_loss
from tagmask.ops.crf import dense_crf
from tagmask.ops.crf_presets import PRESETS, unary_from_probabilities
from tagmask.ops.labels import labels_from_maps
from tagmask.ops.pixel_refinement import par

OUT = Path(__file__).parent.parent / "images"
SIZE = 224
GREY = "#7c7c7c"  # of titles: the pictures have no background, and pages are white or dark


def draw() -> tuple[Tensor, Tensor]:
    """A four-legged something on a meadow: image, uint8 (H, W, 3), and which pixels belong to it, (H, W)."""
    random = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.linspace(0, 1, SIZE), torch.linspace(0, 1, SIZE), indexing="ij")

    def clouds(cells: int) -> Tensor:
        grid = torch.rand(1, 1, cells, cells, generator=random)
        return F.interpolate(grid, (SIZE, SIZE), mode="bicubic")[0, 0] - 0.5

    def ellipse(centre: tuple[float, float], size: tuple[float, float]) -> Tensor:
        return ((y - centre[0]) / size[0]) ** 2 + ((x - centre[1]) / size[1]) ** 2 < 1

    def paint(where: Tensor, colour: tuple[int, int, int], shade: Tensor) -> None:
        image[where] = (torch.tensor(colour, dtype=torch.float32) + shade.unsqueeze(2))[where]

    image = torch.zeros(SIZE, SIZE, 3)
    paint(y < 2, (120, 160, 205), 40 * y + 30 * clouds(4))
    paint(y > 0.42 + 0.05 * clouds(5), (92, 128, 60), 70 * clouds(9) + 30 * clouds(40))
    legs = [ellipse((0.72, c), (0.16, 0.03)) for c in (0.34, 0.42, 0.6, 0.67)]
    fur = ellipse((0.56, 0.5), (0.13, 0.24)) | ellipse((0.38, 0.72), (0.1, 0.1)) | legs[0] | legs[1]
    fur |= legs[2] | legs[3] | ellipse((0.47, 0.66), (0.12, 0.07)) | ellipse((0.29, 0.66), (0.06, 0.025))
    tail = ellipse((0.46, 0.25), (0.03, 0.08))
    paint(fur | tail, (168, 112, 62), 50 * clouds(6) + 25 * clouds(40) + 40 * (0.55 - y))
    paint(fur & ellipse((0.62, 0.48), (0.06, 0.14)), (214, 186, 146), 25 * clouds(40))
    image += 6 * torch.randn(SIZE, SIZE, 3, generator=random)
    return image.clamp(0, 255).to(torch.uint8), fur | tail


def coarse_map(mask: Tensor) -> Tensor:
    """What a classifier gives: the object on a 14 x 14 grid, uneven and spilling over, in [0, 1]."""
    random = torch.Generator().manual_seed(3)
    grid = F.adaptive_avg_pool2d(mask.float()[None, None], 14)
    grid = 0.5 * grid + 0.5 * F.avg_pool2d(grid, 3, 1, 1)
    uneven = F.interpolate(torch.rand(1, 1, 4, 4, generator=random), (14, 14), mode="bilinear")
    grid = grid * (0.45 + 0.9 * uneven) + 0.08 * torch.rand(1, 1, 14, 14, generator=random)
    grid = F.interpolate(grid, mask.shape, mode="bicubic").clamp_min(0)[0, 0]
    return grid / grid.max()


def overlap(labels: Tensor, mask: Tensor) -> float:
    """Intersection over union."""
    both, either = (labels > 0) & (mask > 0), (labels > 0) | (mask > 0)
    return float(both.sum() / either.sum())


def panel(axis: Any, picture: Any, title: str, **style: Any) -> None:
    """Show one picture."""
    axis.imshow(picture, **style)
    axis.set_title(title, fontsize=9, color=GREY)
    axis.axis("off")


def save(figure: Any, name: str) -> None:
    """Write one figure, small."""
    OUT.mkdir(exist_ok=True)
    look = {"dpi": 80, "bbox_inches": "tight", "transparent": True}
    figure.savefig(OUT / name, pil_kwargs={"optimize": True}, **look)
    plt.close(figure)


def compare(image: Tensor, mask: Tensor, seed: Tensor) -> None:
    """One map under each choice of `refine.method`: the maps above, the labels below."""
    colours = image.permute(2, 0, 1)[None].float() / 255
    planes = torch.stack([torch.full_like(seed, 0.4), seed])
    spread = par(colours, torch.softmax(planes, 0)[None])[0] / 1.01**10
    crf = dense_crf(image, unary_from_probabilities(planes), PRESETS["more_seeds"])
    tag = torch.ones(1, 1)
    results = {
        "none": (seed, labels_from_maps(seed[None, None], tag, 0.4)[0]),
        "par": (spread[1], spread.argmax(0)),
        "crf": (crf[1], crf.argmax(0)),
    }
    figure, axes = plt.subplots(2, 4, figsize=(9, 4.7))
    panel(axes[0, 0], image, "image")
    panel(axes[1, 0], mask, "drawn mask (for comparison only)", cmap="gray")
    for column, (name, (values, labels)) in enumerate(results.items(), 1):
        panel(axes[0, column], values, f"{name}: map", cmap="inferno")
        panel(axes[1, column], labels, f"{name}: label, IoU {overlap(labels, mask):.2f}", cmap="gray")
    save(figure, "refinement-methods.png")


def iterate(image: Tensor, seed: Tensor) -> None:
    """PAR after more and more passes."""
    colours = image.permute(2, 0, 1)[None].float() / 255
    counts = (0, 1, 3, 10, 30)
    figure, axes = plt.subplots(1, len(counts), figsize=(10, 2.3))
    for axis, count in zip(axes, counts, strict=True):
        panel(axis, par(colours, seed[None, None], iterations=count)[0, 0], f"{count} passes", cmap="inferno")
    save(figure, "refinement-par.png")


def pull(image: Tensor, seed: Tensor) -> None:
    """Where the energy loss moves a segmentation: its gradient on the object's logit."""
    colours = image.permute(2, 0, 1)[None].float() / 255
    logits = torch.stack([0.4 - seed, seed - 0.4])[None] * 6
    labels = torch.where((seed > 0.3) & (seed < 0.6), 255, (seed > 0.45).long())[None]
    shown = []
    for given in (labels, torch.full_like(labels, 255)):
        variable = logits.clone().requires_grad_()
        dense_energy_loss(variable, colours, given).backward()
        shown.append(-variable.grad[0, 1])
    figure, axes = plt.subplots(1, 4, figsize=(9, 2.5))
    panel(axes[0], image, "image")
    panel(axes[1], torch.softmax(logits[0], 0)[1], "probability of the object", cmap="inferno")
    for axis, push, title in zip(axes[2:], shown, ("gated by labels", "no labels"), strict=True):
        limit = float(np.quantile(push.abs(), 0.995))
        panel(axis, push, f"push, {title}", cmap="coolwarm", vmin=-limit, vmax=limit)
    save(figure, "refinement-energy.png")


def main() -> None:
    """Draw all three."""
    image, mask = draw()
    seed = coarse_map(mask)
    compare(image, mask, seed)
    iterate(image, seed)
    pull(image, seed)


if __name__ == "__main__":
    main()

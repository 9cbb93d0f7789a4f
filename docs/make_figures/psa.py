"""Draw the picture of docs/methods/psa.md: ``python docs/make_figures/psa.py``."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from refinement import GREY, OUT, SIZE, coarse_map, draw
from torch import Tensor

from tagmask.ops.affinity_pairs import affinity_matrix, pair_affinity, walk_scores
from tagmask.ops.maps import with_background

CELLS = SIZE // 8
BETA, BACKGROUND = 8.0, 0.39


def colour_features(image: Tensor) -> Tensor:
    """Mean colour of every cell, stretched so that fur and meadow differ, (1, 3, h, w)."""
    return 9 * F.avg_pool2d(image.permute(2, 0, 1)[None].float() / 255, 8)


def neighbours(affinity: Tensor) -> Tensor:
    """Affinity^beta of three cells to all others, (h, w)."""
    matrix = affinity_matrix(affinity, (CELLS, CELLS)) ** BETA
    cells = [(15, 13), (9, 20), (20, 5)]
    return matrix[[row * CELLS + column for row, column in cells]].amax(0).view(CELLS, CELLS)


def main() -> None:
    """Write docs/images/psa-walk.png."""
    image, mask = draw()
    scores = with_background(coarse_map(mask).reshape(1, SIZE, SIZE), BACKGROUND, None)
    affinity = pair_affinity(colour_features(image))[0]
    walked = [walk_scores(scores, affinity, beta=BETA, steps=steps) for steps in (8, 64)]
    figure, axes = plt.subplots(1, 5, figsize=(12, 2.7), layout="constrained")
    panels: list[tuple[str, Any]] = [
        ("image", image),
        ("class map and its label", scores),
        ("affinity^8 of three cells", neighbours(affinity)),
        ("after 8 steps", walked[0]),
        ("after 64 steps", walked[1]),
    ]
    for axis, (title, shown) in zip(axes, panels, strict=True):
        axis.set_title(title, fontsize=10, color=GREY)
        axis.axis("off")
        if shown.ndim == 3 and shown.shape[0] == 2:
            axis.imshow(shown[1], cmap="magma", vmin=0)
            axis.contour((shown[1] > shown[0]).float(), levels=[0.5], colors="cyan", linewidths=1)
        else:
            axis.imshow(shown, cmap="magma")
    figure.savefig(OUT / "psa-walk.png", dpi=90, transparent=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

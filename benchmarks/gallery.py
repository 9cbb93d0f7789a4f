"""Pictures of the runs of domains.py: image, true mask and mask of three images of every set.

``python benchmarks/gallery.py --root SETS --work RUNS --out FILE.png``

Nobody picks the images: ranked by the mean IoU of their own classes, they are those at a quarter, at half and
at three quarters of the images for scoring.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tagmask.data import TagDataset
from tagmask.data.parts import DataConfig, Parts
from tagmask.metrics.confusion import ConfusionMatrix
from tagmask.report.draw import overlay_labels
from tagmask.store.labels import read_mask

PLACES = (0.25, 0.5, 0.75)


def own_miou(dataset: TagDataset, index: int, run: Path) -> float:
    """Mean IoU of the classes that one image or its mask shows, background included."""
    matrix, mask = ConfusionMatrix(len(dataset.classes.labels)), made(dataset, index, run)
    matrix.update(preds=mask[None], target=dataset.mask(index)[None])
    return float(matrix.compute("nan").miou)


def made(dataset: TagDataset, index: int, run: Path) -> np.ndarray[Any, Any]:
    """The mask of an image in a run."""
    return read_mask(run / "masks" / f"{dataset.names[index]}.png")


def chosen(dataset: TagDataset, run: Path) -> list[tuple[float, int]]:
    """Score and index of the images at the `PLACES`."""
    scores = [own_miou(dataset, index, run) for index in range(len(dataset))]
    order = sorted((score, index) for index, score in enumerate(scores) if score == score)
    return [order[int(place * len(order))] for place in PLACES]


def draw(rows: Sequence[tuple[str, TagDataset, Path]], out: Path) -> None:
    """One row for every set, three pictures for every image."""
    figure = Figure(figsize=(3 * 3 * 1.7, 1.95 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 9, squeeze=False)
    for line, (name, dataset, run) in zip(axes, rows, strict=True):
        palette = dataset.classes.palette
        for place, (score, index) in enumerate(chosen(dataset, run)):
            image, truth = dataset.picture(index), dataset.mask(index)
            mask = made(dataset, index, run)
            shown = (image, overlay_labels(image, truth, palette), overlay_labels(image, mask, palette))
            for axis, picture in zip(line[3 * place : 3 * place + 3], shown, strict=True):
                axis.imshow(picture)
            line[3 * place + 2].set_title(f"mask, {100 * score:.0f}", fontsize=8)
            line[3 * place + 1].set_title("true", fontsize=8)
            line[3 * place].set_title(f"{name}, {100 * PLACES[place]:.0f} % are worse", fontsize=8)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.savefig(out, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="Where domains.py left its run folders.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = []
    for root in sorted(path for path in args.root.iterdir() if path.is_dir()):
        run = args.work / f"{root.name}-{args.seed}"
        if not (run / "masks").is_dir():
            print(f"{root.name}: no finished run of seed {args.seed} in {args.work}, left out")
            continue
        rows.append((root.name, Parts(DataConfig(root=root)).open("auto", masks=True), run))
    draw(rows, args.out)


if __name__ == "__main__":
    main()

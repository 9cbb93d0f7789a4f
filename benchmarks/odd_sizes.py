"""Masks of pictures whose sides are no multiple of the patch, against the same pictures padded by hand.

    python benchmarks/odd_sizes.py RUN SCENES --out benchmarks/results/odd_sizes.json

RUN is a model of `tagmask train --recipe demo --iterations 100 --batch-size 8`, SCENES its data. Every
picture is cut to a square of some side; by hand it is then mirrored at the right and bottom up to the next
multiple of the patch, and the mask is cut back.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import tagmask
from tagmask.data import open_dataset
from tagmask.data.readers.images import read_image
from tagmask.metrics.confusion import ConfusionMatrix

SIDES = (96, 95, 92, 87, 47)
PATCH = 8

Image = NDArray[np.uint8]


def padded(image: Image, patch: int = PATCH) -> Image:
    """The picture mirrored at the right and bottom until its sides are whole patches."""
    below, right = (-side % patch for side in image.shape[:2])
    return np.pad(image, ((0, below), (0, right), (0, 0)), mode="reflect")


def scores(
    mask: Callable[[Image, list[str]], Image], scenes: Path, sides: Sequence[int], most: int
) -> dict[int, dict[str, float]]:
    """{side: {"as it is", "by hand": mean IoU}} over the part of the data that has masks.

    Args:
        mask: Labels of a picture with these tags.
        scenes: Data folder.
        sides: In pixels, at most those of the pictures.
        most: Pictures.
    """
    data = open_dataset(scenes, "folder", "val", masks=True)
    names = data.classes.names
    found: dict[int, dict[str, float]] = {}
    for side in sides:
        counts = {how: ConfusionMatrix(len(names) + 1) for how in ("as it is", "by hand")}
        for index in range(min(most, len(data))):
            image, truth = read_image(data.items[index].image)[:side, :side], data.mask(index)[:side, :side]
            tags = [names[label - 1] for label in np.unique(truth).tolist() if 0 < label < 255]
            for how, matrix in counts.items():
                made = mask(padded(image) if how == "by hand" else image, tags)[:side, :side]
                matrix.update(preds=torch.from_numpy(np.array(made)), target=torch.from_numpy(truth.copy()))
        found[side] = {how: round(float(matrix.compute().miou), 4) for how, matrix in counts.items()}
    return found


def of_run(run: Path) -> Callable[[Image, list[str]], Image]:
    """Labels by the model of a run."""
    model = tagmask.load(run, device="cpu")
    return lambda image, tags: model.predict(image, tags=tags).mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    found = scores(of_run(given.run), given.scenes, SIDES, given.images)
    record: dict[str, Any] = {
        "command": "python benchmarks/odd_sizes.py RUN SCENES --out benchmarks/results/odd_sizes.json",
        "machine": f"{os.cpu_count()}-core CPU, PyTorch {torch.__version__.partition('+')[0]}",
        "task": "mIoU of masks, tags given; by hand: mirrored to whole patches, the mask cut back",
        "data": f"{given.images} generated scenes of 96 px, cut to squares of each side",
        "note": "RUN: tagmask train --recipe demo --iterations 100 --batch-size 8",
        "sides": {f"{side} px": row for side, row in found.items()},
    }
    given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record["sides"], indent=1))


if __name__ == "__main__":
    main()

"""What needs no learning: masks from nothing, or from the true tags alone, scored like any segmentation.

    python benchmarks/baselines.py RUN

RUN is any run folder whose data have true masks; its part to score on is used. Prints mIoU.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tagmask.data.parts import open_part
from tagmask.metrics.confusion import ConfusionMatrix
from tagmask.pipeline.config import read_config

Guess = Callable[[tuple[int, int], NDArray[np.intp]], NDArray[np.uint8]]


def nothing(size: tuple[int, int], tags: NDArray[np.intp]) -> NDArray[np.uint8]:
    return np.zeros(size, np.uint8)


def first_tag_everywhere(size: tuple[int, int], tags: NDArray[np.intp]) -> NDArray[np.uint8]:
    return np.full(size, tags[0] + 1 if len(tags) else 0, np.uint8)


def tags_in_the_middle(size: tuple[int, int], tags: NDArray[np.intp]) -> NDArray[np.uint8]:
    """A box of 60 % of both sides, cut into one upright stripe per tag."""
    mask, (height, width) = np.zeros(size, np.uint8), size
    for place, tag in enumerate(tags):
        left, right = (int(width * (0.2 + 0.6 * k / len(tags))) for k in (place, place + 1))
        mask[int(height * 0.2) : int(height * 0.8), left:right] = tag + 1
    return mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    args = parser.parse_args()
    dataset = open_part(read_config(args.run).data, "auto", masks=True)
    guesses: tuple[Guess, ...] = (nothing, first_tag_everywhere, tags_in_the_middle)
    found = {}
    for guess in guesses:
        matrix = ConfusionMatrix(dataset.num_classes + 1, dataset.classes.ignore)
        for index, item in enumerate(dataset.items):
            truth = np.asarray(dataset.mask(index))
            guessed = guess(truth.shape, np.asarray(sorted(item.tags or ()), np.intp))
            matrix.update(preds=guessed, target=truth)
        found[guess.__name__] = round(float(matrix.compute("nan").miou), 4)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

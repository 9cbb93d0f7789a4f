"""Maps, labels and masks of photographs at their own sizes, with and without views padded to whole patches.

    python benchmarks/odd_photographs.py RUN DATA --out benchmarks/results/odd_photographs.json

RUN is a run of a method with class maps and masks, DATA photographs with masks. Both ways see the same images
through the same model and the same views, those of recipe `small`; without padding, as before, a network
loses what exceeds a patch at the right and bottom, and its answer is stretched over the whole image.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import tagmask
from tagmask.data import TagDataset, open_dataset
from tagmask.data.readers.images import rgb_tensor
from tagmask.engine.compute import Compute
from tagmask.inference import views
from tagmask.inference.views import MapConfig, image_maps, image_scores
from tagmask.methods.base import SegmentationViews
from tagmask.metrics.confusion import ConfusionMatrix
from tagmask.ops.labels import labels_from_maps
from tagmask.steps.refine import RefineConfig, image_labels

WAYS = ("stretched, as before", "padded")
KIND = "attention_cam"
MAPS = {"kinds": (KIND,), "scales": (1.0, 0.5, 0.75, 1.5)}
MASKS = SegmentationViews(scales=(1.0, 1.25, 1.5), flip="mean", merge="mean")
LABELS = RefineConfig(maps=KIND, high=0.45, low=0.35)


def unpadded(fn: Callable[[Tensor], Tensor], multiple: int, colour: object) -> Callable[[Tensor], Tensor]:
    """What `on_whole_patches` was before: nothing."""
    return fn


def answers(
    method: Any, image: Tensor, tags: tuple[int, ...], compute: Compute, way: str
) -> dict[str, Tensor]:
    """Labels (H, W) by maps, by refined maps, and by the network, in one of the ways."""
    border = "pad" if way == "padded" else "stretch"
    keys = torch.tensor([tags])
    maps = image_maps(method, image, compute, MapConfig(border=border, **MAPS))[KIND][:, list(tags)]
    with mock.patch.object(
        views, "on_whole_patches", views.on_whole_patches if way == "padded" else unpadded
    ):
        masks = image_scores(method, image, compute, MASKS).argmax(1)
    labels = image_labels(image, maps, keys, LABELS)
    cut = labels_from_maps(maps, torch.ones_like(keys), 0.5, keys=keys)
    return {
        "maps at 0.5": cut[0],
        "labels": labels.where(labels != 255, 0)[0],
        "masks without tags": masks[0],
    }


def measure(
    method: Any, data: TagDataset, indices: range, compute: Compute
) -> Iterator[tuple[int, dict[str, dict[str, float]]]]:
    """How many images with tags were seen, and {what: {way: mean IoU}} over them, every few images."""
    counts: dict[str, dict[str, ConfusionMatrix]] = {}
    for done, index in enumerate(indices, start=1):
        tags = data.items[index].tags
        if not tags:
            continue
        truth: NDArray[np.uint8] = data.mask(index)
        image = rgb_tensor(data.image(index))[None]
        for way in WAYS:
            for what, preds in answers(method, image, tags, compute, way).items():
                matrix = counts.setdefault(what, {}).setdefault(way, ConfusionMatrix(data.num_classes + 1))
                matrix.update(preds=preds, target=torch.from_numpy(truth.copy()))
        if done % 4 == 0 or done == len(indices):
            yield (
                done,
                {
                    what: {way: round(float(matrix.compute().miou), 4) for way, matrix in rows.items()}
                    for what, rows in counts.items()
                },
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--every", type=int, default=2, help="of how many images one is taken")
    parser.add_argument("--note", default="", help="how RUN was trained")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data, compute = open_dataset(given.data, split="val", masks=True), Compute.choose("cpu", "bf16")
    method = tagmask.load(given.run, device="cpu").method.eval()
    indices = range(0, len(data), given.every)
    for done, found in measure(method, data, indices, compute):
        given.out.write_text(json.dumps(record(given, done, found), indent=1) + "\n", encoding="utf-8")
        print(done, json.dumps(found), flush=True)


def record(given: argparse.Namespace, images: int, found: dict[str, dict[str, float]]) -> dict[str, Any]:
    """The result file; complete however early the measurement is stopped."""
    return {
        "task": "mIoU of one model on photographs at their own sizes; maps and labels know the tags",
        "command": f"python benchmarks/odd_photographs.py RUN DATA --every {given.every}",
        "note": given.note,
        "machine": f"CPU, 1 thread of {os.cpu_count()} cores, shared; PyTorch {torch.__version__}",
        "precision": "bf16",
        "seed": 0,
        "images": f"the first {images} of every {given.every}th for scoring",
        "scores": found,
    }


if __name__ == "__main__":
    main()

"""Scores of what earlier stages left on disk, image by image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tagmask.data import TagDataset
from tagmask.errors import DataError
from tagmask.metrics.confusion import Absent, ConfusionMatrix, Scores
from tagmask.metrics.seeds import SweepResult, ThresholdSweep
from tagmask.ops.maps import fuse
from tagmask.store.files import file_for
from tagmask.store.labels import read_mask
from tagmask.store.maps import MapFile, load_maps

__all__ = ["PICTURES", "MapScorer", "PictureScorer", "Scorer"]

PICTURES = {"label": "labels", "walk": "walks", "segmentation": "masks"}
"""What is in which folder as label images."""


class Scorer(Protocol):
    """Counts image by image, then says what the counts mean."""

    def add(self, index: int) -> None:
        """Count one image of the data set."""

    def counts(self) -> Tensor:
        """The counts so far, to be summed over processes."""

    def record(self, counts: Tensor, absent: Absent) -> dict[str, Any]:
        """Figures from (summed) counts, as plain values."""


class PictureScorer:
    """Labels or masks.

    Args:
        what: "label" or "segmentation".
        folder: The run folder.
        dataset: Opened with masks.
        undecided: How 255 counts in a prediction: "background" or "leave_out".
    """

    def __init__(self, what: str, folder: Path, dataset: TagDataset, undecided: str) -> None:
        self.what, self.folder, self.dataset = what, folder / PICTURES[what], dataset
        self.undecided = undecided if what == "label" else None
        ignore = dataset.classes.ignore_index
        self.matrix = ConfusionMatrix(
            dataset.num_classes + 1, ignore, ignore if self.undecided == "leave_out" else None
        )

    def add(self, index: int) -> None:
        """Count one image.

        Raises:
            DataError: Its prediction is missing, damaged or does not fit the truth.
        """
        path = file_for(self.folder, self.dataset.names[index], ".png")
        predicted, truth = read_mask(path), self.dataset.mask(index)
        if self.undecided == "background":
            predicted[predicted == self.dataset.classes.ignore_index] = 0
        try:
            self.matrix.update(preds=predicted, target=truth)
        except ValueError as error:
            raise DataError(f"{path} does not fit its mask: {error}") from None

    def counts(self) -> Tensor:
        """(C, C) pixel counts."""
        return self.matrix.counts

    def record(self, counts: Tensor, absent: Absent) -> dict[str, Any]:
        """Figures; no threshold."""
        self.matrix.counts = counts
        record = _figures(self.matrix.compute(absent), self.dataset.classes.labels)
        return record | {"threshold": None, "threshold_source": None, "undecided_pixels": self.undecided}


class MapScorer:
    """Class maps at every threshold in one pass.

    Args:
        what: Kind of maps, or "fused" for CAM times LAM.
        folder: The run folder.
        dataset: Opened with masks.
        background: Threshold of the figures, or None for the one these masks favour.
        thresholds: Thresholds of the curve.
    """

    def __init__(
        self,
        what: str,
        folder: Path,
        dataset: TagDataset,
        background: float | None,
        thresholds: Sequence[float],
    ) -> None:
        self.what, self.folder, self.dataset, self.background = what, folder / "maps", dataset, background
        self.thresholds = sorted({*thresholds, *([] if background is None else [background])})
        self.sweep = ThresholdSweep(dataset.num_classes + 1, self.thresholds, dataset.classes.ignore_index)

    def add(self, index: int) -> None:
        """Count one image.

        Raises:
            DataError: Its maps are missing, damaged or do not fit the truth.
        """
        name = self.dataset.names[index]
        loaded = read_maps(self.folder, self.what, name, self.dataset.num_classes)
        try:
            self.sweep.update(loaded.maps, loaded.keys, self.dataset.mask(index))
        except ValueError as error:
            raise DataError(f"the {self.what} maps of '{name}' do not fit its mask: {error}") from None

    def counts(self) -> Tensor:
        """(C, C, places) pixel counts."""
        return self.sweep.counts

    def record(self, counts: Tensor, absent: Absent) -> dict[str, Any]:
        """Figures at the threshold, and the whole curve with its best point."""
        self.sweep.counts = counts
        curve: SweepResult = self.sweep.compute(absent)
        best = curve.best()
        chosen = best if self.background is None else self.thresholds.index(self.background)
        return _figures(curve.scores[chosen], self.dataset.classes.labels) | {
            "threshold": self.thresholds[chosen],
            "threshold_source": "oracle sweep on this split" if self.background is None else "fixed",
            "curve": {
                "thresholds": self.thresholds,
                "miou": [round(float(m), 6) for m in curve.miou],
                "best_threshold": self.thresholds[best],
                "best_miou": float(curve.miou[best]),
                "best_is": "an oracle: chosen on these very masks",
            },
        }


def read_maps(folder: Path, what: str, name: str, num_classes: int | None = None) -> MapFile:
    """Maps of one image; "fused" is made from CAM and LAM where it is not on disk.

    Args:
        folder: ``maps/`` of the run.
        what: Kind of maps.
        name: The image.
        num_classes: K; maps of other classes are refused. Any are taken if None.

    Raises:
        DataError: They are missing or damaged.
    """
    if what != "fused" or (folder / "fused").is_dir():
        return load_maps(file_for(folder / what, name, ".npz"), num_classes)
    cam, lam = (load_maps(file_for(folder / k, name, ".npz"), num_classes) for k in ("cam", "lam"))
    if cam.maps.shape != lam.maps.shape or not np.array_equal(cam.keys, lam.keys):
        raise DataError(f"CAM and LAM of '{name}' do not belong together; localize again")
    if not len(cam.keys):
        return cam
    product = fuse(torch.from_numpy(cam.maps)[None], torch.from_numpy(lam.maps)[None])[0]
    return MapFile(cam.keys, product.numpy(), cam.size)


def _figures(scores: Scores, labels: Sequence[str]) -> dict[str, Any]:
    per_class = {
        key: dict(zip(labels, map(_plain, getattr(scores, key)), strict=True))
        for key in ("iou", "precision", "recall", "confusion")
    }
    return {
        "miou": scores.miou,
        "pixel_accuracy": scores.pixel_accuracy,
        "mean_accuracy": scores.mean_accuracy,
        "absent_policy": scores.absent,
        "doubts": scores.doubts(labels),
        **per_class,
    }


def _plain(value: float) -> float | str | None:
    """JSON knows neither NaN (no such class: null) nor infinity (predicted, never hit: "inf")."""
    if math.isnan(value):
        return None
    return "inf" if math.isinf(value) else float(value)

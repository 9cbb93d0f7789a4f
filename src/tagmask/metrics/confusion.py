"""One confusion matrix over a set, and every score that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tagmask.names import deprecated
from tagmask.types import IGNORE

__all__ = ["ABSENT_POLICIES", "Absent", "ConfusionMatrix", "Scores", "mean_iou"]

Absent = Literal["skip_truth", "nan", "zero"]
ABSENT_POLICIES: tuple[Absent, ...] = ("skip_truth", "nan", "zero")
"""What a class that does not occur does to the mean; on a full VOC split all three agree.

"skip_truth" leaves out classes absent from the truth (MoRe, AFA). "nan" leaves out only classes absent from
truth and prediction, so a wrongly predicted class counts 0 (WeakTr, mmsegmentation). "zero" counts both as 0
(AReAM, MCTformer, TransCAM).
"""

Floats = NDArray[np.float64]
Labels = Tensor | NDArray[np.integer]


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix says; fractions from 0 to 1, per-class entries start with the background.

    Attributes:
        miou: Mean intersection over union under the policy.
        iou: (C,) TP / (T + P - TP); NaN if absent from both (0 under "zero").
        precision: (C,) TP / P; NaN if never predicted.
        recall: (C,) TP / T; NaN if absent from the truth.
        confusion: (C,) FP / TP, MoRe's confusion ratio; infinite if predicted but never hit.
        pixel_accuracy: Share of counted pixels that are right.
        mean_accuracy: Mean recall over classes in the truth.
        frequency_weighted_iou: IoU weighted by the class's share of the truth.
        false_positive: Mean of (P - TP) / union under the policy.
        false_negative: Mean of (T - TP) / union under the policy.
        absent: The policy.
    """

    miou: float
    iou: Floats
    precision: Floats
    recall: Floats
    confusion: Floats
    pixel_accuracy: float
    mean_accuracy: float
    frequency_weighted_iou: float
    false_positive: float
    false_negative: float
    absent: Absent

    def doubts(self, labels: Sequence[str]) -> list[str]:
        """What should stand beside the mean: classes without a true pixel.

        Args:
            labels: Names of all C labels, the background first.

        Returns:
            Sentences; none if every class is in the truth.
        """
        unseen = [label for label, missing in zip(labels, np.isnan(self.recall), strict=True) if missing]
        if len(labels) > 1 and len(unseen) >= len(labels) - 1 and labels[0] not in unseen:
            return ["rests on the background alone: the true masks show no class"]
        if not unseen:
            return []
        more = f" and {len(unseen) - _LISTED} more" if len(unseen) > _LISTED else ""
        return [f"no true pixel of {', '.join(unseen[:_LISTED])}{more}: {_COUNTED[self.absent]}"]


_LISTED = 5
_COUNTED: dict[str, str] = {
    "skip_truth": "left out of the mean",
    "nan": "in the mean only where predicted, as 0",
    "zero": "in the mean as 0",
}


class ConfusionMatrix:
    """Counts of (truth, prediction) pairs over a whole set, in 64-bit integers.

    Args:
        num_classes: C, labels 0..C-1, the background included.
        ignore_index: Truth of this value counts nowhere.
        ignore_prediction: Pixels predicted as this value are left out as well. For pseudo labels with
            undecided pixels; it flatters them, so the score must say so. None makes it an error.
    """

    @deprecated("0.2", arguments={"ignore": "ignore_index"})
    def __init__(
        self, num_classes: int, ignore_index: int = IGNORE, ignore_prediction: int | None = None
    ) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        """(C, C) int64, rows are truth; sum over processes to reduce."""
        self._ignore = ignore_index
        self._ignore_prediction = ignore_prediction

    @deprecated("0.2", arguments={"truth": "target", "prediction": "preds"}, positional=("target", "preds"))
    def update(self, *, preds: Labels, target: Labels) -> None:
        """Count one image or batch.

        Args:
            preds: Predicted labels, any shape, 0..C-1, tensor or NumPy array.
            target: True labels of the same shape, 0..C-1 or the ignore value.

        Raises:
            ValueError: Shapes differ, or a label is outside its range on a counted pixel.
        """
        t, p = _integers("target", target), _integers("preds", preds)
        if t.shape != p.shape:
            raise ValueError(f"target is {tuple(t.shape)}, but preds are {tuple(p.shape)}")
        t, p = t.reshape(-1), p.reshape(-1).to(t.device)
        counted = t != self._ignore
        if self._ignore_prediction is not None:
            counted &= p != self._ignore_prediction
        t, p = t[counted].long(), p[counted].long()
        for name, labels in (("true", t), ("predicted", p)):
            if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
                raise ValueError(
                    f"{name} labels reach from {int(labels.min())} to {int(labels.max())}; "
                    f"allowed are 0 to {self.num_classes - 1}"
                )
        pairs = torch.bincount(t * self.num_classes + p, minlength=self.num_classes**2)
        self.counts = self.counts.to(pairs.device) + pairs.view(self.num_classes, self.num_classes)

    def reset(self) -> None:
        """Forget what was counted."""
        self.counts = torch.zeros_like(self.counts)

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        """Both sets counted together; neither matrix changes."""
        result = ConfusionMatrix(self.num_classes, self._ignore, self._ignore_prediction)
        result.merge(self)
        result.merge(other)
        return result

    def merge(self, other: ConfusionMatrix) -> None:
        """Add another matrix of the same classes.

        Raises:
            ValueError: It has another number of classes.
        """
        if other.num_classes != self.num_classes:
            raise ValueError(f"cannot merge {other.num_classes} classes into {self.num_classes}")
        self.counts = self.counts + other.counts.to(self.counts.device)

    def compute(self, absent: Absent = "skip_truth", epsilon: float = 0.0) -> Scores:
        """All scores from the counts.

        Args:
            absent: What absent classes do to the means, see `ABSENT_POLICIES`.
            epsilon: Added to the denominators of precision and recall (one published evaluator uses 1e-5).

        Raises:
            ValueError: The policy is unknown.
        """
        if absent not in ABSENT_POLICIES:
            raise ValueError(f"absent must be one of {', '.join(ABSENT_POLICIES)}, got '{absent}'")
        counts = self.counts.cpu().numpy().astype(np.float64)
        hit, truth, predicted = np.diag(counts), counts.sum(1), counts.sum(0)
        union = truth + predicted - hit
        # Dividing by 0 is meant: NaN says "no such class", infinity "never hit".
        with np.errstate(divide="ignore", invalid="ignore"):
            iou = hit / union
            wrong, missed = (predicted - hit) / union, (truth - hit) / union
            ratios = hit / (predicted + epsilon), hit / (truth + epsilon), (predicted - hit) / hit
            weighted = float(np.nansum(np.where(truth > 0, truth * iou, 0.0)) / counts.sum())
            overall = float(hit.sum() / counts.sum())
        if absent == "zero":
            iou, wrong, missed = (np.nan_to_num(v, nan=0.0) for v in (iou, wrong, missed))
        # A class outside the truth still gets its 0 in the table; only the means leave it out.
        meant = truth > 0 if absent == "skip_truth" else np.ones(self.num_classes, bool)
        means = [nan_mean(v[meant]) for v in (iou, wrong, missed)]
        accuracy = nan_mean(hit[truth > 0] / truth[truth > 0])
        return Scores(means[0], iou, *ratios, overall, accuracy, weighted, means[1], means[2], absent)


def mean_iou(
    preds: Labels,
    target: Labels,
    num_classes: int,
    ignore_index: int = IGNORE,
    absent: Absent = "skip_truth",
) -> float:
    """Mean intersection over union of one pair of label maps, or of a whole stack counted together.

    Args:
        preds: Predicted labels, any shape, 0..C-1, tensor or NumPy array.
        target: True labels of the same shape, 0..C-1 or the ignore value.
        num_classes: C, labels 0..C-1, the background included.
        ignore_index: Pixels of this true label count nowhere.
        absent: What absent classes do to the mean, see `ABSENT_POLICIES`.

    Returns:
        A fraction from 0 to 1; NaN if no pixel counts.

    Raises:
        ValueError: Shapes differ, or a label is outside its range on a counted pixel.
    """
    matrix = ConfusionMatrix(num_classes, ignore_index)
    matrix.update(preds=preds, target=target)
    return matrix.compute(absent).miou


def nan_mean(values: Floats) -> float:
    """Mean of the values that are numbers; NaN if none is."""
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if kept.size else float("nan")


def _integers(name: str, labels: Labels) -> Tensor:
    if not isinstance(labels, (Tensor, np.ndarray)):
        raise ValueError(f"{name} must be a tensor or an array of labels, got {type(labels).__name__}")
    tensor = labels if isinstance(labels, Tensor) else torch.from_numpy(np.ascontiguousarray(labels))
    if tensor.is_floating_point() or tensor.dtype == torch.bool:
        raise ValueError(f"{name} must be integer labels, got {tensor.dtype}")
    return tensor

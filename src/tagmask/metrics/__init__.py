"""Scores computed once from sums over a whole set, never averaged over images unless the name says so.

The names below are the promise; labels and maps may be PyTorch tensors or NumPy arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tagmask.names import lazy

if TYPE_CHECKING:
    from tagmask.metrics.confusion import ConfusionMatrix, Scores, mean_iou
    from tagmask.metrics.seeds import SweepResult, ThresholdSweep, threshold_sweep
    from tagmask.metrics.tags import average_precision, mean_average_precision, multilabel_f1

__all__ = [
    "ConfusionMatrix",
    "Scores",
    "SweepResult",
    "ThresholdSweep",
    "average_precision",
    "mean_average_precision",
    "mean_iou",
    "multilabel_f1",
    "threshold_sweep",
]

_HOMES = {
    "ConfusionMatrix": ".confusion",
    "Scores": ".confusion",
    "mean_iou": ".confusion",
    "SweepResult": ".seeds",
    "ThresholdSweep": ".seeds",
    "threshold_sweep": ".seeds",
    "average_precision": ".tags",
    "mean_average_precision": ".tags",
    "multilabel_f1": ".tags",
}

# Hidden from type checkers, which then find a wrong name.
if not TYPE_CHECKING:
    __getattr__ = lazy(__name__, _HOMES)

"""How good class maps are as segmentation seeds, at every background threshold at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tagmask.metrics.confusion import Absent, ConfusionMatrix, Scores
from tagmask.names import deprecated
from tagmask.types import IGNORE

__all__ = ["SweepResult", "ThresholdSweep", "percent_steps", "threshold_sweep"]

MapItem = tuple[Tensor | NDArray[np.floating], Sequence[int], NDArray[np.integer] | Tensor]


def percent_steps(start: int, stop: int) -> tuple[float, ...]:
    """Thresholds start/100, ..., (stop - 1)/100, as the papers sweep them."""
    return tuple(i / 100 for i in range(start, stop))


@dataclass(frozen=True)
class SweepResult:
    """Scores at every threshold.

    Attributes:
        thresholds: (n,) background thresholds, ascending.
        scores: One `Scores` per threshold.
    """

    thresholds: tuple[float, ...]
    scores: tuple[Scores, ...]

    @property
    def miou(self) -> NDArray[np.float64]:
        """(n,) mean IoU per threshold."""
        return np.array([s.miou for s in self.scores])

    def best(self, early_stop: bool = False) -> int:
        """Index of the best threshold: the first maximum. An oracle: it was chosen on these very masks.

        Args:
            early_stop: Stop at the first threshold that does not improve, as MCTformer and WeakTr do.
        """
        stop = self._stop() if early_stop else None
        return int(np.argmax(self._curve())) if stop is None else stop - 1

    def evaluated(self, early_stop: bool = False) -> int:
        """How many thresholds the search looked at."""
        stop = self._stop() if early_stop else None
        return len(self.thresholds) if stop is None else stop + 1

    def _curve(self) -> NDArray[np.float64]:
        return np.nan_to_num(self.miou, nan=-1.0)

    def _stop(self) -> int | None:
        """Index of the first threshold that does not improve on the one before."""
        falls = np.flatnonzero(np.diff(self._curve()) <= 0)
        return int(falls[0]) + 1 if falls.size else None


class ThresholdSweep:
    """Confusion matrices of maps at many thresholds, in one exact pass over the images.

    A pixel is the class of its strongest map where that exceeds the threshold, else background (also at
    equality). So its strongest value only has to be placed among the thresholds: one count of
    (truth, class, place) gives all matrices by cumulative sums. All is compared in float32.

    Args:
        num_classes: C, background included.
        thresholds: Background thresholds, ascending.
        ignore_index: Truth of this value counts nowhere.
        softmax: Push the stack [threshold, maps] through a float32 softmax before comparing, as WeakTr
            does: scores within about 1e-7 become ties. Needs a pass per threshold; for reproduction only.

    Raises:
        ValueError: There are no thresholds, or they do not ascend.
    """

    @deprecated("0.2", arguments={"ignore": "ignore_index"})
    def __init__(
        self, num_classes: int, thresholds: Sequence[float], ignore_index: int = IGNORE, softmax: bool = False
    ) -> None:
        self.thresholds = tuple(float(t) for t in thresholds)
        if not self.thresholds or list(self.thresholds) != sorted(set(self.thresholds)):
            raise ValueError("thresholds must be at least one number and ascend strictly")
        self.num_classes = num_classes
        self._ignore = ignore_index
        self._softmax = softmax
        places = len(self.thresholds) + (0 if softmax else 1)
        self.counts = torch.zeros(num_classes, num_classes, places, dtype=torch.int64)
        """(C, C, places) int64; sum over processes to reduce. [t, c, j] counts pixels of truth t whose
        strongest class is c, its value above exactly j thresholds; with softmax, predictions at the j-th."""

    def update(
        self,
        maps: Tensor | NDArray[np.floating],
        keys: Sequence[int] | NDArray[np.integer] | Tensor,
        truth: Tensor | NDArray[np.integer],
    ) -> None:
        """Count one image.

        Args:
            maps: (n, H, W) class maps; n may be 0, then all is background.
            keys: (n,) 0-based class of each map. Ties go to the map that comes first.
            truth: (H, W) true labels.

        Raises:
            ValueError: Shapes do not fit, or a class or label is out of range.
        """
        stack, key, labels = _array(maps).astype(np.float32), _array(keys).reshape(-1), _array(truth)
        if stack.ndim != 3 or len(stack) != len(key) or (len(stack) and stack.shape[1:] != labels.shape):
            raise ValueError(
                f"maps {stack.shape} need {len(stack)} keys and truth of their size, "
                f"got {len(key)} keys and truth {labels.shape}"
            )
        counted = labels != self._ignore
        t = labels[counted].astype(np.int64)
        for name, values in (("true", t), ("class", key + 1)):
            if values.size and not 0 <= values.min() <= values.max() < self.num_classes:
                raise ValueError(
                    f"{name} labels must be 0 to {self.num_classes - 1}, got up to {values.max()}"
                )
        columns = stack[:, counted]
        if self._softmax:
            self._add_softmax(t, columns, key)
        elif len(stack) == 0:
            self._add(t, np.zeros_like(t), np.zeros_like(t))
        else:
            winner, levels = columns.argmax(axis=0), np.asarray(self.thresholds, np.float32)
            place = np.searchsorted(levels, columns.max(axis=0), side="left")
            self._add(t, key[winner].astype(np.int64) + 1, place)

    def _add(self, t: NDArray[np.int64], c: NDArray[np.int64], place: NDArray[np.int64]) -> None:
        shape = tuple(self.counts.shape)
        flat = np.ravel_multi_index((t, c, place), shape)
        self.counts += torch.from_numpy(np.bincount(flat, minlength=self.counts.numel()).reshape(shape))

    def _add_softmax(
        self, t: NDArray[np.int64], columns: NDArray[np.float32], key: NDArray[np.integer]
    ) -> None:
        labels = np.concatenate([[0], key + 1]).astype(np.int64)
        for j, threshold in enumerate(self.thresholds):
            stack = np.concatenate([np.full((1, columns.shape[1]), threshold, np.float32), columns])
            shares = torch.from_numpy(stack).softmax(0).numpy()
            self._add(t, labels[shares.argmax(axis=0)], np.full_like(t, j))

    def matrix(self, index: int) -> ConfusionMatrix:
        """The confusion matrix at one threshold."""
        result = ConfusionMatrix(self.num_classes, self._ignore)
        if self._softmax:
            result.counts = self.counts[:, :, index].clone()
            return result
        result.counts = self.counts[:, :, index + 1 :].sum(dim=2)
        result.counts[:, 0] += self.counts[:, :, : index + 1].sum(dim=(1, 2))
        return result

    def compute(self, absent: Absent = "skip_truth") -> SweepResult:
        """Scores at every threshold."""
        scores = tuple(self.matrix(i).compute(absent) for i in range(len(self.thresholds)))
        return SweepResult(self.thresholds, scores)


def threshold_sweep(
    images: Iterable[MapItem],
    num_classes: int,
    thresholds: Sequence[float] = percent_steps(0, 99),
    absent: Absent = "skip_truth",
    softmax: bool = False,
) -> SweepResult:
    """Scores of class maps at every background threshold.

    Args:
        images: (maps (n, H, W), keys (n,), truth (H, W)) per image, see `ThresholdSweep.update`.
        num_classes: C, background included.
        thresholds: Background thresholds, ascending.
        absent: What absent classes do to the mean.
        softmax: See `ThresholdSweep`.

    Returns:
        The curve and its best point.
    """
    sweep = ThresholdSweep(num_classes, thresholds, softmax=softmax)
    for maps, keys, truth in images:
        sweep.update(maps, keys, truth)
    return sweep.compute(absent)


def _array(values: Tensor | NDArray[Any] | Sequence[int]) -> NDArray[Any]:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)

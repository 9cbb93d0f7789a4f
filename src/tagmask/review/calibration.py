"""A number to trust: from the masks that a person checked, what IoU the others have, with an interval.

Per image: ridge regression from the signals of the review to the IoU of the checked masks, with jackknife+
intervals (Barber, Candes, Ramdas and Tibshirani, "Predictive inference with the jackknife+", Annals of
Statistics 2021). Its residuals are scaled by how far off the regression usually is at such a prediction
(normalised conformal prediction: Papadopoulos, Gammerman and Vovk 2008; Lei et al. 2018), by a line that is
fitted, as the regression is, without the mask whose residual it scales. If the checked masks are a random
draw, an interval of 90 % holds for about 90 % of the other images, whatever the model (`benchmarks/trust.py`
measures it); if only the worst ones were checked it does not, and `Trust.doubt` says so.

Per class: see `tagmask.review.class_trust`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tagmask.errors import DataError
from tagmask.review.class_trust import ClassTrust, Overlap, class_trust
from tagmask.review.queue import Row

__all__ = ["FEWEST", "ImageTrust", "Trust", "calibrate", "random_order"]

FEWEST = 10
"""Checked masks below which nothing is said."""
_LEVEL = 0.9
_PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0)
_POINT = 0.01
_AS_IT_WAS = 0.9999
_TWO_SIDED = 1.645

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ImageTrust:
    """What is expected of one mask.

    Attributes:
        iou: Predicted IoU, 0 to 1; the measured one of a checked mask.
        low: Lower end of the interval.
        high: Upper end.
        checked: Whether a person checked it.
    """

    iou: float
    low: float
    high: float
    checked: bool = False


@dataclass(frozen=True)
class Trust:
    """What is known about the masks of a run.

    Attributes:
        images: Name of an image to what is expected of its mask.
        classes: The labels, background first.
        checked: How many masks a person checked.
        iou: Mean IoU of the images.
        low: Lower end of its interval.
        high: Upper end.
        settled: How many more masks could be checked before the mean moves by a point; None if all of them.
        level: Share of the intervals that hold.
        doubt: Why the figures may be off; "" if nothing speaks against them.
    """

    images: Mapping[str, ImageTrust]
    classes: tuple[ClassTrust, ...]
    checked: int
    iou: float
    low: float
    high: float
    settled: int | None
    level: float = _LEVEL
    doubt: str = ""

    @property
    def miou(self) -> float:
        """Mean of the classes' IoU, the background included, as scores have it."""
        return float(np.nanmean([one.iou for one in self.classes]))

    @property
    def text(self) -> str:
        """The outcome in a few sentences."""
        mean = f"{100 * self.iou:.0f} % ({100 * self.low:.0f} to {100 * self.high:.0f})"
        line = f"{self.checked} masks checked: mean IoU of an image {mean}, "
        line += f"of the classes {100 * self.miou:.0f} %"
        left = len(self.images) - self.checked
        if left and self.settled is None:
            line += f"; even all {left} others would move the mean by less than 1 point"
        elif self.settled:
            line += f"; {self.settled} more would move the mean by less than 1 point"
        elif left:
            line += "; check more, the next ones still move the mean by over 1 point"
        return f"{line}. {self.doubt}" if self.doubt else line


def calibrate(
    rows: Sequence[Row],
    checked: Mapping[str, Overlap],
    num_classes: int,
    level: float = _LEVEL,
    seed: int = 0,
) -> Trust:
    """Predicted IoU with an interval for every image and every class.

    Args:
        rows: The images as `tagmask.review.queue.rank` orders them.
        checked: What was found of the checked ones, by name.
        num_classes: K.
        level: Share of intervals that shall hold, 0 to 1.
        seed: Of the bootstrap draws.

    Raises:
        DataError: Fewer than `FEWEST` of the images were checked.
    """
    known = [i for i, row in enumerate(rows) if row.name in checked and np.isfinite(checked[row.name].iou)]
    if len(known) < FEWEST:
        raise DataError(
            f"{len(known)} checked masks say too little about the others; check at least {FEWEST}"
        )
    overlaps = [checked[rows[i].name] for i in known]
    found, spread = _images(rows, known, np.array([one.iou for one in overlaps]), level)
    rest = len(rows) - len(known)
    mean = float(np.mean([one.iou for one in found.values()]))
    margin = _TWO_SIDED * spread * np.sqrt(rest / len(rows) / len(known))
    low, high = max(mean - margin, 0.0), min(mean + margin, 1.0)
    classes = class_trust(rows, known, overlaps, num_classes, seed)
    settled = _settled(spread, len(known), len(rows))
    unchanged = sum(one.iou > _AS_IT_WAS for one in overlaps)
    doubt = " ".join(filter(None, (_doubt(known, len(rows)), _lenient(unchanged, len(known)))))
    return Trust(found, classes, len(known), mean, low, high, settled, level, doubt)


def random_order(names: Sequence[str]) -> list[str]:
    """Names in an order that has nothing to do with what they show, the same every time.

    Who checks masks in this order checks a random draw, however many they are.
    """
    return sorted(names, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())


def _features(rows: Sequence[Row]) -> Floats:
    """Signals and simple facts of every image, each with mean 0 and deviation 1."""
    kinds = sorted({kind for row in rows for kind in row.signals})
    table = np.full((len(rows), len(kinds) + 3), np.nan)
    for place, row in enumerate(rows):
        table[place, : len(kinds)] = [row.signals.get(kind, np.nan) for kind in kinds]
        table[place, -3:] = row.score, np.log10(sum(row.areas.values()) + 1e-3), len(row.areas)
    means = np.nanmean(table, 0)
    table = np.where(np.isnan(table), means, table) - means
    deviations = table.std(0)
    scaled: Floats = np.clip(table / np.where(deviations > 1e-9, deviations, 1.0), -4, 4)
    return scaled


def _images(
    rows: Sequence[Row], known: Sequence[int], truth: Floats, level: float
) -> tuple[dict[str, ImageTrust], float]:
    """Every image's interval by jackknife+, and the deviation of the regression's errors."""
    features = np.column_stack([np.ones(len(rows)), _features(rows)])
    x = features[known]
    fits = [_leave_one_out(x, truth, penalty) for penalty in _PENALTIES]
    betas, errors = min(fits, key=lambda fit: float(np.mean(fit[1] ** 2)))
    guesses = np.clip(features @ betas.T, 0.0, 1.0)  # (images, left out)
    middle = np.median(guesses, 1)
    size = np.abs(errors)
    reach = np.empty_like(guesses)
    for out, place in enumerate(known):
        # Neither the regression nor the line below has seen the mask whose error is held against them.
        left = np.arange(len(known)) != out
        scale = _scales(guesses[:, out], guesses[known, out][left], size[left])
        reach[:, out] = size[out] / scale[place] * scale
    low = _quantile(guesses - reach, 1 - level, upper=False)
    high = _quantile(guesses + reach, level, upper=True)
    found = {}
    measured = dict(zip(known, truth, strict=True))
    for place, row in enumerate(rows):
        if place in measured:
            iou = float(measured[place])
            found[row.name] = ImageTrust(iou, iou, iou, checked=True)
        else:
            iou, start, end = np.clip([middle[place], low[place], high[place]], 0, 1).round(4).tolist()
            found[row.name] = ImageTrust(iou, start, end)
    return found, float(np.sqrt(np.mean(errors**2)))


def _leave_one_out(x: Floats, y: Floats, penalty: float) -> tuple[Floats, Floats]:
    """Ridge coefficients without each row in turn, (n, p), and the error of the row left out, (n,)."""
    free = np.eye(x.shape[1])
    free[0, 0] = 0.0
    inverse = np.linalg.inv(x.T @ x + penalty * free)
    beta = inverse @ x.T @ y
    leverage = np.einsum("ij,jk,ik->i", x, inverse, x)
    errors = (y - x @ beta) / np.maximum(1 - leverage, 1e-6)
    return beta - errors[:, None] * (x @ inverse), errors


def _scales(all_guesses: Floats, guesses: Floats, errors: Floats) -> Floats:
    """How far off the regression usually is at a predicted IoU: a line, never below half of the mean."""
    slope, level = np.polyfit(guesses, errors, 1) if np.ptp(guesses) > 1e-6 else (0.0, errors.mean())
    mean = max(float(errors.mean()), 1e-4)
    line: Floats = np.clip(level + slope * all_guesses, 0.5 * mean, 2.0 * mean)
    return line


def _quantile(values: Floats, share: float, upper: bool) -> Floats:
    """The end of a conformal interval over the last axis: the next order statistic outwards."""
    ordered, count = np.sort(values, 1), values.shape[1]
    if upper:
        place = min(int(np.ceil(share * (count + 1))), count) - 1
    else:
        place = max(int(np.floor(share * (count + 1))), 1) - 1
    end: Floats = ordered[:, place]
    return end


def _settled(spread: float, checked: int, images: int) -> int | None:
    """How many more checks leave the mean within a point; None if all do."""
    # The mean of n errors of deviation s moves by s sqrt(1/n - 1/(n + k)) when k more come in.
    room = 1 / checked - (_POINT / (_TWO_SIDED * max(spread, 1e-9))) ** 2
    if room <= 1 / images:
        return None
    return max(int(1 / room - checked - 1e-9), 0)


def _doubt(known: Sequence[int], images: int) -> str:
    """Whether the checked masks are a random draw of the queue, by the mean of their places."""
    place = (float(np.mean(known)) + 0.5) / images
    usual = np.sqrt(max(1 / 12 / len(known) * (1 - len(known) / images), 1e-12))
    if len(known) == images or abs(place - 0.5) < 3 * usual:
        return ""
    which = "worst" if place < 0.5 else "best"
    return f"Mostly the {which} masks were checked, so this may be far off: check some at random."


def _lenient(unchanged: int, checked: int) -> str:
    """A mask that is accepted as it is counts as right in every pixel, which only the person can know."""
    if 2 * unchanged <= checked:
        return ""
    return (
        f"{unchanged} of them were accepted as they are and count as 100 %; where that meant good enough, "
        "the figures are too high by what a correction would have changed."
    )

"""From signals to an order: which images to look at first, why, and which tags to doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["Doubt", "Row", "area_doubts", "rank", "tag_doubts"]

WEIGHTS: Mapping[str, float] = {
    "overlap": 1.0,
    "borders": 0.5,
    "label": 1.0,
    "missing": 1.0,
    "untagged": 1.0,
    "area": 0.25,
}
"""Share of every signal in the score; the mean is taken over the signals that an image has."""
_OTHER = 0.5
_FIRES = {"overlap": 0.5, "borders": 0.5, "missing": 1e-9, "untagged": 0.1, "area": 0.5}
_DISAGREES = 0.5
_FEW = 8
_FAR = 4.0


@dataclass(frozen=True)
class Row:
    """One image of the queue.

    Attributes:
        name: Of the image.
        signals: Doubt by signal, 0 to 1.
        areas: Share of the pixels by 0-based class.
        tags: 0-based tagged classes; None if nobody tagged it.
        chances: Probability of every class by the classifier, (K,); empty if there is none.
        score: Overall doubt, 0 to 1.
        words: Which signals fired, as sentences.
        expected: What the model's probabilities say of a label (0 background, k + 1 class k): shares of the
            pixels that are right in the mask, and that show it; empty if it has none.
    """

    name: str
    signals: Mapping[str, float]
    areas: Mapping[int, float]
    tags: Sequence[int] | None
    chances: Sequence[float] = ()
    score: float = 0.0
    words: tuple[str, ...] = ()
    expected: Mapping[int, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Doubt:
    """A tag that the model does not believe, or one that it misses.

    Attributes:
        name: Of the image.
        kind: "wrong" or "missing".
        key: 0-based class.
        doubt: 0 to 1.
        chance: Probability of the class by the classifier.
        area: Its share of the mask.
        strong: Whether the probability is what the class usually has where the tag says the opposite.
    """

    name: str
    kind: str
    key: int
    doubt: float
    chance: float
    area: float = field(default=0.0)
    strong: bool = field(default=True)


def rank(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """The rows with score and words, most doubtful first.

    Args:
        rows: Signals of every image, without "area".
        names: Class names.
    """
    unusual = area_doubts(rows)
    result = []
    for row, odd in zip(rows, unusual, strict=True):
        found = {**row.signals, "area": max((doubt for doubt, _ in odd.values()), default=0.0)}
        words = tuple(_words(row, found, odd, names))
        result.append(replace(row, signals=found, score=round(_score(found), 4), words=words))
    return sorted(result, key=lambda row: (-row.score, row.name))


def _score(found: Mapping[str, float]) -> float:
    weights = {name: WEIGHTS.get(name, _OTHER) for name in found}
    return sum(weights[name] * value for name, value in found.items()) / max(sum(weights.values()), 1e-9)


def area_doubts(rows: Sequence[Row]) -> list[dict[int, tuple[float, float]]]:
    """How unusual the area of every class is among the images that show it.

    Areas are compared on the logistic scale by their distance from the median in median absolute deviations;
    classes seen in fewer than 8 images are left out.

    Returns:
        Per image {class: (doubt, the class's median area)}; 0.5 of doubt means four deviations.
    """
    values: dict[int, list[float]] = {}
    for row in rows:
        for key, area in row.areas.items():
            values.setdefault(key, []).append(_logit(area))
    usual = {}
    for key, seen in values.items():
        middle = float(np.median(seen))
        spread = 1.4826 * float(np.median(np.abs(np.asarray(seen) - middle)))
        if len(seen) >= _FEW and spread > 0:
            usual[key] = middle, spread
    result = []
    for row in rows:
        found = {}
        for key in row.areas.keys() & usual.keys():
            middle, spread = usual[key]
            far = abs(_logit(row.areas[key]) - middle) / spread
            found[key] = far**2 / (far**2 + _FAR**2), float(1 / (1 + np.exp(-middle)))
        result.append(found)
    return result


def _logit(area: float) -> float:
    area = min(max(area, 1e-5), 1 - 1e-5)
    return float(np.log(area / (1 - area)))


def _words(
    row: Row,
    found: Mapping[str, float],
    odd: Mapping[int, tuple[float, float]],
    names: Sequence[str],
) -> list[str]:
    words = []
    tagged = set(row.tags or ())
    for key in sorted(tagged):
        if row.tags is not None and found.get("missing", 0) and row.areas.get(key, 0) < 0.001:
            words.append(f"{names[key]} is tagged but has no pixels")
    if found.get("untagged", 0) >= _FIRES["untagged"]:
        strange = [names[key] for key in row.areas if key not in tagged]
        words.append(
            f"{100 * found['untagged']:.0f} % of the object pixels are {' and '.join(strange)}, not tagged"
        )
    words += _disagreement(
        {name: 1 - value for name, value in found.items() if name not in _FIRES and value >= _DISAGREES}
    )
    if found.get("overlap", 0) >= _FIRES["overlap"]:
        words.append(f"the model itself expects an IoU of {100 * (1 - found['overlap']):.0f} %")
    if found.get("borders", 0) >= _FIRES["borders"]:
        words.append("undecided along the borders")
    for key, (doubt, middle) in odd.items():
        if doubt >= _FIRES["area"]:
            words.append(
                f"{names[key]} covers {100 * row.areas[key]:.1f} % of the image, usual {100 * middle:.0f} %"
            )
    return words


def _disagreement(shared: Mapping[str, float]) -> list[str]:
    """One sentence on the opinions that differ from the mask, however many they are."""
    if not shared:
        return []
    *others, last = map(_said, shared)
    low, high = (f"{100 * value:.0f}" for value in (min(shared.values()), max(shared.values())))
    if not others:
        return [f"mask and {last} share only {low} %"]
    share = low if low == high else f"{low} to {high}"
    return [f"mask shares only {share} % with {', '.join(others)} and {last}"]


def _said(name: str) -> str:
    """An opinion in words: "attention_cam" is the attention CAM."""
    if name == "label":
        return "refined label"
    return " ".join(part.upper() if part in ("cam", "lam") else part for part in name.split("_"))


def tag_doubts(rows: Sequence[Row]) -> list[Doubt]:
    """Tags that the classifier contradicts, the most doubtful first.

    A tag is doubted where the probability of the class is nearer to its mean over the images of which the
    tag says the opposite: those tagged with the class, or the others. The doubt is strong where it reaches
    that mean, which is confident learning (Northcutt et al., 2021). Doubts are sorted by the distance
    between tag and probability.

    Args:
        rows: Images; those without tags or probabilities are left out.
    """
    known = [row for row in rows if row.tags is not None and len(row.chances)]
    if not known:
        return []
    chances = np.asarray([row.chances for row in known], np.float64)
    tagged = np.zeros(chances.shape, bool)
    for index, row in enumerate(known):
        tagged[index, list(row.tags or ())] = True
    yes, no = _means(chances, tagged), _means(chances, ~tagged)
    halfway = (yes + no) / 2
    wrong = tagged & (chances < halfway) & (no < yes)
    missing = ~tagged & (chances > halfway) & (no < yes)
    found = []
    for kind, places, strong in (("wrong", wrong, chances <= no), ("missing", missing, chances >= yes)):
        for index, key in np.argwhere(places).tolist():
            chance = float(chances[index, key])
            doubt = 1 - chance if kind == "wrong" else chance
            area = known[index].areas.get(key, 0.0)
            figures = round(doubt, 4), round(chance, 4), area, bool(strong[index, key])
            found.append(Doubt(known[index].name, kind, key, *figures))
    return sorted(found, key=lambda doubt: (-doubt.doubt, doubt.name, doubt.key))


def _means(values: NDArray[np.float64], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean of the chosen values of every column; not a number where none is."""
    count = chosen.sum(0)
    return np.where(count > 0, (values * chosen).sum(0) / np.maximum(count, 1), np.nan)

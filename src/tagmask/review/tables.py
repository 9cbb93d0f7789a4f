"""What the review writes as tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tagmask.review.calibration import Trust, random_order
from tagmask.review.queue import Doubt, Row

__all__ = ["by_trust", "doubt_table", "grade", "queue_table", "trust_values"]


def by_trust(rows: Sequence[Row], trust: Trust | None) -> list[Row]:
    """The rows with the lowest predicted IoU first and checked ones last; as they are without checks."""
    if trust is None:
        return list(rows)
    images = trust.images
    return sorted(rows, key=lambda row: (images[row.name].checked, images[row.name].iou, row.name))


def queue_table(
    rows: Sequence[Row],
    names: Sequence[str],
    listed: Callable[[Sequence[int] | None], str],
    trust: Trust | None = None,
) -> list[list[Any]]:
    """The queue, one line an image.

    Args:
        rows: In the order in which to look at them.
        names: Class names.
        listed: Classes as one text.
        trust: Predicted IoU; without it these columns are missing.
    """
    kinds = sorted({kind for row in rows for kind in row.signals})
    draw = {name: place for place, name in enumerate(random_order([row.name for row in rows]), 1)}
    further = ["iou", "iou low", "iou high", "checked"] if trust else []
    table: list[list[Any]] = [["place", "name", "score", "why", "tags", "classes", *kinds, "draw", *further]]
    for place, row in enumerate(rows, start=1):
        values = [round(row.signals[kind], 4) if kind in row.signals else "" for kind in kinds]
        line = [place, row.name, row.score, "; ".join(row.words), listed(row.tags), listed(sorted(row.areas))]
        line += [*values, draw[row.name]]
        if trust:
            one = trust.images[row.name]
            line += [round(one.iou, 4), one.low, one.high, "yes" if one.checked else ""]
        table.append(line)
    return table


def doubt_table(doubts: Sequence[Doubt], names: Sequence[str]) -> list[list[Any]]:
    """Doubted tags, one line each."""
    head = ["name", "tag", "perhaps", "doubt", "grade", "probability", "share of the mask"]
    lines = [[d.name, names[d.key], d.kind, d.doubt, grade(d), d.chance, d.area] for d in doubts]
    return [head, *lines]


def grade(doubt: Doubt) -> str:
    """Its grade: "strong" or "weak"."""
    return "strong" if doubt.strong else "weak"


def trust_values(trust: Trust, labels: Sequence[str]) -> dict[str, Any]:
    """Plain values for ``trust.json``.

    Args:
        trust: What is known.
        labels: Names of all labels, the background first.
    """
    classes = {
        labels[one.label]: {"iou": _plain(one.iou), "low": _plain(one.low), "high": _plain(one.high),
                            "checked": one.checked}
        for one in trust.classes
    }  # fmt: skip
    images = {name: [_plain(one.iou), one.low, one.high, one.checked] for name, one in trust.images.items()}
    return {
        "text": trust.text,
        "level": trust.level,
        "checked": trust.checked,
        "iou": _plain(trust.iou),
        "low": _plain(trust.low),
        "high": _plain(trust.high),
        "miou": _plain(trust.miou),
        "settled": trust.settled,
        "classes": classes,
        "images": images,
    }


def _plain(value: float) -> float | None:
    return round(value, 4) if value == value else None

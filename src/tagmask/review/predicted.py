"""What a colleague would say of predicted masks, from the figures of a prediction; needs no true mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tagmask.review.verdict import BAD_IOU, LOW_IOU, Facts, Level, Verdict

__all__ = ["judge_rows"]

_ENOUGH = 20
_FULL = 0.98
_UNSURE = 0.3


def judge_rows(
    rows: Iterable[Mapping[str, Any]], names: Sequence[str], folder: str, overlays: str = "overlays"
) -> Verdict | None:
    """Words and a level for masks of pictures that nobody tagged, or whose tags restricted them.

    Args:
        rows: Figures of the pictures as in ``summary.jsonl``: "classes" (name to share of the picture),
            "unsure" (share of unsure pixels), "warnings", and "expected" (predicted IoU and its interval)
            where masks of the run were checked.
        names: All classes of the model.
        folder: Where the masks are, for the next step.
        overlays: What holds the pictures to look at, in that folder; "" if there are none.

    Returns:
        The verdict; None without pictures.
    """
    count, sums, seen, known = 0, [0, 0, 0, 0], set[str](), [0, 0.0]
    for row in rows:  # millions of them, perhaps, so none is kept
        count += 1
        sums[0] += not row["classes"]
        sums[1] += sum(row["classes"].values()) > _FULL
        sums[2] += row["unsure"] > _UNSURE
        sums[3] += any("no pixel of the tag" in w for w in row["warnings"])
        seen.update(row["classes"])
        if "expected" in row:
            known[0] += 1
            known[1] += row["expected"][0]
    if not count:
        return None
    empty, full, unsure, missed = (one / count for one in sums)
    bad: list[str] = []
    doubtful: list[str] = []
    good: list[str] = []

    def told(value: float, some: float, most: float, words: str) -> None:
        (bad if value > most else doubtful if value > some else good).append(words)

    told(empty, 0.5, 0.95, f"{100 * empty:.0f} % of {count} masks are empty")
    if full == 1:
        good.append("no mask has background, as where every pixel belongs to a class")
    elif full > 0.2:
        told(full, 0.2, 0.9, f"{100 * full:.0f} % of the masks have no background")
    told(unsure, 0.3, 0.7, f"{100 * unsure:.0f} % are unsure about a third of their pixels or more")
    if missed:
        told(missed, 0.2, 0.5, f"{100 * missed:.0f} % show no pixel of one of their tags")
    if known[0]:
        mean = known[1] / known[0]
        words = f"predicted IoU {100 * mean:.0f} % on average, from masks that a person checked"
        (bad if mean < BAD_IOU else doubtful if mean < LOW_IOU else good).append(words)
    never = tuple(name for name in names if name not in seen)
    if count >= _ENOUGH and never and seen:
        doubtful.append(f"in no mask: {', '.join(never)}")
    if count >= _ENOUGH and len(names) > 1 and len(seen) == 1 and not empty:
        bad.append(f"every mask shows {next(iter(seen))} and nothing else")
    level: Level = "bad" if bad else "doubtful" if doubtful else "usable"
    advice = "nobody tagged these pictures, so a class that is confused with another is not noticed"
    first = f"the least sure first (column confidence of {folder}/summary.csv)"
    step = f"look at {folder}/{overlays}, {first}"
    if not overlays:
        step = f"predict some again into another --out with --set overlays=true and look at them, {first}"
    facts = Facts(images=count, empty=empty, full=full, untagged=0.0, never=never)
    return Verdict(level, (*bad, *doubtful, *good), advice, step, facts)

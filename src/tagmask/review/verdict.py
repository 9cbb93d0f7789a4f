"""What a colleague would say of a run's masks after a look at them; needs no true mask."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tagmask.errors import DataError

__all__ = ["BAD_IOU", "LOW_IOU", "Facts", "Verdict", "judge", "lines_of", "read_verdict"]

Level = Literal["usable", "doubtful", "bad"]

_BLIND, _WEAK = 0.6, 0.75
_BY_CHANCE, _LOOSE = 0.15, 0.4
_MOST = 0.9
_MARGIN = 1.1
BAD_IOU, LOW_IOU = 0.4, 0.6
"""Mean IoU of an image, background included, below which masks are bad, or doubtful; an empty mask of a small
thing has nearly 0.5."""
_BEHIND, _FAR_BEHIND = 0.2, 0.35
"""How much less masks know of the tags than the classifier that learned beside them."""
_TO_REPORT = re.compile(r"(;| {2}\(and) look at .*report\.html\)?$", re.DOTALL)


@dataclass(frozen=True)
class Facts:
    """What was seen on some of a run's images.

    Attributes:
        images: How many were looked at.
        empty: Share of masks without any class.
        full: Share of masks without background; None where the data has no background.
        untagged: Share of the images whose tags name nothing; these masks should be empty.
        never: Classes that images are tagged with and no mask shows.
        agreement: How far the classes of a mask and the tags of its image agree beyond chance: mean F1 of
            both sets, 0 as with tags of other images, 1 always; None without tags.
        tag_auc: Chance that the classifier ranks an image with a tag above one without, mean over classes;
            0.5 by guessing; None where it cannot be told.
        edges: Edge evidence of the outlines by what was cut: "masks", "labels", "box" (the first tag in the
            middle of the image); empty where there is no background.
        confused: Pairs of classes that tags cannot tell apart, or that no image lacks, in words.
        checked: How many masks a person checked, and what they say of the mean IoU of an image: it and both
            ends of its interval; None where too few are checked, or the masks were made anew since.
    """

    images: int
    empty: float
    full: float | None
    untagged: float
    never: tuple[str, ...] = ()
    agreement: float | None = None
    tag_auc: float | None = None
    edges: Mapping[str, float] = field(default_factory=dict)
    confused: tuple[str, ...] = ()
    checked: tuple[int, float, float, float] | None = None


@dataclass(frozen=True)
class Verdict:
    """The judgement in words.

    Attributes:
        level: "usable", "doubtful" or "bad".
        lines: What was seen, worst first, a sentence each.
        advice: Which result to take.
        next: The next command.
        facts: What it rests on.
    """

    level: Level
    lines: tuple[str, ...]
    advice: str
    next: str
    facts: Facts

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def lines_of(told: Mapping[str, Any]) -> list[str]:
    """A verdict, as `Verdict.as_json` gives it, as lines for a terminal."""
    head = {
        "usable": "usable: look at the worst masks first",
        "doubtful": "doubtful: look before you use them",
        "bad": "bad: do not use these masks",
    }[told["level"]]
    seen = [f"  {line}" for line in told["lines"]]
    return [f"verdict: {head}", *seen, f"  {told['advice']}", f"  next: {told['next']}"]


def read_verdict(path: Path, images: bool = True) -> tuple[str, list[str]] | None:
    """Level and lines of a ``verdict.json`` for the report; None where there is none.

    The step after it is worded for those who have the report open, which a terminal sends them to.

    Args:
        path: The file.
        images: Whether the report shows images, which a doubtful verdict then points to.

    Raises:
        DataError: It is damaged.
    """
    if not path.is_file():
        return None
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        level, step = str(told["level"]), _TO_REPORT.sub("", told["next"])
        look = "" if level == "usable" or not images else "look at the images below, then "
        return level, [*told["lines"], f"{told['advice']}.", f"Next: {look}{step}"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); delete it and run verdict again") from None


def judge(facts: Facts, run: str) -> Verdict:
    """Words and a level for what was seen.

    Args:
        facts: See `Facts`.
        run: Folder of the run, for the next command.
    """
    bad, doubtful, good = _findings(facts)
    level: Level = "bad" if bad else "doubtful" if doubtful else "usable"
    advice = _advice(facts, level)
    if level == "bad":
        step = (
            f"tagmask data check on the data, then tagmask run with more updates; look at {run}/report.html"
        )
    else:
        step = f"tagmask review {run}" + ("" if level == "usable" else f"  (and look at {run}/report.html)")
    return Verdict(level, (*bad, *doubtful, *facts.confused, *good), advice, step, facts)


def _findings(facts: Facts) -> tuple[list[str], list[str], list[str]]:
    bad: list[str] = []
    doubtful: list[str] = []
    good: list[str] = []

    def told(value: float | None, lowest: float, low: float, words: str) -> None:
        if value is not None:
            (bad if value < lowest else doubtful if value < low else good).append(words)

    if facts.tag_auc is not None:
        words = (
            f"{100 * facts.tag_auc:.0f} of 100 pairs of images are ranked right by their tags (50: guessing)"
        )
        told(facts.tag_auc, _BLIND, _WEAK, f"tags: {words}")
    if facts.agreement is not None:
        words = (
            f"classes in masks and tags agree {100 * facts.agreement:.0f} % better than chance (100: always)"
        )
        told(facts.agreement, _BY_CHANCE, _LOOSE, words)
    if facts.checked is not None:
        count, iou, low, high = facts.checked
        words = f"{count} masks checked: mean IoU of an image {100 * iou:.0f} %"
        told(iou, BAD_IOU, LOW_IOU, f"{words} ({100 * low:.0f} to {100 * high:.0f})")
    behind = _behind(facts)
    if behind > _BEHIND:
        (bad if behind > _FAR_BEHIND else doubtful).append(
            "masks show far less of the tags than the classifier knows: the decoder needs more updates"
        )
    surplus = facts.empty - facts.untagged
    words = f"{100 * facts.empty:.0f} % of {facts.images} masks are empty"
    if facts.untagged:
        words += f" ({100 * facts.untagged:.0f} % of the images have no tag)"
    (bad if surplus > 0.5 else doubtful if surplus > 0.2 else good).append(words)
    if facts.full is not None and facts.full > 0.2:
        (bad if facts.full > _MOST else doubtful).append(
            f"{100 * facts.full:.0f} % of the masks have no background"
        )
    if facts.never:
        doubtful.append(f"tagged but in no mask: {', '.join(facts.never)}")
    masks, box = facts.edges.get("masks"), facts.edges.get("box")
    if masks is not None and box is not None:
        words = f"edges: outlines of masks {masks:.2f}, of a box in the centre {box:.2f} (0: random)"
        if masks <= box:
            doubtful.append(f"{words}: no better than a box")
        else:
            good.append(words)
    return bad, doubtful, good


def _behind(facts: Facts) -> float:
    """Agreement of the masks' classes with the tags, below that of the classifier's ranking (0 to 1 each)."""
    if facts.tag_auc is None or facts.agreement is None:
        return 0.0
    return (2 * facts.tag_auc - 1) - facts.agreement


def _advice(facts: Facts, level: Level) -> str:
    masks, labels = facts.edges.get("masks"), facts.edges.get("labels")
    if level == "bad" and labels is not None and _behind(facts) > _FAR_BEHIND and facts.empty < 0.5:
        return "take labels/ where an image has tags, and no masks"
    if level == "bad":
        return "take neither labels nor masks"
    if masks is not None and labels is not None and labels > _MARGIN * masks:
        return "where an image has tags, take labels/ (outlines follow edges better); masks/ elsewhere"
    return "take masks/; labels/ holds what tags and maps say without the decoder"

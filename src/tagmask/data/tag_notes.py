"""What tags look like as a whole: things that are allowed, and from which nothing good is learned."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations

from tagmask.data.base import Item, Problem
from tagmask.data.classes import ClassTable

__all__ = ["FEW_IMAGES", "tag_notes"]

FEW_IMAGES = 10
"""Of a class with fewer images little is learned."""
_MOST_PAIRS = 1000
_BETWEEN = re.compile(r"[\s;|,/+&]+")
_NOTHING = {"nan", "none", "null", "n/a", "na", "<na>", "-"}


def tag_notes(classes: ClassTable, items: Sequence[Item]) -> Iterator[Problem]:
    """Notes on classes: without images, with few, on every image, always together, alike, like nothing.

    Args:
        classes: The classes.
        items: The images; those that nobody tagged are passed over.
    """
    tagged = [item.tags for item in items if item.tags is not None]
    count = Counter(index for indices in tagged for index in indices)
    for k, name in enumerate(classes.names):
        if tagged and not count[k]:
            yield _note("class without images", name, "no image has this tag")
        elif tagged and count[k] < FEW_IMAGES:
            yield _note(
                "class with few images",
                name,
                f"{count[k]} image{'s' * (count[k] != 1)}, below {FEW_IMAGES}: too few to learn from",
            )
        if len(tagged) > 1 and count[k] == len(tagged):
            detail = f"all {len(tagged)} images have it: nothing tells it from the background; add others"
            yield _note("class on every image", name, detail)
    yield from _together(classes, tagged, count)
    yield from _alike(classes, count)
    yield from _missing(classes)


def _together(
    classes: ClassTable, tagged: Sequence[tuple[int, ...]], count: Counter[int]
) -> Iterator[Problem]:
    pairs = Counter(pair for indices in tagged for pair in combinations(indices, 2))
    found = [(a, b) for (a, b), both in pairs.items() if both == count[a] == count[b] and both > 1]
    for a, b in sorted(found)[:_MOST_PAIRS]:
        names = f"{classes.names[a]} + {classes.names[b]}"
        detail = (
            f"on the same {count[a]} images: tags cannot tell them apart (or they are one name with a blank)"
        )
        yield _note("classes always together", names, detail)


def _alike(classes: ClassTable, count: Counter[int]) -> Iterator[Problem]:
    forms: defaultdict[str, list[int]] = defaultdict(list)
    for k, name in enumerate(classes.names):
        seen = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
        forms[" ".join(seen.split()).casefold()].append(k)
    for same in forms.values():
        if len(same) > 1:
            names = ", ".join(f"'{classes.names[k]}' ({count[k]} images)" for k in same)
            yield _note(
                "class names alike", classes.names[same[0]], f"{names}: spell them the same if they are one"
            )
    known = set(classes.names)
    for name in classes.names:
        parts = [part.strip() for part in _BETWEEN.split(name)]
        if len(parts) > 1 and all(part in known for part in parts):
            detail = f"'{name}' may be the classes {', '.join(parts)}, separated in another way than the rest"
            yield _note("class names alike", name, detail)


def _missing(classes: ClassTable) -> Iterator[Problem]:
    for name in classes.names:
        if name.casefold() in _NOTHING:
            detail = "is what programs write where there is no tag; leave the cell empty if it means that"
            yield _note("class named like a missing value", name, detail)


def _note(kind: str, name: str, detail: str) -> Problem:
    return Problem(kind, name, detail, fatal=False)

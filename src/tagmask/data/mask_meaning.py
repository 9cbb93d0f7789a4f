"""What the numbers in a folder of masks mean, told by comparing some masks with the tags of their images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tagmask.data.base import Item, Problem
from tagmask.data.classes import ClassTable, class_palette, voc_palette
from tagmask.data.readers.images import read_indices, read_palette
from tagmask.data.readers.masks import MaskValues
from tagmask.errors import DataError
from tagmask.types import IGNORE

__all__ = ["decide", "other_colours"]

_FEW, _MANY = 8, 200
_ENOUGH = 5
_HALF, _NEARLY_ALL = 0.5, 0.9
_KIND = "unclear masks"


@dataclass(frozen=True)
class _Look:
    """The numbers in one mask, and the tags of its image (None if nobody said).

    Attributes:
        coloured: 0-based classes that its colours stand for, if they are those of other numbers.
    """

    values: frozenset[int]
    tags: frozenset[int] | None
    coloured: frozenset[int] | None = None


_Reading = Callable[[frozenset[int]], "frozenset[int] | None"]
"""Numbers to 0-based classes; None if the numbers cannot be meant so."""


def decide(
    items: Sequence[Item], classes: ClassTable, values: MaskValues
) -> tuple[MaskValues, list[Problem]]:
    """The table to read masks with, for which the user gave none.

    Masks hold labels (0 background, k + 1 the k-th class, 255 ignored) unless their images' tags contradict
    that and agree with another reading. With one class, 255 then is the class. With more, the reading is not
    changed: the masks are refused, and both readings named.

    Args:
        items: The images, with their masks and tags.
        classes: The classes.
        values: The table of labels.

    Returns:
        The table, and a problem: fatal if the meaning cannot be told, a note if it is not the usual one.
    """
    looks = _look(items, _FEW, classes)
    unlike = [look for look in looks if look.coloured is not None]
    if unlike and not (_agreement(unlike, _labels(classes.num_classes)) == 1 and _no_other(unlike)):
        detail = (
            f"{len(unlike)} of {len(looks)} are indexed pictures whose colours are those of other classes "
            f"than their numbers: {_unlike(unlike[0], classes)}; save them with the numbers of the classes, "
            "or say what the numbers mean in mask_values.json"
        )
        return values, [Problem(_KIND, f"{len(unlike)} masks", detail)]
    if not looks or _agreement(looks, _labels(classes.num_classes)) >= _HALF:
        return values, []
    looks = _look(items, _MANY, classes)
    as_labels = _agreement(looks, _labels(classes.num_classes))
    if classes.num_classes == 1:
        return _of_one_class(looks, as_labels, classes, values)
    tags = {look.tags for look in looks if look.tags is not None}
    if len(looks) < _ENOUGH or len(tags) < 2 or as_labels >= _HALF:
        return values, []
    for said, reading in _others(classes):
        share = _agreement(looks, reading)
        if share >= _NEARLY_ALL:
            usual = f"{100 * as_labels:.0f} % of {len(looks)} images"
            detail = (
                f"as labels (1 is '{classes.names[0]}') they agree with the tags of {usual}, {said} with "
                f"{100 * share:.0f} %; say which in mask_values.json, as {_example(said, classes)}"
            )
            return values, [Problem(_KIND, f"{len(looks)} masks", detail)]
    return values, []


def _of_one_class(
    looks: Sequence[_Look], as_labels: float, classes: ClassTable, values: MaskValues
) -> tuple[MaskValues, list[Problem]]:
    every = frozenset().union(*(look.values for look in looks))
    name = classes.names[0]
    if 255 not in every or not every <= {0, 255}:
        return values, []
    share = _agreement(looks, _object)
    known = any(look.tags is not None for look in looks)
    if known and share >= _NEARLY_ALL and as_labels < _HALF:
        detail = f"no mask holds 1, and 255 is where the tags say '{name}': 255 is read as '{name}'"
        table = MaskValues.from_mapping({255: name}, classes)
        return table, [Problem("mask values", "255", detail, fatal=False)]
    if known and as_labels >= _HALF:
        return values, []
    detail = (
        f"they hold nothing but 0 and 255: '{name}' at 255, or ignored pixels and no '{name}' at all; say "
        f'which with mask_values.json: {{"255": "{name}"}} or {{"255": "ignore"}}'
    )
    return values, [Problem(_KIND, f"{len(looks)} masks", detail)]


def _look(items: Sequence[Item], most: int, classes: ClassTable) -> list[_Look]:
    """Masks spread evenly over the data set; those that cannot be read are named elsewhere."""
    masked = [item for item in items if item.mask is not None]
    found = []
    for item in masked[:: max(1, -(-len(masked) // most))]:
        assert item.mask is not None
        with suppress(DataError):
            counts = np.bincount(read_indices(item.mask).reshape(-1), minlength=256)
            tags = None if item.tags is None else frozenset(item.tags)
            present = np.flatnonzero(counts).tolist()
            coloured = other_colours(read_palette(item.mask), present, classes.num_classes)
            seen = None if coloured is None else frozenset(k - 1 for k in coloured.values() if k)
            found.append(_Look(frozenset(present), tags, seen))
    return found


def other_colours(
    palette: NDArray[np.uint8] | None, present: Sequence[int], num_classes: int
) -> dict[int, int] | None:
    """What the numbers in an indexed mask stand for by their colours, if these are those of other labels.

    Args:
        palette: Its colours, (n, 3).
        present: The numbers in it.
        num_classes: K.

    Returns:
        Number to label by colour, of VOC's colours or ours; None where colours say nothing else.
    """
    values = [value for value in present if value != IGNORE and palette is not None and value < len(palette)]
    for known in (voc_palette(), class_palette()):
        labels = {tuple(colour): k for k, colour in enumerate(known[: num_classes + 1].tolist())}
        found = {value: labels.get(tuple(palette[value].tolist())) for value in values}  # type: ignore[index]
        if None not in found.values() and len({*found.values()}) == len(found):
            other = {value: k for value, k in found.items() if k is not None}
            return None if all(value == k for value, k in other.items()) else other
    return None


def _no_other(looks: Sequence[_Look]) -> bool:
    """Whether no image's tags are those of its colours."""
    return not any(look.tags is not None and look.coloured == look.tags for look in looks)


def _unlike(look: _Look, classes: ClassTable) -> str:
    numbers = _labels(classes.num_classes)(look.values) or frozenset()
    said = [
        " + ".join(classes.names[k] for k in sorted(of)) or "background"
        for of in (numbers, look.coloured or ())
    ]
    return f"by number {said[0]}, by colour {said[1]}"


def _agreement(looks: Sequence[_Look], reading: _Reading) -> float:
    """Share of the tagged images whose mask shows just their tags; 0 without any."""
    known = [look for look in looks if look.tags is not None]
    return sum(reading(look.values) == look.tags for look in known) / len(known) if known else 0.0


def _labels(num_classes: int) -> _Reading:
    return _shifted(first=1, last=num_classes, background=0)


def _object(values: frozenset[int]) -> frozenset[int] | None:
    return frozenset([0]) if 255 in values else frozenset()


def _others(classes: ClassTable) -> list[tuple[str, _Reading]]:
    count = classes.num_classes
    return [
        (f"with 0 as '{classes.names[0]}'", _shifted(first=0, last=count - 1, background=None)),
        (f"with 1 as background and 2 as '{classes.names[0]}'", _shifted(2, count + 1, background=1)),
    ]


def _shifted(first: int, last: int, background: int | None) -> _Reading:
    def read(values: frozenset[int]) -> frozenset[int] | None:
        inside = {value for value in values if first <= value <= last}
        rest = values - inside - {255, background}
        return None if rest else frozenset(value - first for value in inside)

    return read


def _example(said: str, classes: ClassTable) -> str:
    start = 0 if said.startswith("with 0") else 2
    pairs = [f'"{start + k}": "{name}"' for k, name in enumerate(classes.names[:2])]
    more = [] if start == 0 else ['"1": "background"']
    return "{" + ", ".join([*more, *pairs, "..."]) + "}"

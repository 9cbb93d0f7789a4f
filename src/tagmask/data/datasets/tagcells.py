"""The tags of an image in one cell: taken apart by one rule for a whole file, and written to fit it."""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from functools import partial

from tagmask.errors import DataError

__all__ = ["Tags", "join_tags", "split_cells"]

Tags = tuple[str, ...]
_Reading = Callable[[str], Tags]
_MARKS = (";", "|", ",")
_SHOWN = {";": "';'", "|": "'|'", ",": "','", "blank": "a blank", ";|": "';' and '|'"}


def join_tags(names: Sequence[str], known: Collection[str]) -> str:
    """Class names as one cell that `split_cells` takes apart again, if all cells of the file are made so.

    Args:
        names: Classes of one image.
        known: All classes of the file; how names are joined follows from them.
    """
    every = {*known, *names}
    if not any(_special(name) for name in every):
        return " ".join(names)
    if not any(";" in name for name in every):
        # Also behind a single name: a blank or comma in it separates nothing.
        return ";".join(names) + (";" if len(names) == 1 else "")
    return json.dumps(list(names), ensure_ascii=False) if names else ""


def _special(name: str) -> bool:
    return any(letter.isspace() or letter in ";|,[" for letter in name)


def split_cells(cells: Iterable[tuple[int, Tags | str]], known: Iterable[str] = ()) -> list[Tags]:
    """Class names in every cell, without repetition, in the order written.

    One rule serves the whole file: lists as Python or JSON write them; else the mark (``;``, ``|``, ``,`` or
    blanks) under which the parts are known classes; where no classes are known, the first mark there is.

    Args:
        cells: Line number and tags: a list of names (of JSON lines), or one text.
        known: Names of the classes, if they are known.

    Raises:
        DataError: The cells can be read in two ways.
    """
    rows = [(line, tags) for line, tags in cells]
    texts = [(line, tags.strip()) for line, tags in rows if isinstance(tags, str) and tags.strip()]
    reading = _reading(texts, frozenset(map(_plain, known)))
    return [_unique(reading(tags.strip()) if isinstance(tags, str) else tags) for _, tags in rows]


def _plain(name: str) -> str:
    """A name whatever its blanks and Unicode form."""
    return unicodedata.normalize("NFC", " ".join(name.split()))


def _unique(names: Iterable[str]) -> Tags:
    return tuple(dict.fromkeys(name.strip() for name in names if name.strip()))


def _reading(texts: Sequence[tuple[int, str]], known: frozenset[str]) -> _Reading:
    if not known:
        _refuse_flags(texts)
    if texts and all(_as_list(text) is not None for _, text in texts):
        return lambda text: _as_list(text) or ()
    lists = [(line, text) for line, text in texts if _as_list(text)]
    if lists and not known:
        other = next(line for line, text in texts if _as_list(text) is None)
        raise DataError(
            f"line {lists[0][0]} holds a list ({lists[0][1][:40]}) and line {other} none; write all tags of "
            "the file in one way"
        )
    readings: dict[str, _Reading] = {
        mark: partial(_at, mark) for mark in _MARKS if any(mark in text for _, text in texts)
    }
    if all(";" in text for _, text in texts) and texts:
        readings = {";": readings[";"]}  # it stands even behind single names, so it is meant
    elif not known:
        _refuse_both(texts, readings)
        return next(iter(readings.values()), str.split)  # type: ignore[return-value]
    if {";", "|"} <= readings.keys():
        readings[";|"] = partial(_at, ";|")
    readings["blank"] = partial(_by_blanks, texts, known)
    return _best(texts, readings, known)


def _best(texts: Sequence[tuple[int, str]], readings: dict[str, _Reading], known: frozenset[str]) -> _Reading:
    """The reading that gives the fewest unknown names; of equal ones the first."""
    unknown = {}
    for mark, reading in readings.items():
        with suppress(DataError):  # two ways in itself: taken only if nothing else is there
            names = [name for _, text in texts for name in _unique(reading(text))]
            unknown[mark] = sum(_plain(name) not in known for name in names)
    if not known or not unknown:
        return next(iter(readings.values()))
    fits = [mark for mark, count in unknown.items() if count == 0]
    for other in fits[1:]:
        for line, text in texts:
            one, two = (_unique(readings[mark](text)) for mark in (fits[0], other))
            if set(one) != set(two):
                raise DataError(
                    f"line {line}: '{text}' can be read as {_said(one)} (separated by {_SHOWN[fits[0]]}) "
                    f"or as {_said(two)} (by {_SHOWN[other]}); put ';' behind every tag of the file"
                )
    return readings[min(unknown, key=lambda mark: unknown[mark])]


def _refuse_both(texts: Sequence[tuple[int, str]], readings: dict[str, _Reading]) -> None:
    if {";", "|"} <= readings.keys():
        first, second = (next(line for line, text in texts if mark in text) for mark in ";|")
        raise DataError(
            f"line {first} holds ';' and line {second} '|': either may separate tags or belong to a name; "
            "use one of them in the whole file, or name the classes in classes.txt"
        )


def _refuse_flags(texts: Sequence[tuple[int, str]]) -> None:
    """Refuse rows of as many 0 and 1 as there are classes.

    Raises:
        DataError: They are such.
    """
    rows = [[part for part in re.split(r"[\s;|,\[\]]+", text) if part] for _, text in texts]
    if not all({*row} <= {"0", "1"} for row in rows) or len({len(row) for row in rows}) != 1:
        return
    again = next((k for k, row in enumerate(rows) if len({*row}) < len(row)), None)
    if again is not None:
        line, text = texts[again]
        raise DataError(
            f"line {line}: '{text[:40]}' seems to say for each class whether it is there; write the names of "
            "the classes that are, for example 'cat dog'"
        )


def _said(names: Tags) -> str:
    return " + ".join(f"'{name}'" for name in names)


def _at(marks: str, text: str) -> Tags:
    return tuple(re.split(f"[{marks}]", text))


def _as_list(text: str) -> Tags | None:
    """Names in a list as Python or JSON write it."""
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return None
    return tuple(found) if isinstance(found, list) and all(isinstance(x, str) for x in found) else None


def _by_blanks(texts: Sequence[tuple[int, str]], known: frozenset[str], text: str) -> Tags:
    """Known names one after the other, which may hold blanks themselves; words where that gives no sense.

    Raises:
        DataError: There are two ways.
    """
    words = text.split()
    if not any(" " in name for name in known):
        return tuple(words)
    longest = max(len(name.split()) for name in known)
    # ways[k]: at most two ways to read the first k words.
    ways: list[list[Tags]] = [[()], *([] for _ in words)]
    for end in range(1, len(words) + 1):
        for start in range(max(0, end - longest), end):
            name = " ".join(words[start:end])
            if _plain(name) in known:
                ways[end] = (ways[end] + [(*way, name) for way in ways[start]])[:2]
    if len(ways[-1]) > 1 and set(ways[-1][0]) != set(ways[-1][1]):
        line = next((number for number, other in texts if other == text), 0)
        raise DataError(
            f"line {line}: '{text}' can be read as {_said(ways[-1][0])} or as {_said(ways[-1][1])}; put ';' "
            "behind every tag of the file"
        )
    return ways[-1][0] if ways[-1] else tuple(words)

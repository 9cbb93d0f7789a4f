"""Patterns for files, as a shell has them, that links cannot lead astray."""

from __future__ import annotations

import fnmatch
import glob
from collections.abc import Sequence
from pathlib import Path, PurePath

from tagmask.data.readers.archive import FolderTree
from tagmask.data.readers.regular import Inside, irregular

__all__ = ["fixed_part", "is_pattern", "matches"]

_WILD = "*?["


def is_pattern(given: str) -> bool:
    """Whether an input is a pattern for several files."""
    return any(mark in given for mark in _WILD)


def fixed_part(pattern: PurePath) -> str:
    """Folder that all matches of a pattern are below."""
    wild = next(i for i, part in enumerate(pattern.parts) if is_pattern(part))
    return str(type(pattern)(*pattern.parts[:wild])) if wild else "."


def matches(pattern: str, root: Path, skip: Sequence[Path] = ()) -> tuple[list[str], list[tuple[str, str]]]:
    """Files that a pattern names, as paths below its fixed part, and (path, reason) of what is not read."""
    if "**" in pattern:
        # Through links that lead in circles, the module glob would go for ever.
        tree = FolderTree(root, skip)
        parts = Path(pattern).relative_to(root).parts
        return [n for n in tree.names if _fits(n, parts)], [r for r in tree.refused if _fits(r[0], parts)]
    found: list[str] = []
    refused: list[tuple[str, str]] = []
    inside = Inside([root])
    left_out = {folder.resolve() for folder in skip}
    for path in sorted(map(Path, glob.glob(pattern))):
        name = path.relative_to(root).as_posix()
        if path.is_dir() or not left_out.isdisjoint(path.resolve().parents):
            continue
        reason = inside.reason(path) or irregular(path)
        if reason is None:
            found.append(name)
        else:
            refused.append((name, reason))
    return found, refused


def _fits(name: str, pattern: Sequence[str]) -> bool:
    """Whether a path fits a pattern, ``**`` standing for any number of folders."""
    reached = _with_none({0}, pattern)
    for part in name.split("/"):
        there = {i for i in reached if i < len(pattern)}
        after = {i + 1 for i in there if pattern[i] != "**" and fnmatch.fnmatchcase(part, pattern[i])}
        reached = _with_none(after | {i for i in there if pattern[i] == "**"}, pattern)
    return len(pattern) in reached


def _with_none(places: set[int], pattern: Sequence[str]) -> set[int]:
    """The places, and those after each ``**``, which may stand for nothing."""
    result = set(places)
    for place in range(len(pattern)):
        if place in result and pattern[place] == "**":
            result.add(place + 1)
    return result

"""A data set of one text file: ``tagged.txt`` with a line ``picture.png: cat sofa`` per image beside it."""

from __future__ import annotations

from pathlib import Path

from tagmask.data.base import Item, Problem, Scan, Source
from tagmask.data.classes import ClassTable
from tagmask.data.readers.masks import mask_values

_LIST = "tagged.txt"


def matches(root: Path) -> bool:
    """Whether a folder looks like this kind; lets `--kind auto` find it."""
    return (root / _LIST).is_file()


def scan(source: Source) -> Scan:
    """Everything there is, and everything wrong with it; nothing is decoded."""
    rows = [line.partition(":") for line in (source.root / _LIST).read_text(encoding="utf-8").splitlines()]
    names = tuple(sorted({tag for _, _, tags in rows for tag in tags.split()}))
    items, problems = [], []
    for file, _, tags in rows:
        image = source.root / file.strip()
        if not image.is_file():
            problems.append(Problem("missing image", file, f"{_LIST} names it, but there is no {image}"))
            continue
        mask = source.root / "masks" / f"{image.stem}.png"
        classes = tuple(sorted(names.index(tag) for tag in set(tags.split())))
        items.append(Item(image.stem, image, classes, mask if mask.is_file() else None))
    table = ClassTable(names)
    about = {"kind": "lines", "root": str(source.root)}
    values = mask_values(source.mask_values, table)
    return Scan(table, tuple(items), source.split or "all", tuple(problems), values.read, about)

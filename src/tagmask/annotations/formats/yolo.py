"""YOLO's segmentation labels: one text file per image, one outline per line, shares of width and height."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from tagmask.annotations.formats.base import (
    BOXES,
    UNTOUCHED,
    Found,
    Images,
    Labelled,
    Put,
    Tree,
    blank,
    label_of,
    read_json,
)
from tagmask.annotations.formats.regions import components, outlines, polygon_mask
from tagmask.data.classes import ClassTable
from tagmask.errors import DataError

__all__ = ["read", "write"]

_NAMED = ("classes.txt", "obj.names")
_LISTS = (*_NAMED, "train.txt", "val.txt", "test.txt")
_PARTS = ("train", "val", "valid", "test")
_BOX = 5


def write(items: Iterable[Labelled], classes: ClassTable, put: Put, shapes: str = "polygons") -> None:
    """Write ``labels/<name>.txt`` and ``data.yaml``.

    Args:
        items: Images with labels.
        classes: Number k is class k.
        put: Takes the files.
        shapes: "polygons"; this format has nothing else.
    """
    for item in items:
        height, width = item.mask.shape
        rows = []
        for region in components(item.mask):
            for polygon in outlines(region):
                shares = np.clip(polygon / (width, height), 0, 1).reshape(-1)
                rows.append(" ".join([str(region.label - 1), *(f"{share:.6f}" for share in shares)]))
        put(f"labels/{item.name}.txt", "".join(f"{row}\n" for row in rows).encode())
    names = "".join(f"  {k}: {_quoted(name)}\n" for k, name in enumerate(classes.names))
    put("data.yaml", f"path: .\ntrain: images\nval: images\nnames:\n{names}".encode())


def _quoted(name: str) -> str:
    """A name as a YAML text, whatever it holds."""
    text = yaml.safe_dump(name, default_style='"', allow_unicode=True, width=10**9)
    return text.strip()


def read(tree: Tree, images: Images) -> Iterator[Found]:
    """Labels of every text file with outlines; empty ones, and those with boxes only, are left out.

    The numbers are named by ``data.yaml``, ``notes.json``, ``classes.txt`` or ``obj.names``; without any they
    follow the classes.

    Raises:
        DataError: A line cannot be read, or names an unknown number or image.
    """
    names = _names(tree, images)
    files = [name for name in tree.names if name.lower().endswith(".txt")]
    proper = [name for name in files if "labels" in PurePosixPath(name).parts[:-1]]
    if not files:
        raise DataError("there is no .txt with outlines in it")
    for file in proper or [name for name in files if PurePosixPath(name).name not in _LISTS]:
        lines = tree.read(file).decode("utf-8", "replace").split("\n")
        rows = [(number, line.split()) for number, line in enumerate(lines, start=1) if line.strip()]
        drawn = [(number, cells) for number, cells in rows if len(cells) != _BOX]
        name, written = _image(file, bool(proper), bool(drawn), images)
        if not drawn or name is None:
            yield from images.untouched(name, written, BOXES if rows else UNTOUCHED)
            continue
        if len(drawn) < len(rows):
            number = next(number for number, cells in rows if len(cells) == _BOX)
            raise DataError(
                f"{file}, line {number}: a box without pixels, beside outlines; draw or remove it"
            )
        yield name, _drawn(drawn, names, images, name, file)


def _image(file: str, proper: bool, touched: bool, images: Images) -> tuple[str | None, str]:
    """The image of a text file, and what the file calls it."""
    parts = PurePosixPath(file).parts
    inner = parts[parts.index("labels") + 1 :] if proper else parts
    candidates = ["/".join(inner)]
    if len(inner) > 1 and inner[0] in _PARTS:
        candidates.append("/".join(inner[1:]))
    errors = []
    for written in (text[: -len(".txt")] for text in candidates):
        try:
            return images.names.upload(written, file, bare=True), written
        except DataError as error:
            errors.append(error)
    if touched:
        raise errors[0]
    return None, candidates[0]


def _drawn(
    rows: Iterable[tuple[int, list[str]]], names: Mapping[int, str], images: Images, name: str, file: str
) -> NDArray[np.uint8]:
    mask = blank(images, name)
    height, width = mask.shape
    for number, (key, *shares) in rows:
        where = f"{file}, line {number}"
        try:
            points = np.asarray(shares, np.float64).reshape(-1, 2) * (width, height)
            pixels = polygon_mask([points], (height, width))
            if int(key) not in names:
                known = ", ".join(f"{k} {one}" for k, one in list(names.items())[:5])
                raise ValueError(f"there is no class {key}; the numbers are {known}, ...")
        except ValueError as error:
            raise DataError(f"{where}: {error or 'cannot be read'}") from None
        mask[pixels] = label_of(images.classes, names[int(key)], where)
    return mask


def _names(tree: Tree, images: Images) -> dict[int, str]:
    """Class number of a line to its name: what the files say, which must not contradict each other.

    Raises:
        DataError: A list cannot be read, or two of them differ.
    """
    found: dict[str, dict[int, str]] = {}
    for name in sorted(tree.names, key=lambda one: len(PurePosixPath(one).parts)):
        last = PurePosixPath(name).name
        if last in ("data.yaml", "data.yml"):
            found[name] = _from_yaml(tree.read(name), name)
        elif last == "notes.json":
            found[name] = _from_notes(read_json(tree, name), name)
        elif last in _NAMED and "labels" not in PurePosixPath(name).parts[:-1]:
            lines = (
                tree.read(name).decode("utf-8-sig", "replace").replace("\r\n", "\n").rstrip("\n").split("\n")
            )
            found[name] = {k: line.strip() for k, line in enumerate(lines)}
    if not found:
        images.tally.said.append(
            "no data.yaml, notes.json or classes.txt names the numbers; they were taken in the order of the "
            f"classes (0 is '{images.classes.names[0]}')"
        )
        return dict(enumerate(images.classes.names))
    first, *others = found
    for other in others:
        wrong = [k for k in found[first].keys() & found[other].keys() if found[first][k] != found[other][k]]
        if wrong:
            k = min(wrong)
            raise DataError(
                f"{first} calls number {k} '{found[first][k]}', {other} '{found[other][k]}'; remove one"
            )
    return {k: name for names in found.values() for k, name in names.items()}


def _from_yaml(content: bytes, file: str) -> dict[int, str]:
    try:
        text = content.decode("utf-8-sig")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise DataError(f"{file} repeats parts by reference; write its names out")
        # The base loader leaves "yes", "010" and "null" as they are written: names are texts.
        names = yaml.BaseLoader(text).get_single_data()["names"]
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        return {int(k): str(name) for k, name in pairs}
    except (yaml.YAMLError, RecursionError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{file} has no readable list of names: {type(error).__name__}") from None


def _from_notes(content: Any, file: str) -> dict[int, str]:
    try:
        return {int(entry["id"]): str(entry["name"]) for entry in content["categories"]}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file} has no readable list of categories: {type(error).__name__}") from None

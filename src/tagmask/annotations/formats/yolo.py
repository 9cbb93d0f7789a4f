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
    EMPTY,
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
from tagmask.config import parse_texts
from tagmask.data.classes import ClassTable
from tagmask.errors import DataError, one_line

__all__ = ["read", "write"]

_NAMED = ("classes.txt", "predefined_classes.txt")
_LISTS = (*_NAMED, "train.txt", "val.txt", "test.txt")
_YAML = (".yaml", ".yml")
_PARTS = ("train", "val", "valid", "test")
_BOX = 5
_OVER = 0.02


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
        if _is_list(file, images):
            continue
        lines = tree.read(file).decode("utf-8-sig", "replace").split("\n")
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
        mask, painted = _drawn(drawn, names, images, name, file)
        yield from [(name, mask)] if painted else images.untouched(name, written, EMPTY)


def _is_list(file: str, images: Images) -> bool:
    """Whether a text file is a list of names; labelling programs put it among the labels."""
    path = PurePosixPath(file)
    return path.suffix == ".names" or (path.name in _NAMED and path.stem not in images.sizes)


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
) -> tuple[NDArray[np.uint8], bool]:
    """Labels, and whether any pixel was drawn."""
    mask, painted = blank(images, name), False
    height, width = mask.shape
    for number, (key, *shares) in rows:
        where = f"{file}, line {number}"
        try:
            if len(shares) % 2:
                raise ValueError(
                    f"a number of a class and {len(shares)} numbers; an outline is x and y of every corner"
                )
            parts = np.asarray(shares, np.float64).reshape(-1, 2)
            points = parts * (width, height)
            pixels = polygon_mask([points], (height, width))
            if pixels.any() and (np.abs(parts - 0.5) > 0.5 + _OVER).any():
                raise ValueError(
                    "corners are outside the image: they are shares of its width and height, from 0 to 1"
                )
            if not float(key).is_integer() or int(float(key)) not in names:
                known = ", ".join(f"{k} {one}" for k, one in list(names.items())[:5])
                raise ValueError(f"there is no class {key}; the numbers are {known}, ...")
        except ValueError as error:
            raise DataError(f"{where}: {error or 'cannot be read'}") from None
        images.tally.outline(points)
        mask[pixels] = label_of(images.classes, names[int(float(key))], where)
        painted = painted or bool(pixels.any())
    return mask, painted


def _names(tree: Tree, images: Images) -> dict[int, str]:
    """Class number of a line to its name: what the files say, which must not contradict each other.

    Raises:
        DataError: A list cannot be read, or two of them differ.
    """
    found: dict[str, dict[int, str]] = {}
    for name in sorted(tree.names, key=lambda one: len(PurePosixPath(one).parts)):
        path = PurePosixPath(name)
        last = path.name
        if path.suffix.lower() in _YAML:
            found |= _from_yaml(tree.read(name), name, wanted=path.stem == "data")
        elif last == "notes.json":
            found[name] = _from_notes(read_json(tree, name), name)
        elif _is_list(name, images):
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


def _from_yaml(content: bytes, file: str, wanted: bool) -> dict[str, dict[int, str]]:
    """The file and its names by number; nothing if it has no list of names and need not have one."""
    try:
        # Names are texts: "yes", "010" and "null" as they are written.
        values = parse_texts(content.decode("utf-8-sig"))
    except (yaml.YAMLError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {one_line(error)}") from None
    names = values.get("names") if isinstance(values, dict) else None
    if names is None and not wanted:
        return {}
    try:
        if isinstance(names, str):
            raise TypeError
        pairs = list(names.items() if isinstance(names, dict) else enumerate(names or ()))
        found = {int(k): str(name) for k, name in pairs}
        count = int(values.get("nc", len(pairs)))
    except (TypeError, ValueError, AttributeError):
        raise DataError(f"{file} has no readable list of names") from None
    if not len(found) == len(pairs) == count or not found:
        raise DataError(f"{file} declares {count} classes and names {len(found)} numbers")
    if "kpt_shape" in values:
        raise DataError(f"{file} is about key points (kpt_shape), which outline no pixels")
    return {file: found}


def _from_notes(content: Any, file: str) -> dict[int, str]:
    try:
        return {int(entry["id"]): str(entry["name"]) for entry in content["categories"]}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file} has no readable list of categories: {type(error).__name__}") from None

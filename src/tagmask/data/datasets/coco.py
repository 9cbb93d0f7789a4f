"""MS COCO 2014, or anything with an instances file like it: read from the json, no other toolkit needed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmask.data.base import Item, Problem, Scan, Source
from tagmask.data.classes import ClassTable, class_table, read_class_file
from tagmask.data.datasets.coco_places import image_folder, instances_file, listing, roboflow_files
from tagmask.data.datasets.writing import cache_folder, png_bytes, write_whole
from tagmask.data.readers.images import IMAGE_SUFFIXES
from tagmask.data.readers.masks import MaskValues
from tagmask.data.readers.plain import parse_json
from tagmask.data.readers.regular import read_bytes, read_text
from tagmask.data.readers.rle import annotated, has_region
from tagmask.errors import DataError, nearest

__all__ = ["matches", "scan", "semantic_mask"]

_FORMAT = 2
_NO_CLASS = -1
_BACKGROUND = ("background", "_background_")
_PART = 5000  # images of "val_part", on which MoRe and AFA look during training


def matches(root: Path) -> bool:
    """Whether a folder holds ``annotations/instances_*.json`` or ``train/_annotations.coco.json``."""
    return any((root / "annotations").glob("instances_*.json")) or bool(roboflow_files(root))


def scan(source: Source) -> Scan:
    """Read an instances file: ``annotations/instances_<split>2014.json``, or ``source.tags`` if it is a json.

    Or ``train/_annotations.coco.json``, ``valid/...`` and ``test/...`` beside the images, as Roboflow has it.

    Classes are its categories in id order. An image has the tag of every object on it, crowds included.
    Splits "train" and "val" are the annotated images in the order of their names, as the papers use them;
    "train_all" and "val_all" keep those without any object as negatives; "val_part" is the first 5,000 of
    val. ``source.classes`` picks some classes; the others become background.

    Masks: crowds are painted first, then objects from large to small, so small ones are on top. Each is
    written once to the user's cache folder, never into the data set, and read from there afterwards.

    Raises:
        DataError: The file is missing or no instances file, or a class is unknown.
    """
    path, base = instances_file(source)
    index = _index(path)
    every = class_table(index["classes"], path)
    classes = _chosen(source, every)
    column = {every.names.index(name): k for k, name in enumerate(classes.names)}
    masks = _Masks(path, every, classes)
    split = source.split or base
    rows = sorted(index["images"])
    if not split.endswith("_all"):
        rows = [row for row in rows if row[1]]
    if split.endswith("_part"):
        rows = rows[:_PART]
    folder = image_folder(source.root, base, rows, path)
    present = listing(folder, rows)
    items, problems = [], [Problem(*entry) for entry in index["problems"]]
    problems += _unlooked(index["images"], present, split)
    for file_name, indices, boxes in rows:
        name = PurePosixPath(file_name).with_suffix("").as_posix()
        if file_name not in present:
            problems.append(Problem("missing image", name, f"no file {folder / file_name}"))
            continue
        tags = tuple(sorted(column[i] for i in indices if i in column))
        mask = masks.path(name) if source.masks and not boxes else None
        if source.masks and boxes:
            detail = f"{boxes} of its annotations are boxes without pixels"
            problems.append(Problem("missing mask", name, detail))
        items.append(Item(name, folder / file_name, tags, mask))
    seen = str(masks.folder) if source.masks else "not opened"
    about = {"kind": "coco", "tags": str(path), "images": str(folder), "masks": seen}
    about |= {"mask values": MaskValues.by_name(classes.names, classes).text()} if source.masks else {}
    return Scan(classes, tuple(items), split, tuple(problems), masks.read, about)


def _unlooked(images: Sequence[Any], present: Collection[str], split: str) -> Iterator[Problem]:
    """Notes on pictures that nobody annotated: those of the file, and those beside the others."""
    bare = 0 if split.endswith("_all") else sum(not row[1] for row in images)
    if bare:
        detail = (
            "the file lists them, and nothing on them: left out (the split NAME_all takes them as negatives)"
        )
        yield Problem("image without annotation", f"{bare} images", detail, fatal=False)
    listed = {row[0] for row in images}
    more = [n for n in present if n not in listed and PurePosixPath(n).suffix.lower() in IMAGE_SUFFIXES]
    if more:
        yield Problem(
            "image that is not listed", f"{len(more)} images", f"{min(more)}, ...: left out", fatal=False
        )


def _index(path: Path) -> dict[str, Any]:
    """Classes, tags and problems of an instances file, from the cache if it was read before."""
    if not path.is_file():
        raise DataError(f"there is no instances file {path}")
    cached = cache_folder(path) / "index.json"
    try:
        index: dict[str, Any] = json.loads(read_text(cached))
        if index.get("format") == _FORMAT:
            return index
    except (OSError, ValueError, AttributeError):
        pass  # nothing there yet, or not ours: it is made again below
    index = _make_index(_load(path), path)
    with suppress(DataError):  # a cache that cannot be written costs time, nothing else
        write_whole(cached, json.dumps(index).encode())
    return index


def _load(path: Path) -> dict[str, Any]:
    try:
        loaded = parse_json(read_bytes(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    parts = ("images", "annotations", "categories")
    if not isinstance(loaded, dict) or not all(isinstance(loaded.get(part), list) for part in parts):
        raise DataError(f"{path} is no instances file: it needs the lists {', '.join(parts)}")
    return loaded


def _make_index(loaded: Mapping[str, Any], path: Path) -> dict[str, Any]:
    problems: list[tuple[str, str, str]] = []
    try:
        position, classes = _categories(loaded)
        names = {int(image["id"]): str(image["file_name"]) for image in loaded["images"]}
        tags: dict[int, set[int]] = {number: set() for number in names}
        boxes: Counter[int] = Counter()
        for entry in loaded["annotations"]:
            image, category = int(entry["image_id"]), int(entry["category_id"])
            if image not in tags:
                problems.append(
                    ("unknown image", str(image), f"annotation {entry.get('id')} is about no listed image")
                )
            elif category not in position:
                detail = f"annotation {entry.get('id')} has category {category}, which is not listed"
                problems.append(("unknown tag", names[image], detail))
            else:
                tags[image].update({position[category]} - {_NO_CLASS})
                boxes[image] += not has_region(entry)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is no instances file: {type(error).__name__} {error} in an entry") from None
    for name in names.values():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise DataError(f"{path}: image '{name}' is outside the image folder")
    if len(set(names.values())) != len(names):
        raise DataError(f"{path} lists an image file twice")
    images = [[names[number], sorted(found), boxes[number]] for number, found in tags.items()]
    return {"format": _FORMAT, "classes": classes, "images": images, "problems": problems}


def _categories(loaded: Mapping[str, Any]) -> tuple[dict[int, int], list[str]]:
    """Category number to 0-based class or `_NO_CLASS`, and the names of the classes in the order of numbers.

    Categories that no annotation has are classes too, since other parts of the data set may show them; but
    not those that only name the project (Roboflow's number 0), the background, or another one once more.
    """
    categories = sorted((int(c["id"]), str(c["name"]).strip()) for c in loaded["categories"])
    above = {str(c.get("supercategory", "")).strip() for c in loaded["categories"]}
    used = {int(entry["category_id"]) for entry in loaded["annotations"]}
    position: dict[int, int] = {}
    classes: list[str] = []
    for (number, first), (other, second) in pairwise(categories):
        if number == other and first != second:
            raise ValueError(f"number {number} is '{first}' and '{second}'")
    for number, name in categories:
        others = [other for k, other in categories if k != number]
        project = number == 0 and number not in used and (name in above or name in others)
        if project or name.lower() in _BACKGROUND:
            position[number] = _NO_CLASS
        elif name in classes:
            position[number] = classes.index(name)
        else:
            position[number] = len(classes)
            classes.append(name)
    return position, classes


def _chosen(source: Source, every: ClassTable) -> ClassTable:
    if source.classes is None:
        return every
    if isinstance(source.classes, (str, Path)):
        table = read_class_file(source.classes)
    else:
        table = class_table(source.classes, "classes")
    for name in table.names:
        if name not in every.names:
            raise DataError(f"'{name}' is not a category of this data set. {nearest(name, every.names)}")
    return table


class _Masks:
    """Semantic masks of an instances file: painted on first use, then read from the cache."""

    def __init__(self, path: Path, every: ClassTable, classes: ClassTable) -> None:
        self._path, self._every = path, every
        self.folder = cache_folder(path) / "masks"
        self._values = MaskValues.by_name(every.names, classes)

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.png"

    def read(self, path: Path) -> NDArray[np.uint8]:
        if path.is_file():
            return self._values.read(path)
        name = path.relative_to(self.folder).with_suffix("").as_posix()
        size, entries = self._entries[name]
        mask = semantic_mask(entries, size, self._position, f"{self._path}, image '{name}'")
        with suppress(DataError):  # then it is painted again next time
            write_whole(path, png_bytes(mask))
        return self._values.labels(mask, path)

    @cached_property
    def _loaded(self) -> dict[str, Any]:
        return _load(self._path)

    @cached_property
    def _position(self) -> dict[int, int]:
        return _categories(self._loaded)[0]

    @cached_property
    def _entries(self) -> dict[str, tuple[tuple[int, int], list[Any]]]:
        images: dict[int, tuple[str, tuple[int, int], list[Any]]] = {}
        for image in self._loaded["images"]:
            try:
                size = int(image["height"]), int(image["width"])
            except (KeyError, TypeError, ValueError):
                raise DataError(f"{self._path}: image {image['id']} has no height and width") from None
            name = PurePosixPath(image["file_name"]).with_suffix("").as_posix()
            images[int(image["id"])] = (name, size, [])
        for entry in self._loaded["annotations"]:
            if int(entry["image_id"]) in images:
                images[int(entry["image_id"])][2].append(entry)
        return {name: (size, entries) for name, size, entries in images.values()}


def semantic_mask(
    entries: list[Any], size: tuple[int, int], position: Mapping[int, int], where: str
) -> NDArray[np.uint8]:
    """Paint the objects of one image: crowds first, then from large to small.

    Args:
        entries: Annotations with "segmentation", "category_id" and perhaps "iscrowd".
        size: (H, W) of the image.
        position: Category id to 0-based class.
        where: What the entries belong to, for the message.

    Returns:
        (H, W) uint8, class + 1, 0 where there is no object.

    Raises:
        DataError: A region cannot be drawn.
    """
    mask = np.zeros(size, np.uint8)
    regions = []
    for number, entry in enumerate(entries):
        try:
            if not has_region(entry):
                raise ValueError("it is a box without pixels")
            region = annotated(entry, size)
            label = position[int(entry["category_id"])] + 1
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where}: annotation {entry.get('id', number)}: {error}") from None
        regions.append((not entry.get("iscrowd"), -int(region.sum()), number, label, region))
    for *_, label, region in sorted(regions, key=lambda r: r[:3]):
        mask[region] = label
    return mask

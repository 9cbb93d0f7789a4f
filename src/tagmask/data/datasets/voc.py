"""PASCAL VOC 2012, with or without the SBD masks."""

from __future__ import annotations

import gzip
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tagmask.data.base import Item, Problem, Scan, Source
from tagmask.data.classes import VOC_CLASSES, ClassTable, class_table, read_class_file
from tagmask.data.readers.masks import MaskValues, mask_values
from tagmask.data.readers.onehot import read_onehot
from tagmask.data.readers.regular import read_bytes, read_text
from tagmask.errors import DataError, nearest

__all__ = ["matches", "scan", "split_names"]

_SPLITS = ("train", "train_aug", "val", "trainval", "test")
_MASK_FOLDERS = ("SegmentationClassAug", "SegmentationClass")
_TAG_WORDS = ("xml", "masks", "none")


def matches(root: Path) -> bool:
    """Whether a folder looks like VOC2012 (or holds it)."""
    home = _home(root)
    parts = ("Annotations", "ImageSets", *_MASK_FOLDERS)
    return (home / "JPEGImages").is_dir() and any((home / part).is_dir() for part in parts)


def _home(root: Path) -> Path:
    inner = (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012")
    return next((folder for folder in inner if (folder / "JPEGImages").is_dir()), root)


def split_names(split: str, home: Path | None = None) -> tuple[str, ...]:
    """Image names of a split: from ``ImageSets/Segmentation`` if it is there, else the official list.

    Args:
        split: train (1,464), train_aug (10,582), val (1,449), trainval (2,913) or test (1,456).
        home: The VOC2012 folder; None for the official list.

    Raises:
        DataError: There is no such list.
    """
    own = home / "ImageSets" / "Segmentation" / f"{split}.txt" if home else None
    if own is not None and own.is_file():
        lines = read_text(own).split("\n")
        return tuple(line.split()[0] for line in lines if line.strip())
    if split == "trainval":
        return tuple(sorted((*split_names("train", home), *split_names("val", home))))
    if split not in _SPLITS:
        raise DataError(f"VOC has no split '{split}'. {nearest(split, _SPLITS)}")
    packed = files("tagmask.data").joinpath("lists", "voc", f"{split}.txt.gz").read_bytes()
    return tuple(gzip.decompress(packed).decode("ascii").split())


def scan(source: Source) -> Scan:
    """Read VOC2012: ``JPEGImages``, and ``SegmentationClassAug`` (or ``SegmentationClass``) for masks.

    ``source.tags`` is "xml" (the objects in ``Annotations``, the difficult ones too), "masks", "none", a
    published ``cls_labels_onehot.npy``, or None: "xml" if the folder exists, else "masks". The default
    split is train_aug. ``source.classes`` picks some of the 20 classes; the others become background.

    Raises:
        DataError: The split, the tag source or a class is unknown, or no image folder exists.
    """
    home = _home(source.root)
    if not (home / "JPEGImages").is_dir():
        raise DataError(f"{source.root} has no folder JPEGImages; give the folder VOC2012 as root")
    split = source.split or "train_aug"
    classes = _classes(source)
    folder = source.mask_folder or next((home / f for f in _MASK_FOLDERS if (home / f).is_dir()), None)
    values = mask_values(source.mask_values or "voc", classes)
    tagger, origin = _tagger(source, home, folder, values, classes)
    problems: list[Problem] = []
    items = []
    present = {path.name for path in (home / "JPEGImages").iterdir()}
    masks = {path.name for path in folder.iterdir()} if folder is not None and folder.is_dir() else set()
    for name in split_names(split, home):
        image = home / "JPEGImages" / f"{name}.jpg"
        if image.name not in present:
            problems.append(Problem("missing image", name, f"no file {image}"))
            continue
        mask = None
        if source.masks:
            if folder is not None and f"{name}.png" in masks:
                mask = folder / f"{name}.png"
            else:
                problems.append(
                    Problem("missing mask", name, f"no {name}.png in {folder or home / _MASK_FOLDERS[0]}")
                )
        try:
            items.append(Item(name, image, tagger(name), mask))
        except DataError as error:
            problems.append(Problem("missing tags", name, str(error)))
    seen = str(folder) if source.masks else "not opened"
    about = {"kind": "voc", "tags": origin, "images": str(home), "masks": seen}
    about |= {"mask values": values.text()} if source.masks else {}
    return Scan(classes, tuple(items), split, tuple(problems), values.read, about, home)


def _classes(source: Source) -> ClassTable:
    if source.classes is None:
        return ClassTable(VOC_CLASSES)
    if isinstance(source.classes, (str, Path)):
        table = read_class_file(source.classes)
    else:
        table = class_table(source.classes, "classes")
    for name in table.names:
        if name not in VOC_CLASSES:
            raise DataError(f"'{name}' is not a class of VOC. {nearest(name, VOC_CLASSES)}")
    return table


def _tagger(
    source: Source, home: Path, masks: Path | None, values: MaskValues, classes: ClassTable
) -> tuple[Callable[[str], tuple[int, ...] | None], str]:
    """How to get the tags of a named image, and what that is called in result files."""
    given = source.tags or ("xml" if (home / "Annotations").is_dir() else "masks")
    if str(given) == "none":
        return lambda name: None, "none"
    if str(given) == "xml":
        return lambda name: _from_xml(home / "Annotations" / f"{name}.xml", classes), "Annotations"
    if str(given) == "masks":
        if masks is None:
            raise DataError(
                f"{home} has neither Annotations nor a mask folder to take tags from; use --tags FILE"
            )
        return lambda name: _from_mask(masks / f"{name}.png", values), f"presence in {masks.name}"
    path = Path(given)
    if path.suffix == ".npy":
        table = read_onehot(path, len(VOC_CLASSES))
        order = [VOC_CLASSES.index(name) for name in classes.names]
        return lambda name: _from_table(name, table, order, path), str(path)
    hint = nearest(str(given), _TAG_WORDS)
    raise DataError(
        f"VOC tags come from a .npy file, or open a tag file with kind folder; got '{given}'. {hint}"
    )


def _from_xml(path: Path, classes: ClassTable) -> tuple[int, ...]:
    try:
        root = ElementTree.fromstring(read_bytes(path))
    except (OSError, ElementTree.ParseError) as error:
        raise DataError(f"cannot read the objects in {path}: {error}") from None
    found = {(node.text or "").strip() for node in root.iterfind("object/name")}
    unknown = sorted(found - set(VOC_CLASSES))
    if unknown:
        raise DataError(f"{path} names an object '{unknown[0]}'. {nearest(unknown[0], VOC_CLASSES)}")
    return tuple(k for k, name in enumerate(classes.names) if name in found)


def _from_mask(path: Path, values: MaskValues) -> tuple[int, ...]:
    present = np.flatnonzero(np.bincount(values.read(path).reshape(-1), minlength=256))
    return tuple(int(label) - 1 for label in present if 0 < label < 255)


def _from_table(
    name: str, table: dict[str, NDArray[np.float32]], order: list[int], path: Path
) -> tuple[int, ...]:
    if name not in table:
        raise DataError(f"{path} has no entry for '{name}'")
    return tuple(k for k, column in enumerate(order) if table[name][column] > 0)

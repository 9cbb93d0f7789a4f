"""Annotation tools' files, in and out: pure conversions between label images and what a tool reads.

A format is a file of this folder with `write` and `read`; neither touches a disk. `write` hands every file to
a function, so a folder and a zip archive are the same to it; `read` asks a `Tree` for files by name.
"""

from __future__ import annotations

import importlib
import json
from pathlib import PurePosixPath
from types import ModuleType
from typing import TYPE_CHECKING

from tagmask.errors import ConfigError, DataError, nearest

if TYPE_CHECKING:
    from tagmask.annotations.formats.base import Tree

__all__ = ["detect", "get", "names"]

_FORMATS = {
    "coco": "coco",
    "cvat": "cvat",
    "cvat-coco": "cvat_coco",
    "label-studio": "label_studio",
    "labelme": "labelme",
    "voc": "voc",
    "yolo": "yolo",
}


def names() -> list[str]:
    """Names of the formats."""
    return sorted(_FORMATS)


def get(name: str) -> ModuleType:
    """The module of a format, with its functions `write` and `read`.

    Raises:
        ConfigError: The name is unknown.
    """
    if name not in _FORMATS:
        raise ConfigError(f"unknown format '{name}'. {nearest(name, _FORMATS)}")
    return importlib.import_module(f"{__name__}.{_FORMATS[name]}")


def detect(tree: Tree) -> str:
    """The format some files look like.

    Args:
        tree: The files.

    Raises:
        DataError: They look like none.
    """
    by_ending: dict[str, list[str]] = {}
    for name in tree.names:
        by_ending.setdefault(PurePosixPath(name).suffix.lower(), []).append(name)
    for name in by_ending.get(".json", []):
        try:
            content = json.loads(tree.read(name).decode("utf-8-sig"))
        except (ValueError, RecursionError):
            raise DataError(f"{name} is not JSON") from None
        if isinstance(content, list):
            return "label-studio"
        if isinstance(content, dict) and "annotations" in content:
            return "coco"
        if isinstance(content, dict) and "shapes" in content:
            return "labelme"
    parts = {part for name in tree.names for part in PurePosixPath(name).parts}
    told = {"labels", "data.yaml", "data.yml", "obj.names"} & parts and "SegmentationClass" not in parts
    if told and ".txt" in by_ending:
        return "yolo"  # with the pictures beside them, which may be PNGs
    if ".png" in by_ending:
        return "voc"
    if ".txt" in by_ending:
        return "yolo"
    endings = ", ".join(sorted(filter(None, by_ending))) or "no files"
    if ".xml" in by_ending:
        raise DataError(
            "XML is not read: VOC's holds boxes; export CVAT's as 'Segmentation mask 1.1' or 'COCO 1.0'"
        )
    raise DataError(
        f"this is none of the formats {', '.join(names())} (found {endings}); name it with --format"
    )

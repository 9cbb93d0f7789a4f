"""CVAT's "Segmentation mask 1.1" archive: VOC's folders as RGB pictures with ``labelmap.txt``."""

from __future__ import annotations

from collections.abc import Iterable

from tagmask.annotations.formats.base import Labelled, Put
from tagmask.annotations.formats.voc import read, write_folders
from tagmask.data.classes import ClassTable

__all__ = ["read", "write"]


def write(items: Iterable[Labelled], classes: ClassTable, put: Put, shapes: str = "exact") -> None:
    """Write the archive's files; ignored pixels become background, which is what CVAT knows.

    Args:
        items: Images with labels.
        classes: Named in ``labelmap.txt`` with their colours.
        put: Takes the files.
        shapes: "exact"; this format has nothing else.
    """
    write_folders(items, classes, put, colours=True)

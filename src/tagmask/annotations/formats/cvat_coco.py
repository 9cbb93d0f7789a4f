"""CVAT's "COCO 1.0" archive: ``annotations/instances_default.json``, masks as plain run lengths."""

from __future__ import annotations

from collections.abc import Iterable

from tagmask.annotations.formats.base import Labelled, Put, as_json
from tagmask.annotations.formats.coco import document, read
from tagmask.data.classes import ClassTable

__all__ = ["read", "write"]


def write(items: Iterable[Labelled], classes: ClassTable, put: Put, shapes: str = "exact") -> None:
    """Write ``annotations/instances_default.json``, to be uploaded to a task as "COCO 1.0".

    CVAT makes masks of annotations marked "iscrowd", which carry their run lengths as a list of numbers, and
    polygons of the others.

    Args:
        items: Images with labels.
        classes: Category k + 1 is class k.
        put: Takes the file.
        shapes: "exact" for masks, "polygons" for outlines.
    """
    put("annotations/instances_default.json", as_json(document(items, classes, shapes, crowd=True)))

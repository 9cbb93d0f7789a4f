"""A project's labelling interface: which of its controls are brushes and tags, and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np

from tagmask.annotations.formats.label_studio import brush_region
from tagmask.data import ClassTable
from tagmask.errors import DataError, nearest, one_line
from tagmask.models.result import Result

__all__ = ["Interface", "chosen_tags", "prediction", "read_interface", "task_keys", "task_tags"]

_LONGEST = 1 << 20
_LIKELY = 0.5
"""A tag is chosen where the classifier thinks it likelier than not."""


@dataclass(frozen=True)
class Interface:
    """What a labelling interface calls things.

    Attributes:
        brush: Name of the brushes.
        image: Name of the image.
        key: Where a task's data says which picture it is.
        labels: Names of the brushes that are classes of the model.
        tags: Name of the choices for tags; None if there are none.
        choices: What can be chosen.
    """

    brush: str
    image: str
    key: str
    labels: frozenset[str]
    tags: str | None = None
    choices: frozenset[str] = frozenset()


def read_interface(text: Any, classes: ClassTable) -> Interface:
    """The controls of a labelling interface.

    Raises:
        DataError: It is no XML, has no brushes for an image, or none of them is a class of the model.
    """
    if not isinstance(text, str) or not text.strip():
        raise DataError("the project has no labelling interface yet; give it BrushLabels with the classes")
    if len(text) > _LONGEST or "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise DataError("the labelling interface is too long, or declares document types")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, RecursionError) as error:
        raise DataError(f"the labelling interface is no XML ({one_line(error)})") from None
    images = {e.get("name", ""): e.get("value", "").lstrip("$") for e in root.iter("Image")}
    brushes = [e for e in root.iter("BrushLabels") if e.get("toName") in images]
    if not brushes:
        raise DataError("the labelling interface needs <BrushLabels> for an <Image>: masks are brush strokes")
    brush = brushes[0]
    image = brush.get("toName", "")
    names = {e.get("alias") or e.get("value") or "" for e in brush.iter("Label")}
    labels = names & set(classes.names)
    if not labels:
        raise DataError(
            f"none of the labels {', '.join(sorted(names)[:20])} is a class of the model "
            f"({', '.join(classes.names[:20])}); call them the same"
        )
    choices = [e for e in root.iter("Choices") if e.get("toName") == image]
    picked = {e.get("alias") or e.get("value") or "" for one in choices[:1] for e in one.iter("Choice")}
    tags = choices[0].get("name") if choices and picked & set(classes.names) else None
    known = frozenset(picked & set(classes.names))
    return Interface(brush.get("name", ""), image, images[image], frozenset(labels), tags, known)


def task_tags(data: Mapping[str, Any], classes: ClassTable) -> list[str] | None:
    """The tags that a task was imported with, as ``data.tags``: a list, or names with commas.

    Returns:
        Names of classes; None if the task has no tags.

    Raises:
        DataError: A tag is no class.
    """
    given = data.get("tags")
    if given is None:
        return None
    names = [part.strip() for part in given.split(",")] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError("a task's tags are a list of names, or one text with commas")
    for name in (name for name in names if name and name not in classes.names):
        raise DataError(f"the tag '{name[:80]}' is no class. {nearest(name, classes.names)}")
    return [name for name in names if name]


def task_keys(data: Mapping[str, Any], classes: ClassTable) -> tuple[int, ...] | None:
    """The same as 0-based classes; None as well where they cannot be read, so that nothing is predicted."""
    try:
        names = task_tags(data, classes)
    except DataError:
        return None
    return None if names is None else tuple(map(classes.index, names))


def chosen_tags(annotation: Mapping[str, Any], interface: Interface | None) -> list[str] | None:
    """The tags that a person chose in an annotation; None if there is nothing to choose from."""
    if interface is None or interface.tags is None:
        return None
    found: set[str] = set()
    for one in annotation.get("result") or ():
        if one.get("type") == "choices" and one.get("from_name") == interface.tags:
            found |= {name for name in one["value"]["choices"] if name in interface.choices}
    return sorted(found)


def prediction(result: Result, interface: Interface, version: str) -> dict[str, Any]:
    """A result as Label Studio takes predictions: a brush a class, and choices for the tags.

    Scores are mean probabilities of the pixels' labels, in [0, 1].
    """
    controls = (interface.brush, interface.image)
    sure = result.confidence
    regions: list[dict[str, Any]] = []
    for name in (name for name in result.present if name in interface.labels):
        pixels = np.asarray(result.mask == result.classes.index(name) + 1)
        region = brush_region(pixels, name, f"tagmask-{len(regions)}", controls)
        regions.append(region | ({} if sure is None else {"score": round(float(sure[pixels].mean()), 4)}))
    likely = [name for name, value in result.tag_scores.items() if value > _LIKELY]
    shown = sorted(({*likely} if result.tag_scores else {*result.present}) & interface.choices)
    if interface.tags is not None and shown:
        regions.append(
            {
                "id": "tagmask-tags",
                "from_name": interface.tags,
                "to_name": interface.image,
                "type": "choices",
                "origin": "prediction",
                "value": {"choices": shown},
            }
        )
    score = 0.0 if sure is None else round(float(sure.mean()), 4)
    return {"result": regions, "score": score, "model_version": version}

"""Label Studio's tasks: predictions with one brush per class on the way out, annotations on the way in."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from tagmask.annotations.formats.base import (
    BOXES,
    EMPTY,
    SKIPPED,
    UNTOUCHED,
    Found,
    Images,
    Labelled,
    Put,
    Tree,
    as_json,
    blank,
    label_of,
    read_json,
)
from tagmask.annotations.formats.brush import decode_brush, encode_brush
from tagmask.annotations.formats.matching import addressed
from tagmask.annotations.formats.regions import polygon_mask
from tagmask.data.classes import ClassTable
from tagmask.errors import DataError

__all__ = ["brush_region", "mask_of", "read", "write"]

_NAME = "tagmask_name"
_DONE = ("annotations", "completions")
_BOXES = ("rectanglelabels", "rectangle")
_PLAIN = ("brush", "polygon")
_ABOUT = ("relation", "choices", "textarea", "rating", "taxonomy", "number", "datetime")


def write(items: Iterable[Labelled], classes: ClassTable, put: Put, shapes: str = "exact") -> None:
    """Write ``tasks.json`` (import it into a project) and ``config.xml`` (the project's labelling interface).

    Pictures are referred to as local files below the storage that Label Studio serves
    (``/data/local-files/?d=<file>``, the file's name encoded as addresses are).

    Args:
        items: Images with labels.
        classes: Names of the brushes.
        put: Takes the files.
        shapes: "exact"; predictions are brushes.
    """
    tasks = []
    for item in items:
        results = [
            brush_region(item.mask == label, classes.labels[label], f"{item.name}-{label}")
            for label in np.unique(item.mask).tolist()
            if label not in (0, classes.ignore_index)
        ]
        tasks.append(
            {
                "data": {"image": f"/data/local-files/?d={quote(item.file)}", _NAME: item.name},
                "predictions": [{"model_version": "tagmask", "result": results}],
            }
        )
    put("tasks.json", as_json(tasks))
    labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in classes.names)
    put(
        "config.xml",
        (
            '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
            f'  <BrushLabels name="label" toName="image">\n{labels}  </BrushLabels>\n</View>\n'
        ).encode(),
    )


def brush_region(
    pixels: NDArray[np.bool_], name: str, key: str, controls: tuple[str, str] = ("label", "image")
) -> dict[str, Any]:
    """A brush stroke as a region of a prediction.

    Args:
        pixels: (H, W) bool.
        name: Its label.
        key: Unique among the regions of a task.
        controls: Names that the labelling interface gives its brushes and its image.
    """
    return {
        "id": key,
        "from_name": controls[0],
        "to_name": controls[1],
        "type": "brushlabels",
        "origin": "prediction",
        "original_width": pixels.shape[1],
        "original_height": pixels.shape[0],
        "image_rotation": 0,
        "value": {"format": "rle", "rle": encode_brush(pixels), "brushlabels": [name]},
    }


def mask_of(annotation: Mapping[str, Any], size: tuple[int, int], classes: ClassTable) -> Any:
    """Labels that one annotation holds, (H, W) uint8; None if it was skipped or holds boxes only.

    Args:
        annotation: As Label Studio has it, with "result".
        size: (H, W) of its image.
        classes: What the labels mean.

    Raises:
        DataError: It cannot be read, is of another size, or names an unknown class.
    """
    images = Images(classes, {"image": lambda: size})
    task = {"data": {_NAME: "image"}, "annotations": [annotation]}
    try:
        return next((mask for _, mask in _read_task(task, images, "the annotation", True)), None)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise DataError(f"the annotation cannot be read ({type(error).__name__}: {error})") from None


def read(tree: Tree, images: Images) -> Iterator[Found]:
    """Labels of every task of a JSON export that somebody annotated: its newest annotation.

    Tasks that were skipped, that nobody opened, or that hold boxes only are left out; predictions beside
    annotations are not annotations. A file in which no task can hold annotations is one of ours on its way to
    the tool: there, predictions are all there is. Later brushes and polygons are drawn over earlier ones.

    Raises:
        DataError: The file is no such export, or names an unknown class or image.
    """
    files = [name for name in tree.names if name.lower().endswith(".json")]
    for file in files:
        tasks = read_json(tree, file)
        if not isinstance(tasks, list):
            raise DataError(f"{file} is not Label Studio's JSON export: it must be a list of tasks")
        exported = any(isinstance(task, Mapping) and not task.keys().isdisjoint(_DONE) for task in tasks)
        several = sum(isinstance(task, Mapping) and len(_submitted(task)) > 1 for task in tasks)
        if several:
            images.tally.said.append(
                f"{several} of {len(tasks)} tasks have several annotations; the newest of each counts"
            )
        for number, task in enumerate(tasks, start=1):
            where = f"{file}, task {number}"
            try:
                yield from _read_task(task, images, where, exported)
            except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
                raise DataError(f"{where}: {type(error).__name__} {error}") from None
    if not files:
        raise DataError("there is no .json export in it")


def _read_task(task: Mapping[str, Any], images: Images, where: str, exported: bool) -> Iterator[Found]:
    data = task.get("data")
    if not isinstance(data, Mapping):
        raise DataError(f"{where} has no 'data'; export as JSON (JSON-MIN leaves out what is needed)")
    every, done = _every(task), _submitted(task)
    chosen = _newest(done if exported else list(task.get("predictions") or ()))
    # What has no value is a relation; choices and texts are about the whole image.
    results = [one for one in (chosen or {}).get("result", ()) if one.get("type") not in _ABOUT]
    boxes = [one for one in results if one.get("type") in _BOXES]
    drawn = len(results) > len(boxes)
    picture = _picture(data, where, {str(one["to_name"]) for one in results if "to_name" in one})
    written = str(data.get(_NAME) or picture)
    name = _image(data, picture, images, where, touched=drawn or bool(done))
    if not drawn:
        if boxes:
            yield from images.untouched(name, written, BOXES)
        elif not chosen or name is None:
            yield from images.untouched(name, written, SKIPPED if every else UNTOUCHED)
        else:
            yield name, blank(images, name)  # somebody submitted it empty
        return
    if boxes:
        raise DataError(f"{where}: '{boxes[0].get('type')}' has no pixels; use brush or polygon labels")
    assert name is not None  # something was drawn, so it was found
    mask, painted = _labels(results, images, name, where)
    yield from [(name, mask)] if painted else images.untouched(name, written, EMPTY)


def _every(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The annotations of a task; versions before 1.0 called them completions."""
    return list(next((task[key] for key in _DONE if task.get(key)), ()))


def _submitted(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for one in _every(task) if not (isinstance(one, Mapping) and one.get("was_cancelled"))]


def _newest(annotations: list[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The annotation changed last; without dates the one with the highest number, or the last."""

    def age(one: Mapping[str, Any]) -> datetime:
        when = datetime.fromisoformat(str(one.get("updated_at") or one["created_at"]))
        return when if when.tzinfo else when.replace(tzinfo=UTC)

    for key in (age, lambda one: int(one["id"])):
        try:
            return max(annotations, key=key, default=None)
        except (KeyError, ValueError, TypeError):
            continue
    return annotations[-1]


def _picture(data: Mapping[str, Any], where: str, drawn_on: Collection[str]) -> str:
    """The picture of a task; `drawn_on` are the tags of the interface on which something was drawn."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    if len(drawn_on) > 1:
        raise DataError(f"{where} has shapes on several pictures ({', '.join(sorted(drawn_on))})")
    (own,) = drawn_on or ("",)
    if own in texts:
        return texts[own]
    usual: tuple[str, ...] = ("image", "img", "picture", "photo", "url")
    known = next((key for key in usual if key in texts), None)
    if known is None and len(texts) == 1:
        (known,) = texts
    if known is None:
        raise DataError(f"{where} does not say which picture it is about (data.image)")
    return texts[known]


def _image(data: Mapping[str, Any], picture: str, images: Images, where: str, touched: bool) -> str | None:
    """The image of a task; None if it is none of ours and nobody touched it."""
    if _NAME in data and str(data[_NAME]) in images.sizes:
        return str(data[_NAME])
    found, errors = [], []
    for path in addressed(picture):
        try:
            found.append(images.names.upload(path, where))
        except DataError as error:
            errors.append(error)
    if len(set(found)) > 1:
        raise DataError(f"{where}: '{picture}' could be any of {', '.join(sorted(set(found)))}")
    if not found and touched:
        raise errors[0]
    return found[0] if found else None


def _labels(results: list[Mapping[str, Any]], images: Images, name: str, where: str) -> tuple[Any, bool]:
    """Labels, and whether any pixel was drawn."""
    mask, painted = blank(images, name), False
    twins = {one.get("id") for one in results if one["type"] not in _PLAIN}
    for result in results:
        if result["type"] in _PLAIN and result.get("id") in twins:
            continue  # the stroke itself, which another result gives its label
        images.check_size(name, result.get("original_height"), result.get("original_width"), where)
        pixels, labels = _drawn(result, (mask.shape[0], mask.shape[1]), where)
        if len({*map(str, labels)}) != 1:
            raise DataError(f"{where}: a region needs one label, this one has {list(labels)}")
        mask[pixels] = label_of(images.classes, str(labels[0]), where)
        painted = painted or bool(pixels.any())
    return mask, painted


def _drawn(
    result: Mapping[str, Any], size: tuple[int, int], where: str
) -> tuple[NDArray[np.bool_], list[Any]]:
    kind, value = result["type"], result["value"]
    if result.get("image_rotation"):
        raise DataError(f"{where}: the image was rotated in the tool; turn it back")
    labels = list(value.get(kind) or value.get("labels") or ())
    if "rle" in value and kind in ("brushlabels", "labels"):
        return decode_brush(value["rle"], size), labels
    if "points" in value and kind in ("polygonlabels", "labels"):
        # Label Studio counts in percent of width and height.
        points = np.asarray(value["points"], np.float64) / 100 * (size[1], size[0])
        return polygon_mask([points], size), labels
    raise DataError(f"{where}: results of type '{kind}' have no pixels; use brush or polygon labels")

"""Label Studio's tasks: predictions with one brush per class on the way out, annotations on the way in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from tagmask.annotations.formats.base import (
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
from tagmask.annotations.formats.regions import polygon_mask
from tagmask.data.classes import ClassTable
from tagmask.errors import DataError

__all__ = ["read", "write"]

_NAME = "tagmask_name"


def write(items: Iterable[Labelled], classes: ClassTable, put: Put, shapes: str = "exact") -> None:
    """Write ``tasks.json`` (import it into a project) and ``config.xml`` (the project's labelling interface).

    Pictures are referred to as local files below the storage that Label Studio serves
    (``/data/local-files/?d=<file>``).

    Args:
        items: Images with labels.
        classes: Names of the brushes.
        put: Takes the files.
        shapes: "exact"; predictions are brushes.
    """
    tasks = []
    for item in items:
        results = [
            _brush(item.mask == label, classes.labels[label], f"{item.name}-{label}")
            for label in np.unique(item.mask).tolist()
            if label not in (0, classes.ignore_index)
        ]
        tasks.append(
            {
                "data": {"image": f"/data/local-files/?d={item.file}", _NAME: item.name},
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


def _brush(pixels: NDArray[np.bool_], name: str, key: str) -> dict[str, Any]:
    return {
        "id": key,
        "from_name": "label",
        "to_name": "image",
        "type": "brushlabels",
        "origin": "prediction",
        "original_width": pixels.shape[1],
        "original_height": pixels.shape[0],
        "image_rotation": 0,
        "value": {"format": "rle", "rle": encode_brush(pixels), "brushlabels": [name]},
    }


def read(tree: Tree, images: Images) -> Iterator[Found]:
    """Labels of every task of a JSON export: its newest annotation, or its prediction if nobody annotated it.

    Brushes and polygons are drawn, later ones over earlier ones.

    Raises:
        DataError: The file is no such export, or names an unknown class or image.
    """
    files = [name for name in tree.names if name.lower().endswith(".json")]
    for file in files:
        tasks = read_json(tree, file)
        if not isinstance(tasks, list):
            raise DataError(f"{file} is not Label Studio's JSON export: it must be a list of tasks")
        for number, task in enumerate(tasks, start=1):
            where = f"{file}, task {number}"
            try:
                yield _read_task(task, images, where)
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                raise DataError(f"{where}: {type(error).__name__} {error}") from None
    if not files:
        raise DataError("there is no .json export in it")


def _read_task(task: Mapping[str, Any], images: Images, where: str) -> Found:
    data = task["data"]
    name = images.find(str(data.get(_NAME) or data["image"]), where)
    done = [one for one in task.get("annotations") or () if not one.get("was_cancelled")]
    chosen = (done or task.get("predictions") or [{"result": []}])[-1]
    mask = blank(images, name)
    for result in chosen["result"]:
        pixels, labels = _drawn(result, (mask.shape[0], mask.shape[1]), where)
        for label in labels:
            mask[pixels] = label_of(images.classes, str(label), where)
    return name, mask


def _drawn(
    result: Mapping[str, Any], size: tuple[int, int], where: str
) -> tuple[NDArray[np.bool_], list[Any]]:
    kind, value = result["type"], result["value"]
    if result.get("image_rotation"):
        raise DataError(f"{where}: the image was rotated in the tool; turn it back")
    if kind == "brushlabels":
        return decode_brush(value["rle"], size), value["brushlabels"]
    if kind == "polygonlabels":
        # Label Studio counts in percent of width and height.
        points = np.asarray(value["points"], np.float64) / 100 * (size[1], size[0])
        return polygon_mask([points], size), value["polygonlabels"]
    raise DataError(f"{where}: results of type '{kind}' have no pixels; use brush or polygon labels")

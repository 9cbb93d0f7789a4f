"""COCO's instances JSON: one annotation per connected region, as run lengths (exact) or polygons."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

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
from tagmask.annotations.formats.regions import Region, components, outlines
from tagmask.data.classes import ClassTable
from tagmask.data.readers.rle import count_runs, format_counts, region_mask
from tagmask.errors import DataError

__all__ = ["document", "read", "write"]

FILE = "instances.json"


def write(items: Iterable[Labelled], classes: ClassTable, put: Put, shapes: str = "exact") -> None:
    """Write ``instances.json``.

    Args:
        items: Images with labels.
        classes: Category k + 1 is class k.
        put: Takes the file.
        shapes: "exact" for compressed run lengths, "polygons" for outlines.
    """
    put(FILE, as_json(document(items, classes, shapes)))


def document(
    items: Iterable[Labelled], classes: ClassTable, shapes: str, crowd: bool = False
) -> dict[str, Any]:
    """The content of the file, as plain values.

    Args:
        items: Images with labels.
        classes: Category k + 1 is class k.
        shapes: "exact" or "polygons".
        crowd: Write run lengths as lists and mark them "iscrowd", which CVAT takes for masks.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for item in items:
        size = (item.mask.shape[0], item.mask.shape[1])
        number = len(images) + 1
        images.append({"id": number, "file_name": item.file, "height": size[0], "width": size[1]})
        for region in components(item.mask):
            height, width = region.pixels.shape
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": region.label,
                    "segmentation": _segmentation(region, size, shapes, crowd),
                    "area": region.area,
                    "bbox": [region.left, region.top, width, height],
                    "iscrowd": int(crowd and shapes == "exact"),
                }
            )
    categories = [{"id": k, "name": name, "supercategory": ""} for k, name in enumerate(classes.names, 1)]
    return {
        "info": {"description": "written by tagmask"},
        "licenses": [],
        "categories": categories,
        "images": images,
        "annotations": annotations,
    }


def _segmentation(region: Region, size: tuple[int, int], shapes: str, crowd: bool) -> Any:
    if shapes == "polygons":
        return [polygon.reshape(-1).tolist() for polygon in outlines(region)]
    counts = count_runs(region.whole(size))
    return {"size": list(size), "counts": counts if crowd else format_counts(counts)}


def read(tree: Tree, images: Images) -> Iterator[Found]:
    """Labels of every image of a COCO file; later annotations lie over earlier ones.

    Raises:
        DataError: There is no such file, or it names unknown images or classes, or a region cannot be drawn.
    """
    found = [name for name in tree.names if name.lower().endswith(".json")]
    for file in found:
        content = read_json(tree, file)
        if isinstance(content, Mapping) and {"images", "annotations", "categories"} <= content.keys():
            yield from _read_document(content, images, file)
            return
    raise DataError(f"no COCO file (with images, annotations and categories) among {found or 'no .json'}")


def _read_document(content: Mapping[str, Any], images: Images, file: str) -> Iterator[Found]:
    try:
        labels = {c["id"]: label_of(images.classes, str(c["name"]), file) for c in content["categories"]}
        by_image: dict[Any, list[Mapping[str, Any]]] = {image["id"]: [] for image in content["images"]}
        for annotation in content["annotations"]:
            by_image[annotation["image_id"]].append(annotation)
        for image in content["images"]:
            name = images.find(str(image["file_name"]), file)
            yield name, _drawn(by_image[image["id"]], labels, images, name)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} does not follow COCO's layout: {type(error).__name__} {error}") from None


def _drawn(
    annotations: Iterable[Mapping[str, Any]], labels: Mapping[Any, int], images: Images, name: str
) -> Any:
    mask = blank(images, name)
    size = (mask.shape[0], mask.shape[1])
    for annotation in annotations:
        try:
            mask[region_mask(annotation["segmentation"], size)] = labels[annotation["category_id"]]
        except ValueError as error:
            raise DataError(f"annotation {annotation.get('id')} of '{name}': {error}") from None
    return mask

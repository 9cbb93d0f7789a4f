"""COCO's instances JSON: one annotation per connected region, as run lengths (exact) or polygons."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tagmask.annotations.formats.base import (
    BOXES,
    EMPTY,
    UNTOUCHED,
    Found,
    Images,
    Labelled,
    Mask,
    Put,
    Tree,
    as_json,
    blank,
    label_of,
    read_json,
)
from tagmask.annotations.formats.regions import Region, components, outlines
from tagmask.data.classes import ClassTable
from tagmask.data.readers.rle import annotated, count_runs, format_counts, has_region
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
    """Labels of every image of the COCO files with regions; later annotations are drawn over earlier ones.

    Images without annotations, or with boxes only, are left out, see `Images.untouched`.

    Raises:
        DataError: There is no such file, or it names unknown images or classes, declares other sizes, or a
            region cannot be drawn.
    """
    found = [name for name in tree.names if name.lower().endswith(".json")]
    some = False
    for file in found:
        content = read_json(tree, file)
        if isinstance(content, Mapping) and {"images", "annotations", "categories"} <= content.keys():
            some = True
            yield from _read_document(content, images, file)
    if not some:
        raise DataError(f"no COCO file (with images, annotations and categories) among {found or 'no .json'}")


def _read_document(content: Mapping[str, Any], images: Images, file: str) -> Iterator[Found]:
    try:
        categories: dict[Any, str] = {}
        for category in content["categories"]:
            name = str(category["name"])
            first = categories.setdefault(category["id"], name)
            if first != name:
                raise DataError(f"{file} gives the number {category['id']} to '{first}' and to '{name}'")
        by_image: dict[Any, list[Mapping[str, Any]]] = {}
        for image in content["images"]:
            if image["id"] in by_image:
                raise DataError(f"{file} lists two images with the number {image['id']}")
            by_image[image["id"]] = []
        for annotation in content["annotations"]:
            number = annotation["image_id"]
            if "segments_info" in annotation:
                raise DataError(
                    f"{file} is COCO's panoptic form, whose regions are pictures beside it; export instances"
                )
            if number not in by_image:
                raise DataError(
                    f"{file}: annotation {annotation.get('id')} is of image {number}, which it does not list"
                )
            by_image[number].append(annotation)
        scored = sum("score" in annotation for annotation in content["annotations"])
        if scored:
            images.tally.said.append(
                f"{scored} annotations of {file} carry a score: a model made them, nobody drew them"
            )
        for image in content["images"]:
            yield from _read_image(image, by_image[image["id"]], categories, images, file)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file} does not follow COCO's layout: {type(error).__name__} {error}") from None


def _read_image(
    image: Mapping[str, Any],
    annotations: Sequence[Mapping[str, Any]],
    categories: Mapping[Any, str],
    images: Images,
    file: str,
) -> Iterator[Found]:
    # Roboflow renames pictures and keeps the first name beside.
    extra = image.get("extra")
    written = str((extra.get("name") if isinstance(extra, Mapping) else None) or image["file_name"])
    drawn = [annotation for annotation in annotations if has_region(annotation)]
    name = images.find_touched(written, file, bool(drawn))
    if not drawn:
        yield from images.untouched(name, written, BOXES if annotations else UNTOUCHED)
        return
    assert name is not None  # something was drawn, so it was found
    images.check_size(name, image.get("height"), image.get("width"), f"{file}, '{written}'")
    if len(drawn) < len(annotations):
        box = next(annotation for annotation in annotations if not has_region(annotation))
        raise DataError(
            f"{file}: annotation {box.get('id')} of '{name}' is a box without pixels, beside others that "
            "have some; draw it, or remove it"
        )
    mask, painted = _drawn(drawn, categories, images, name, file)
    yield from [(name, mask)] if painted else images.untouched(name, written, EMPTY)


def _drawn(
    annotations: Iterable[Mapping[str, Any]],
    categories: Mapping[Any, str],
    images: Images,
    name: str,
    file: str,
) -> tuple[Mask, bool]:
    """Labels, and whether any pixel was drawn."""
    mask, painted = blank(images, name), False
    size = (mask.shape[0], mask.shape[1])
    for annotation in annotations:
        where = f"{file}: annotation {annotation.get('id')} of '{name}'"
        number = annotation["category_id"]
        if number not in categories:
            raise DataError(f"{where} has category {number}, which the file does not list")
        try:
            pixels = annotated(annotation, size)
        except ValueError as error:
            raise DataError(f"{where}: {error}") from None
        if isinstance(annotation["segmentation"], list):
            for polygon in annotation["segmentation"]:
                images.tally.outline(np.reshape(polygon, (-1, 2)))
        mask[pixels] = label_of(images.classes, categories[number], where)
        painted = painted or bool(pixels.any())
    return mask, painted

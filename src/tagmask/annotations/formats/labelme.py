"""LabelMe's JSON, one per image: polygons, or masks as small PNGs (shape type "mask", exact)."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tagmask.annotations.formats.base import (
    EMPTY,
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
from tagmask.annotations.formats.regions import Region, components, outlines, polygon_mask
from tagmask.data.classes import ClassTable
from tagmask.errors import DataError

__all__ = ["read", "write"]

VERSION = "5.5.0"
"""Version of LabelMe whose layout is written."""


def write(items: Iterable[Labelled], classes: ClassTable, put: Put, shapes: str = "polygons") -> None:
    """Write ``<name>.json`` for every image; put them beside the pictures and open the folder in LabelMe.

    Args:
        items: Images with labels.
        classes: Names of the shapes.
        put: Takes the files.
        shapes: "polygons", or "exact" for masks.
    """
    for item in items:
        found: list[dict[str, Any]] = []
        for region in components(item.mask):
            name = classes.names[region.label - 1]
            if shapes == "exact":
                found.append(_mask_shape(region, name))
            else:
                found += [_shape(name, "polygon", p.tolist(), None) for p in outlines(region)]
        content = {
            "version": VERSION,
            "flags": {},
            "shapes": found,
            "imagePath": PurePosixPath(item.file).name,
            "imageData": None,
            "imageHeight": item.mask.shape[0],
            "imageWidth": item.mask.shape[1],
        }
        put(f"{item.name}.json", as_json(content, indent=2))


def _shape(name: str, kind: str, points: list[Any], mask: str | None) -> dict[str, Any]:
    return {
        "label": name,
        "points": points,
        "group_id": None,
        "description": "",
        "shape_type": kind,
        "flags": {},
        "mask": mask,
    }


def _mask_shape(region: Region, name: str) -> dict[str, Any]:
    height, width = region.pixels.shape
    # LabelMe's box of a mask includes its last row and column.
    corners = [[region.left, region.top], [region.left + width - 1, region.top + height - 1]]
    buffer = io.BytesIO()
    Image.fromarray(region.pixels.astype(np.uint8) * 255).convert("1").save(buffer, format="PNG")
    return _shape(name, "mask", corners, base64.b64encode(buffer.getvalue()).decode("ascii"))


def read(tree: Tree, images: Images) -> Iterator[Found]:
    """Labels of every LabelMe file with shapes; later shapes are drawn over earlier ones.

    Polygons, rectangles, circles and masks are drawn, ``__ignore__`` as ignored pixels; lines and points have
    no area and are refused. A file without shapes is an image that nobody annotated.

    Raises:
        DataError: A file is no LabelMe file, names an unknown class, image or shape, or is of another size.
    """
    files = [name for name in tree.names if name.lower().endswith(".json")]
    if not files:
        raise DataError("there is no LabelMe .json in it")
    for file in files:
        content = read_json(tree, file)
        if not isinstance(content, Mapping) or not isinstance(content.get("shapes"), list):
            raise DataError(f"{file} is not a LabelMe file: it has no list of 'shapes'")
        name = _image(file, content, images)
        if not content["shapes"] or name is None:
            yield from images.untouched(name, file)
            continue
        images.check_size(name, content.get("imageHeight"), content.get("imageWidth"), file)
        mask, painted = blank(images, name), False
        for number, shape in enumerate(content["shapes"], start=1):
            where = f"{file}, shape {number}"
            try:
                if shape.get("shape_type") in (None, "polygon", "rectangle"):
                    images.tally.outline(_corners(shape))
                label = label_of(images.classes, str(shape["label"]), where)
                pixels = _drawn(shape, (mask.shape[0], mask.shape[1]), where)
                mask[pixels] = label
                painted = painted or bool(pixels.any())
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError, IndexError) as error:
                raise DataError(f"{where}: {error}") from None
        yield from [(name, mask)] if painted else images.untouched(name, file, EMPTY)


def _image(file: str, content: Mapping[str, Any], images: Images) -> str | None:
    """The image of a file: the one it names, beside itself, or the one it is called like."""
    touched = bool(content["shapes"])
    own = PurePosixPath(file).with_suffix("").as_posix()
    written = str(content.get("imagePath") or "").replace("\\", "/")
    by_name: str | None = None
    with suppress(DataError):
        by_name = images.names.find(own, file, bare=True)
    if not written or PurePosixPath(written).stem == PurePosixPath(own).name:
        # Pictures of one stem differ in their ending, which only the path of the image tells.
        inside = PurePosixPath(file).parent / PurePosixPath(written or own).name
        try:
            return images.names.upload(inside.as_posix(), file)
        except DataError:
            return by_name or images.find_touched(own, file, touched, bare=True)
    inside = PurePosixPath(file).parent / PurePosixPath(written).name
    named = images.find_touched(inside.as_posix(), file, touched and by_name is None)
    if named is not None and by_name is not None and named != by_name:
        raise DataError(
            f"{file} is called like the image '{by_name}' but says that it is about '{written}'; "
            "rename it, or correct its imagePath"
        )
    return named or by_name


def _drawn(shape: Mapping[str, Any], size: tuple[int, int], where: str) -> NDArray[np.bool_]:
    points, kind = _corners(shape), shape.get("shape_type") or "polygon"
    if kind == "mask":
        return _placed(shape["mask"], points, size, where)
    if kind == "circle" and len(points) == 2:
        radius, angle = np.hypot(*(points[1] - points[0])), np.linspace(0, 2 * np.pi, 72, endpoint=False)
        points = points[0] + radius * np.stack([np.cos(angle), np.sin(angle)], 1)
    elif kind not in ("polygon", "rectangle"):  # other tools write all corners of a rectangle
        raise DataError(f"{where} is of the type '{kind}'; use polygon, rectangle, circle or mask")
    return polygon_mask([points], size)


def _corners(shape: Mapping[str, Any]) -> NDArray[np.float64]:
    """The corners of a shape, (n, 2); all four of a rectangle."""
    points = np.asarray(shape["points"], np.float64).reshape(-1, 2)
    if shape.get("shape_type") == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        return np.asarray([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    return points


def _placed(text: str, points: NDArray[np.float64], size: tuple[int, int], where: str) -> NDArray[np.bool_]:
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=("PNG",)) as picture:
            if picture.width > size[1] or picture.height > size[0]:
                raise DataError(f"{where}: its mask is larger than the image")
            pixels = np.asarray(picture.convert("L")) > 0
    except (OSError, SyntaxError, binascii.Error, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: its mask cannot be decoded ({error})") from None
    if not len(points):
        raise DataError(f"{where}: its mask has no place; give two corners")
    left, top = (int(value) for value in points[0])
    if len(points) == 2:
        declared = np.abs(points[1] - points[0]) + 1
        if (np.abs(declared - (pixels.shape[1], pixels.shape[0])) > 1).any():
            raise DataError(
                f"{where}: its mask is {pixels.shape[1]} x {pixels.shape[0]}, but its corners are those of "
                f"{declared[0]:g} x {declared[1]:g}"
            )
    result = np.zeros(size, bool)
    box = result[max(top, 0) : top + pixels.shape[0], max(left, 0) : left + pixels.shape[1]]
    if left < 0 or top < 0 or box.shape != pixels.shape:
        raise DataError(f"{where}: its mask reaches beyond the image")
    box[:] = pixels
    return result

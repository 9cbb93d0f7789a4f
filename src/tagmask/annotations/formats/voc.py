"""PASCAL VOC's folders: ``SegmentationClass/<name>.png`` with palette and, for CVAT, a colour per class."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tagmask.annotations.formats.base import Found, Images, Labelled, Put, Tree, label_of
from tagmask.annotations.formats.regions import components
from tagmask.data.classes import ClassTable, voc_palette
from tagmask.errors import DataError

__all__ = ["instances", "png", "read", "write"]

_CLASSES, _LIST, _COLOURS = "SegmentationClass", "ImageSets/Segmentation/default.txt", "labelmap.txt"
_MAX_PIXELS = 500_000_000


def write(items: Iterable[Labelled], classes: ClassTable, put: Put, shapes: str = "exact") -> None:
    """Write indexed PNGs in VOC's folders; ignored pixels stay 255.

    Args:
        items: Images with labels.
        classes: Label k + 1 is class k.
        put: Takes the files.
        shapes: "exact"; this format has nothing else.
    """
    write_folders(items, classes, put, colours=False)


def write_folders(items: Iterable[Labelled], classes: ClassTable, put: Put, colours: bool) -> None:
    """VOC's folders and ``labelmap.txt``; with `colours` as RGB without ignored pixels, as CVAT has."""
    names = []
    for item in items:
        names.append(item.name)
        mask = np.where(item.mask == classes.ignore_index, 0, item.mask) if colours else item.mask
        put(f"{_CLASSES}/{item.name}.png", png(mask.astype(np.uint8), colours))
        put(f"SegmentationObject/{item.name}.png", png(instances(item.mask), colours))
    put(_LIST, "".join(f"{name}\n" for name in names).encode())
    palette = voc_palette()
    rows = [f"{name}:{','.join(map(str, palette[k]))}::" for k, name in enumerate(classes.labels)]
    head = "# label:color_rgb:parts:actions"
    put(_COLOURS, "\n".join([head, *rows, ""]).encode())


def instances(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Connected regions numbered from 1, (H, W) uint8; the smallest beyond 254 are left out."""
    result = np.zeros_like(mask)
    for number, region in enumerate(components(mask)[:254], start=1):
        height, width = region.pixels.shape
        box = result[region.top : region.top + height, region.left : region.left + width]
        box[region.pixels] = number
    return result


def png(mask: NDArray[np.uint8], colours: bool = False) -> bytes:
    """A label image as an indexed PNG in VOC's colours, or as an RGB picture of these."""
    if colours:
        picture = Image.fromarray(voc_palette()[mask])
    else:
        picture = Image.fromarray(mask)
        picture.putpalette(voc_palette().tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def read(tree: Tree, images: Images) -> Iterator[Found]:
    """Labels of every PNG in ``SegmentationClass``, or of every PNG if there is no such folder.

    Indexed and grey pictures hold labels in the order of ``labelmap.txt`` or, without it, of the classes;
    RGB pictures are read by their colours.

    Raises:
        DataError: A picture is damaged, holds unknown colours or labels, or belongs to no image.
    """
    pictures = [name for name in tree.names if name.lower().endswith(".png")]
    proper = [name for name in pictures if _CLASSES in PurePosixPath(name).parts[:-1]]
    if not pictures:
        raise DataError("there is no .png in it")
    names, palette = _colours(tree, images.classes)
    labels = np.full(256, -1, np.int16)
    labels[: len(names)] = [label_of(images.classes, name, _COLOURS) for name in names]
    labels[images.classes.ignore_index] = images.classes.ignore_index
    for file in proper or pictures:
        parts = PurePosixPath(file).parts
        inner = parts[parts.index(_CLASSES) + 1 :] if proper else parts
        name = images.find("/".join(inner), file)
        values = labels[_indices(tree.read(file), palette, file)]
        if (values < 0).any():
            raise DataError(
                f"{file} holds labels that no class has; allowed are 0 to {len(names) - 1} and 255"
            )
        if values.shape != tuple(images.sizes[name]()):
            height, width = images.sizes[name]()
            raise DataError(
                f"{file} is {values.shape[1]} x {values.shape[0]}, but its image {width} x {height}"
            )
        yield name, values.astype(np.uint8)


def _colours(tree: Tree, classes: ClassTable) -> tuple[list[str], Mapping[int, int]]:
    """Names by index, and packed colour to index."""
    file = next((name for name in tree.names if PurePosixPath(name).name == _COLOURS), None)
    palette = [(int(r), int(g), int(b)) for r, g, b in voc_palette()]
    if file is None:
        names, colours = list(classes.labels), palette[: len(classes.labels)]
    else:
        names, colours = [], []
        for line in tree.read(file).decode("utf-8-sig", "replace").splitlines():
            if not line.strip() or line.startswith("#"):
                continue
            try:
                name, colour = line.rsplit(":", 3)[:2]
                red, green, blue = (int(part) for part in colour.split(","))
            except ValueError:
                raise DataError(f"{file}: '{line[:60]}' is not 'name:red,green,blue::'") from None
            names.append(name)
            colours.append((red, green, blue))
    index = {r << 16 | g << 8 | b: number for number, (r, g, b) in enumerate(colours)}
    border = palette[classes.ignore_index]
    index.setdefault(border[0] << 16 | border[1] << 8 | border[2], classes.ignore_index)
    index.setdefault(0, 0)
    return names, index


def _indices(content: bytes, colours: Mapping[int, int], file: str) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as picture:
            if picture.width * picture.height > _MAX_PIXELS:
                raise DataError(f"{file} declares {picture.width} x {picture.height} pixels; not decoded")
            if picture.mode in ("P", "L", "1"):
                return np.array(picture, dtype=np.uint8)
            rgb = np.asarray(picture.convert("RGB"), np.int64)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} cannot be decoded: {error}") from None
    packed = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
    values, inverse = np.unique(packed, return_inverse=True)
    unknown = [value for value in values.tolist() if value not in colours]
    if unknown:
        first = unknown[0]
        raise DataError(
            f"{file} holds the colour {first >> 16},{first >> 8 & 255},{first & 255}, which {_COLOURS} "
            "gives to no class"
        )
    table = np.asarray([colours[value] for value in values.tolist()], np.uint8)
    return table[inverse].reshape(packed.shape)

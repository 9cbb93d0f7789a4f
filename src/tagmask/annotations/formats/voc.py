"""PASCAL VOC's folders: ``SegmentationClass/<name>.png`` with palette and, for CVAT, a colour per class."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tagmask.annotations.formats.base import Found, Images, Labelled, Put, Tree
from tagmask.annotations.formats.colours import LABEL_MAP, key_finder, label_map
from tagmask.annotations.formats.regions import components
from tagmask.data.classes import ClassTable, voc_palette
from tagmask.errors import DataError

__all__ = ["instances", "png", "read", "write"]

_CLASSES, _OBJECTS = "SegmentationClass", "SegmentationObject"
_LIST, _COLOURS = "ImageSets/Segmentation/default.txt", LABEL_MAP
_MAX_PIXELS, _ORIENTATION = 500_000_000, 0x0112


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
        put(f"{_OBJECTS}/{item.name}.png", png(instances(item.mask), colours))
    put(_LIST, "".join(f"{name}\n" for name in names).encode())
    put(_COLOURS, label_map(classes).encode())


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

    Colours mean what ``labelmap.txt`` says, also those of a palette; black that it gives to no class is
    background. Without it, numbers follow ``class_names.txt`` (of labelme2voc) or the classes; black and
    white pictures show the class, if there is one. Images that are listed without a picture, and colour
    pictures that are black all over, were not annotated.

    Raises:
        DataError: A picture is damaged, is of another size, holds unknown or ambiguous colours or labels, or
            belongs to no image; or they are black and white, and there are several classes.
    """
    pictures = [name for name in tree.names if name.lower().endswith(".png")]
    counted = [name for name in pictures if _OBJECTS in PurePosixPath(name).parts[:-1]]
    if pictures and len(counted) == len(pictures):
        raise DataError(f"it holds {_OBJECTS} alone, whose numbers count things; {_CLASSES} names classes")
    pictures = [name for name in pictures if name not in set(counted)]
    proper = [name for name in pictures if _home(name) is not None]
    if not pictures:
        raise DataError("there is no .png in it")
    key = key_finder(tree, images.classes)
    known: set[str] = set()
    white = all(key(file).numbered for file in proper or pictures) and _black_and_white(
        tree, proper or pictures
    )
    if white:
        _white_is_the_class(images)
    for file in proper or pictures:
        inner = PurePosixPath(file).parts[(_home(file) or 0) if proper else 0 :]
        written = PurePosixPath("/".join(inner)).with_suffix("").as_posix()
        known.add(written)
        picture = _decoded(tree.read(file), file)
        if white:
            values = (np.asarray(picture.convert("L")) > 0).astype(np.uint8)
            coloured = picture.mode == "RGB"
        else:
            values, coloured = key(file).labels(picture, file)
        touched = not coloured or bool(values.any())
        name = images.find_touched(written, file, touched, bare=True)
        if not touched or name is None:
            yield from images.untouched(name, written)
            continue
        images.check_size(name, values.shape[0], values.shape[1], file)
        yield name, values
    for written in _listed(tree):
        if proper and written not in known:
            yield from images.untouched(images.find_touched(written, _LIST, False, bare=True), written)


def _black_and_white(tree: Tree, files: Sequence[str]) -> bool:
    """Whether all pictures hold nothing but black and white, and not as a palette's ignored pixels."""
    seen: set[int] = set()
    for file in files:
        picture = _decoded(tree.read(file), file)
        if picture.mode == "RGB" and np.ptp(np.asarray(picture), axis=2).any():
            return False
        if picture.mode == "P":
            # Colours in a palette name classes; greys say nothing.
            palette = np.reshape(picture.getpalette("RGB") or [0, 0, 1], (-1, 3))
            if np.ptp(palette, axis=1).any():
                return False
        seen.update(np.unique(np.asarray(picture.convert("L"))).tolist())
        if not seen <= {0, 255}:
            return False
    return 255 in seen


def _white_is_the_class(images: Images) -> None:
    """Say how black and white pictures are read, if there is one way to read them.

    Raises:
        DataError: There are several classes.
    """
    names = images.classes.names
    if len(names) > 1:
        raise DataError(
            "the masks hold nothing but 0 and 255: 255 may be one of the classes "
            f"({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}), or ignored pixels and no class at "
            f"all; write a class's own number, or put a {_COLOURS} with a line such as "
            f"'{names[0]}:255,255,255::' beside the masks"
        )
    said = f"the masks hold nothing but 0 and 255: 255 is read as '{names[0]}'"
    images.tally.said.append(f"{said}, the only class, not as ignored pixels")


def _home(file: str) -> int | None:
    """How many parts of a path lead to the folder of class pictures, that folder included."""
    parts = PurePosixPath(file).parts[:-1]
    return next((parts.index(folder) + 1 for folder in (_CLASSES, f"{_CLASSES}PNG") if folder in parts), None)


def _listed(tree: Tree) -> list[str]:
    """Names in the archive's list of all its images."""
    file = next((name for name in tree.names if name.endswith(_LIST)), None)
    text = "" if file is None else tree.read(file).decode("utf-8-sig", "replace")
    return [line.strip() for line in text.split("\n") if line.strip()]


def _decoded(content: bytes, file: str) -> Image.Image:
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as picture:
            if picture.width * picture.height > _MAX_PIXELS:
                raise DataError(f"{file} declares {picture.width} x {picture.height} pixels; not decoded")
            picture.load()
            return _plain(picture, file)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} cannot be decoded: {error}") from None


def _plain(picture: Image.Image, file: str) -> Image.Image:
    """Numbers as grey or indexed pictures, and colours as RGB; what nobody sees has no colour.

    Raises:
        DataError: It holds numbers above 255, or says that it has to be turned.
    """
    if picture.getexif().get(_ORIENTATION, 1) != 1:
        raise DataError(f"{file} says that it has to be turned (EXIF); save it upright, without that")
    if picture.mode == "I" or ";16" in picture.mode:
        values = np.array(picture, np.int64)
        if values.max(initial=0) > 255 and not np.isin(values, (0, 65535)).all():
            raise DataError(f"{file} holds the number {values.max()}; labels are 0 to 255")
        return Image.fromarray(np.minimum(values, 255).astype(np.uint8))
    if picture.mode == "LA" and picture.getextrema()[1] == (255, 255):
        return picture.convert("L")
    if picture.mode in ("RGBA", "LA"):
        # Painting programs keep the colours of what was rubbed out.
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, picture.convert("RGBA")).convert("RGB")
    return picture.copy() if picture.mode in ("P", "L", "1") else picture.convert("RGB")

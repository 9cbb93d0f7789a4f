"""Masks of scenes, volumes and scans that were corrected as what they are, as labels of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmask.annotations.formats.base import UNTOUCHED, Found, Tally, label_of
from tagmask.data.base import Item
from tagmask.data.classes import ClassTable
from tagmask.data.datasets.stacks import by_file, called_as_a_whole
from tagmask.data.readers import dicom, geotiff, nifti, slide
from tagmask.errors import DataError
from tagmask.store.files import file_for

__all__ = ["read_native"]

_ENDINGS = {"geotiff": (".tif",), "nifti": nifti.ENDINGS, "dicom": dicom.ENDINGS, "slide": (".tif",)}
_Labels = NDArray[np.uint8]
_CLOSE = 1e-4


def read_native(source: Path, items: Sequence[Item], classes: ClassTable, tally: Tally) -> Iterator[Found]:
    """Labels of images from masks called and laid out as `tagmask annotate export --format native` does.

    Slices and tiles that are 255 all over are left out: nobody said anything about them.

    Args:
        source: The folder.
        items: The images the masks may be about.
        classes: What labels mean.
        tally: Takes what was left out.

    Yields:
        Name of an image, and its labels in its size.

    Raises:
        DataError: A mask has another grid than its image or a label that is no class, cannot be read, or
            belongs to no image.
    """
    if not source.is_dir():
        raise DataError(f"{source} is no folder; native masks come in one, called as they were exported")
    taken: set[Path] = set()
    for (kind, _), members in by_file(items).items():
        if kind not in _ENDINGS:
            continue
        name = called_as_a_whole(kind, members)
        file = next((f for f in (file_for(source, name, e) for e in _ENDINGS[kind]) if f.is_file()), None)
        if file is None:
            continue
        taken.add(file)
        for item, labels in _READERS[kind](file, members, classes):
            _check(file, labels, classes)
            if (labels == classes.ignore_index).all():
                tally.left[item.name] = UNTOUCHED
            else:
                yield item.name, labels
    endings = tuple({ending for several in _ENDINGS.values() for ending in several})
    rest = sorted(f for f in source.rglob("*") if f.name.lower().endswith(endings) and f not in taken)
    if rest:
        raise DataError(f"{rest[0]}: there is no image, volume or scan of that name; keep the exported names")


def _scene(file: Path, members: Sequence[Item], classes: ClassTable) -> Iterator[tuple[Item, _Labels]]:
    item = members[0]
    with geotiff.opened(file) as mask, geotiff.opened(item.image) as image:
        _refuse(file, "size", (mask.width, mask.height), (image.width, image.height))
        _refuse(file, "transform", tuple(mask.transform)[:6], tuple(image.transform)[:6])
        yield item, _whole(file, mask.read(1))


def _volume(file: Path, members: Sequence[Item], classes: ClassTable) -> Iterator[tuple[Item, _Labels]]:
    mask, image = nifti.opened(file), nifti.opened(members[0].image)
    _refuse(file, "size", mask.shape[:3], image.shape[:3])
    _refuse(file, "affine", tuple(mask.affine.ravel()), tuple(image.affine.ravel()))
    for item in members:
        yield item, _whole(file, nifti.read(file, item.part, 1 << 62)[0][0])


def _series(file: Path, members: Sequence[Item], classes: ClassTable) -> Iterator[tuple[Item, _Labels]]:
    by_image = {item.image: item for item in members}
    files = dicom.series(list(by_image))
    planes, names = dicom.read_segments(file, files)
    table = np.array([0, *(label_of(classes, name, str(file)) if name else 0 for name in names)], np.uint8)
    for path, plane in zip(files, planes, strict=True):
        yield by_image[path], table[plane]


def _scan(file: Path, members: Sequence[Item], classes: ClassTable) -> Iterator[tuple[Item, _Labels]]:
    side = slide.TILE
    with geotiff.opened(file) as mask:
        height, width = slide.whole_size(members[0].image)
        _refuse(file, "size", (mask.width, mask.height), (width, height))
        for item in members:
            row, column = divmod(item.part or 0, -(-width // side))
            top, left = row * side, column * side
            window = ((top, min(top + side, height)), (left, min(left + side, width)))
            seen = _whole(file, mask.read(1, window=window))
            # Beyond the scan's edge there is nothing that a person could have looked at.
            around = ((0, side - seen.shape[0]), (0, side - seen.shape[1]))
            yield item, np.pad(seen, around, constant_values=classes.ignore_index)


def _refuse(file: Path, what: str, found: Sequence[Any], wanted: Sequence[Any]) -> None:
    if len(found) != len(wanted) or not np.allclose(found, wanted, rtol=1e-9, atol=_CLOSE):
        shown = [", ".join(f"{value:g}" for value in values) for values in (found, wanted)]
        raise DataError(
            f"{file} has the {what} {shown[0]}, but its image {shown[1]}; save the mask in the image's grid"
        )


def _whole(file: Path, values: NDArray[Any]) -> _Labels:
    labels: _Labels = np.nan_to_num(values, nan=255.0).astype(np.uint8)
    if not np.array_equal(labels, np.nan_to_num(values, nan=255.0)):
        raise DataError(f"{file} holds numbers that are no labels; labels are whole numbers from 0 to 255")
    return labels


def _check(file: Path, labels: _Labels, classes: ClassTable) -> None:
    last, ignore = classes.num_classes, classes.ignore_index
    wrong = [label for label in np.unique(labels).tolist() if label > last and label != ignore]
    if wrong:
        raise DataError(f"{file} holds the label {wrong[0]}; allowed are 0 to {last} and {ignore}")


_READERS: Mapping[str, Callable[[Path, Sequence[Item], ClassTable], Iterator[tuple[Item, _Labels]]]] = {
    "geotiff": _scene,
    "nifti": _volume,
    "dicom": _series,
    "slide": _scan,
}

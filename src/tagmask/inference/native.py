"""Masks of a run in the grid of the files they are about: GeoTIFF, NIfTI, DICOM segmentation, scans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tagmask.data import ClassTable, TagDataset
from tagmask.data.base import Item
from tagmask.data.datasets.stacks import by_file, called_as_a_whole
from tagmask.data.readers import dicom, geotiff, nifti, slide
from tagmask.engine.log import Display
from tagmask.errors import DataError
from tagmask.inference.scan import open_slide, write_annotations
from tagmask.inference.scene import new_raster, write_polygons
from tagmask.store.files import atomic_write, file_for
from tagmask.store.labels import read_mask
from tagmask.types import IGNORE

__all__ = ["write_native"]

_Members = Sequence[tuple[Item, Path]]
"""Images of one file or series, each with its mask."""


def write_native(masks: Path, dataset: TagDataset, out: Path, display: Display) -> dict[str, Any]:
    """Write masks as what their images are, with the same grid, to a folder.

    A GeoTIFF's mask is a GeoTIFF, with outlines in map units beside it; slices are put together to a NIfTI
    volume, in which slices without a mask are 255, or to a DICOM segmentation of the slices that have one;
    tiles of a scan become a pyramid, 255 where tissue has no mask, and outlines in its pixels.

    Args:
        masks: Folder of ``<name>.png``.
        dataset: The images.
        out: The folder.
        display: Progress.

    Returns:
        Figures: files of each kind, "images" whose masks are in them, "plain" ones that have no grid of
        their own and are left out, and "without" a mask.

    Raises:
        DataError: No image has a mask and a grid, a mask has another size than its image, or a file cannot
            be read or written.
    """
    whole = [(item, file_for(masks, item.name, ".png")) for item in dataset.items]
    there = [(item, mask) for item, mask in whole if mask.is_file()]
    masks_of = {item.name: mask for item, mask in there}
    counts = {"geotiff": 0, "nifti": 0, "dicom": 0, "slide": 0, "images": 0}
    wanted = {
        key: [(item, masks_of[item.name]) for item in members]
        for key, members in by_file(item for item, _ in there).items()
        if key[0] in _WRITERS
    }
    if not wanted:
        raise DataError(
            f"{masks} holds no mask of a GeoTIFF, a volume or a scan; masks of other pictures are the PNGs "
            "in that folder"
        )
    with display.task("export", len(wanted)) as task:
        for (kind, _), members in wanted.items():
            _WRITERS[kind](members, dataset.classes, out)
            counts[kind] += 1
            counts["images"] += len(members)
            task.advance()
    plain = len(there) - counts["images"]
    return {**counts, "plain": plain, "without": len(whole) - len(there)}


def _scene(members: _Members, classes: ClassTable, out: Path) -> None:
    ((item, mask),) = members
    labels, target = read_mask(mask), file_for(out, item.name, ".tif")
    with geotiff.opened(item.image) as file:
        _refuse_size(mask, labels.shape, (file.height, file.width))
        empty = np.asarray(~np.isfinite(geotiff.window_of(file, 0, 0, file.height, file.width)).any(0))
        with new_raster(target, file, IGNORE, classes.palette) as made:
            made.write(np.where(empty, np.uint8(IGNORE), labels), 1)
    ends = [file_for(out, item.name, end) for end in (".geojson", ".gpkg")]
    write_polygons(target, classes, ends[0], ends[1])


def _volume(members: _Members, classes: ClassTable, out: Path) -> None:
    source = members[0][0].image
    height, width = nifti.size(source, 1 << 62)
    planes = np.full((nifti.count(source), height, width), IGNORE, np.uint8)
    for item, mask in members:
        labels = read_mask(mask)
        _refuse_size(mask, labels.shape, (height, width))
        planes[item.part or 0] = labels
    name = called_as_a_whole("nifti", [item for item, _ in members])
    with atomic_write(file_for(out, name, ".nii.gz")) as target:
        # The library goes by the whole ending, of which the target has the last part.
        named = target.with_name(f"{target.name}.nii.gz")
        nifti.write_labels(named, planes, source)
        named.replace(target)


def _series(members: _Members, classes: ClassTable, out: Path) -> None:
    by_file = {item.image: (item, mask) for item, mask in members}
    files, planes = dicom.series(list(by_file)), []
    for file in files:
        mask = by_file[file][1]
        labels = read_mask(mask)
        _refuse_size(mask, labels.shape, dicom.size(file, 1 << 62))
        planes.append(labels)
    name = called_as_a_whole("dicom", [item for item, _ in members])
    with atomic_write(file_for(out, name, ".dcm")) as target:
        dicom.write_segments(target, np.stack(planes), files, classes.names)


def _scan(members: _Members, classes: ClassTable, out: Path) -> None:
    source, side = members[0][0].image, slide.TILE
    name = called_as_a_whole("slide", [item for item, _ in members])
    target = file_for(out, name, ".tif")
    masks = {item.part: mask for item, mask in members}
    with (
        open_slide(source, None) as scan,
        new_raster(target, scan.grid, IGNORE, classes.palette, pyramid=True) as made,
    ):
        columns = -(-scan.width // side)
        for row in range(-(-scan.height // side)):
            for column in range(columns):
                top, left = row * side, column * side
                height, width = min(side, scan.height - top), min(side, scan.width - left)
                mask = masks.get(row * columns + column)
                labels = np.zeros((side, side), np.uint8)
                if mask is not None:
                    labels = read_mask(mask)
                    _refuse_size(mask, labels.shape, (side, side))
                elif scan.is_wanted(top, left, height, width):
                    labels[:] = IGNORE
                window = ((top, top + height), (left, left + width))
                made.write(labels[:height, :width], 1, window=window)
    write_annotations(target, classes, file_for(out, name, ".geojson"))


def _refuse_size(mask: Path, found: tuple[int, ...], wanted: tuple[int, int]) -> None:
    if found != wanted:
        raise DataError(
            f"{mask} is {found[1]} x {found[0]}, but its image {wanted[1]} x {wanted[0]}; export masks of "
            "the images' own size"
        )


_WRITERS: dict[str, Callable[[_Members, ClassTable, Path], None]] = {
    "geotiff": _scene,
    "nifti": _volume,
    "dicom": _series,
    "slide": _scan,
}

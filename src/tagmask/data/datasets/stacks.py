"""Files that hold many images: volumes as one image a slice, scans as one a tile that shows tissue."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tagmask.data.base import Item, Problem
from tagmask.data.readers import dicom, nifti, slide
from tagmask.data.readers.images import IMAGE_SUFFIXES
from tagmask.data.readers.pixels import file_kind
from tagmask.errors import DataError

__all__ = ["by_file", "called_as_a_whole", "is_stack", "one_a_slice", "stack_of"]

_TILE = re.compile(
    rf"(.+(?:{'|'.join(map(re.escape, (*slide.ENDINGS, '.tif', '.tiff')))}))/(\d+)-(\d+)", re.IGNORECASE
)
_SLICE = re.compile(r"(.+\.nii(?:\.gz)?)/(\d+)", re.IGNORECASE)


def is_stack(name: str) -> bool:
    """Whether a file's name is that of a volume, of a slice of one, or of a scan."""
    return name.lower().endswith((*nifti.ENDINGS, *dicom.ENDINGS, *slide.ENDINGS))


def stack_of(folder: Path, written: str) -> Path | None:
    """What a row of a tag file names if that is no single picture.

    Args:
        folder: The image folder.
        written: The row's path: ``head.nii.gz/12`` (slice 12, from 0), ``scan.svs/3-17`` (the tile in row 3
            and column 17, from 0), or a folder of DICOM files.

    Returns:
        ``head.nii.gz/12`` below the folder, or the folder; None for anything else.
    """
    found = _SLICE.fullmatch(written) or _TILE.fullmatch(written)
    if found is not None:
        return folder / written if (folder / found[1]).is_file() else None
    place = folder / written
    holds = place.is_dir() and any(p.suffix.lower() in dicom.ENDINGS for p in place.iterdir())
    return place if holds else None


def by_file(items: Iterable[Item]) -> dict[tuple[str, str], list[Item]]:
    """Images by the file or series they are of: (kind of file, which one) to its images.

    Raises:
        DataError: A file is missing or damaged.
    """
    found: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        kind = file_kind(item.image)
        together = dicom.series_of(item.image) if kind == "dicom" else str(item.image)
        found.setdefault((kind, together), []).append(item)
    return found


def called_as_a_whole(kind: str, members: Sequence[Item]) -> str:
    """What the mask of a whole file or series is called, without ending.

    Args:
        kind: What the file is, see `tagmask.data.readers.pixels.file_kind`.
        members: Its images.
    """
    first = members[0]
    folder = first.name.rpartition("/")[0]
    if kind in ("nifti", "slide"):
        return folder
    if kind == "dicom" and len(members) > 1:
        return folder or first.image.parent.name
    return first.name


def one_a_slice(items: Sequence[Item], folder: Path) -> tuple[list[Item], list[Problem]]:
    """Items with every volume replaced by its slices, which are called ``NAME/0000`` and so on.

    A scan is replaced by its tiles that show tissue, called by row and column: ``NAME/0003-0017``. Every
    slice and tile has the tags of its file, unless a row names it itself.

    Args:
        items: What a scan found.
        folder: The image folder.

    Returns:
        The items, and problems with volumes that cannot be read.
    """
    if all(i.image.suffix.lower() in IMAGE_SUFFIXES and not slide.may_be(i.image) for i in items):
        return list(items), []
    found: dict[str, Item] = {}
    problems: list[Problem] = []
    single: set[str] = set()
    for item in items:
        try:
            slices = list(_slices(item, folder))
        except DataError as error:
            problems.append(Problem("unreadable image", item.name, str(error)))
            continue
        for one in slices:
            if one.name not in single:
                found[one.name] = one
        written = item.image.as_posix()
        if len(slices) == 1 and (_SLICE.fullmatch(written) or _TILE.fullmatch(written)):
            single.add(slices[0].name)
            found[slices[0].name] = slices[0]
    return list(found.values()), problems


def _slices(item: Item, folder: Path) -> Iterator[Item]:
    path = item.image
    written = _SLICE.fullmatch(path.as_posix())
    if written is not None:
        volume, part = Path(written[1]), int(written[2])
        if part >= nifti.count(volume):
            raise DataError(f"{volume} has slices 0 to {nifti.count(volume) - 1}, not {part}")
        yield replace(item, name=f"{_called(volume, folder)}/{part:04d}", image=volume, part=part)
    elif (tile := _TILE.fullmatch(path.as_posix())) is not None:
        scan, row, column = Path(tile[1]), int(tile[2]), int(tile[3])
        name = f"{_called(scan, folder)}/{row:04d}-{column:04d}"
        yield replace(item, name=name, image=scan, part=slide.part_of(scan, row, column))
    elif slide.may_be(path) and file_kind(path) == "slide":
        shown = slide.tiles(path)
        if not shown:
            raise DataError(f"{path} shows no tissue; tag its tiles by name ({path.name}/ROW-COLUMN)")
        for row, column in shown:
            name = f"{_called(path, folder)}/{row:04d}-{column:04d}"
            yield replace(item, name=name, part=slide.part_of(path, row, column))
    elif path.name.lower().endswith(nifti.ENDINGS):
        for part in range(nifti.count(path)):
            yield replace(item, name=f"{_called(path, folder)}/{part:04d}", part=part)
    elif path.suffix.lower() not in IMAGE_SUFFIXES and path.is_dir():
        files = [p for p in sorted(path.iterdir()) if p.suffix.lower() in dicom.ENDINGS]
        for number, file in enumerate(dicom.series(files)):
            yield replace(item, name=f"{path.relative_to(folder).as_posix()}/{number:04d}", image=file)
    else:
        yield item


def _called(volume: Path, folder: Path) -> str:
    name = volume.relative_to(folder).as_posix()
    ending = next((e for e in sorted(nifti.ENDINGS, key=len, reverse=True) if name.lower().endswith(e)), None)
    return name[: -len(ending or volume.suffix)]

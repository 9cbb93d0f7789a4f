"""Annotations that people made or corrected elsewhere, as labels of known images."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from tagmask.annotations import formats
from tagmask.annotations.formats.base import Found, Images, Tally
from tagmask.annotations.native import read_native
from tagmask.data import ClassTable, TagDataset
from tagmask.data.base import Item
from tagmask.data.classes import read_class_file
from tagmask.data.datasets.listing import unique_names
from tagmask.data.readers.archive import FileTree, FolderTree, ZipTree, open_tree
from tagmask.data.readers.images import IMAGE_SUFFIXES
from tagmask.data.readers.pixels import is_photograph, pixel_size
from tagmask.data.readers.regular import read_text
from tagmask.errors import ConfigError, DataError, nearest, one_line

__all__ = ["Subjects", "Tally", "find_subjects", "predicted_subjects", "read_annotations"]


@dataclass(frozen=True)
class Subjects:
    """The images that masks belong to.

    Attributes:
        classes: What the labels mean.
        files: Name of an image to its path below the image folder, with ending; of what no tool shows (16
            bits, slices, tiles) to that of the PNG that `tagmask.annotations.exchange.write_pictures` makes.
        sizes: Name of an image to a function that gives its (height, width).
        dataset: The data set they are of, which masks in the grid of its files need.
    """

    classes: ClassTable
    files: Mapping[str, str]
    sizes: Mapping[str, Callable[[], tuple[int, int]]]
    dataset: TagDataset | None = None

    @classmethod
    def of_dataset(cls, dataset: TagDataset) -> Subjects:
        """The images of a data set."""
        files = {item.name: _with_ending(item) for item in dataset.items}
        if dataset.reading is not None:
            files |= {i.name: f"{i.name}.png" for i in dataset.items if not is_photograph(i.image)}
        sizes = {item.name: partial(dataset.size, index) for index, item in enumerate(dataset.items)}
        return cls(dataset.classes, files, sizes, dataset)


def _with_ending(item: Item) -> str:
    # Pictures that differ in their ending only bear it in their name.
    name, image = item.name, item.image
    return name if PurePosixPath(name).name == image.name else name + image.suffix


def find_subjects(images: Path, classes: ClassTable) -> Subjects:
    """The pictures of a folder.

    Raises:
        DataError: There are none.
    """
    if not images.is_dir():
        raise DataError(f"{images} is no folder of images")
    found = [n for n in FolderTree(images).names if Path(n).suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise DataError(f"{images} holds no pictures")
    files = dict(zip(unique_names(found), found, strict=True))
    return Subjects(classes, files, {n: partial(pixel_size, images / f) for n, f in files.items()})


def predicted_subjects(folder: Path) -> Subjects:
    """The images of a folder that `tagmask predict` wrote.

    Raises:
        DataError: Its summary cannot be read.
    """
    classes = read_class_file(folder / "classes.txt")
    files: dict[str, str] = {}
    sizes: dict[str, Callable[[], tuple[int, int]]] = {}
    try:
        for line in read_text(folder / "summary.jsonl", inside=folder).splitlines():
            row = json.loads(line)
            files[row["name"]] = row["file"]
            sizes[row["name"]] = partial(_same, (int(row["height"]), int(row["width"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / 'summary.jsonl'} cannot be read: {error}") from None
    return Subjects(classes, files, sizes)


def _is_native(source: Path) -> bool:
    """Whether a folder holds masks as scenes, volumes or scans, and nothing that a tool writes."""
    if not source.is_dir():
        return False
    endings = {path.suffix.lower() for path in source.rglob("*") if path.is_file()}
    return bool(endings & {".tif", ".nii", ".gz", ".dcm"}) and not endings & {".png", ".json", ".txt", ".xml"}


def _native(source: Path, subjects: Subjects, tally: Tally) -> Iterator[Found]:
    if subjects.dataset is None:
        raise ConfigError("native masks are corrected masks of a run's images: name the run folder")
    yield from read_native(source, subjects.dataset.items, subjects.classes, tally)


def _same(size: tuple[int, int]) -> tuple[int, int]:
    return size


def read_annotations(
    source: Path,
    subjects: Subjects,
    name: str | None = None,
    empty: Collection[str] = (),
    tally: Tally | None = None,
) -> Iterator[Found]:
    """Labels of the images that somebody annotated, one image at a time.

    What nobody looked at is not empty: images without annotation, skipped ones and those with boxes only are
    left out.

    Args:
        source: A folder, a zip archive or a JSON file.
        subjects: The images they may be about.
        name: The format, or "native"; told by the look of the files if None.
        empty: Images that are background all over where nobody drew anything; "all" means every one.
        tally: Takes what was left out.

    Yields:
        Name of an image, and its labels in its size.

    Raises:
        ConfigError: An image that shall be empty is unknown.
        DataError: The files cannot be read, are not to be trusted, or do not fit images and classes.
    """
    wanted = None if "all" in empty else frozenset(empty)
    for one in sorted(wanted or ()):
        if one not in subjects.sizes:
            raise ConfigError(f"there is no image '{one}'. {nearest(one, list(subjects.sizes)[:50])}")
    tally = tally or Tally()
    if name == "native" or (name is None and _is_native(source)):
        yield from _native(source, subjects, tally)
        return
    images = Images(subjects.classes, subjects.sizes, subjects.files, wanted, tally)
    tree = open_tree(source)
    try:
        if tree.refused:
            path, reason = tree.refused[0]
            raise DataError(f"{source}: '{path}' {reason}; nothing was imported")
        if isinstance(tree, FileTree) and source.suffix.lower() != ".json":
            raise DataError(f"{source} is neither a folder, a .zip nor a .json")
        module = formats.get(name or formats.detect(tree))
        try:
            yield from module.read(tree, images)
        except DataError as error:
            raise DataError(f"{source}: {error}") from None
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise DataError(f"{source} is damaged, or of another format ({reason})") from None
    finally:
        if isinstance(tree, ZipTree):
            tree.close()

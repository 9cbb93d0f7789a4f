"""Masks to the files of annotation tools, and what was corrected there back to masks."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tagmask import formats
from tagmask.data import ClassTable, TagDataset
from tagmask.data.archive import FileTree, FolderTree, ZipTree, open_tree
from tagmask.data.classes import read_class_file
from tagmask.data.images import IMAGE_SUFFIXES, MAX_PIXELS, read_indices, read_size
from tagmask.data.writing import png_bytes
from tagmask.engine.log import Display
from tagmask.errors import ConfigError, DataError
from tagmask.formats.base import Found, Images, Labelled, Put
from tagmask.store.files import atomic_write, file_for

__all__ = [
    "Subjects",
    "export_masks",
    "find_subjects",
    "import_masks",
    "predicted_subjects",
    "read_annotations",
]

_EXACT = ("coco", "cvat", "cvat-coco", "label-studio", "labelme", "voc")
_POLYGONS = ("coco", "cvat-coco", "labelme", "yolo")


@dataclass(frozen=True)
class Subjects:
    """The images that masks belong to.

    Attributes:
        classes: What the labels mean.
        files: Name of an image to its path below the image folder, with ending.
        sizes: Name of an image to a function that gives its (height, width).
    """

    classes: ClassTable
    files: Mapping[str, str]
    sizes: Mapping[str, Callable[[], tuple[int, int]]]

    @classmethod
    def of_dataset(cls, dataset: TagDataset) -> Subjects:
        """The images of a data set."""
        files = {item.name: item.name + item.image.suffix for item in dataset.items}
        sizes = {item.name: partial(read_size, item.image) for item in dataset.items}
        return cls(dataset.classes, files, sizes)


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
    files = {Path(name).with_suffix("").as_posix(): name for name in found}
    return Subjects(classes, files, {n: partial(read_size, images / f) for n, f in files.items()})


def predicted_subjects(folder: Path) -> Subjects:
    """The images of a folder that `tagmask predict` wrote.

    Raises:
        DataError: Its summary cannot be read.
    """
    classes = read_class_file(folder / "classes.txt")
    files: dict[str, str] = {}
    sizes: dict[str, Callable[[], tuple[int, int]]] = {}
    try:
        for line in (folder / "summary.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            files[row["name"]] = row["file"]
            sizes[row["name"]] = partial(_same, (int(row["height"]), int(row["width"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / 'summary.jsonl'} cannot be read: {error}") from None
    return Subjects(classes, files, sizes)


def _same(size: tuple[int, int]) -> tuple[int, int]:
    return size


def export_masks(
    masks: Path, subjects: Subjects, name: str, out: Path, shapes: str | None, display: Display
) -> dict[str, Any]:
    """Write masks as an annotation tool reads them.

    Args:
        masks: Folder of ``<name>.png``.
        subjects: The images; those without a mask are left out.
        name: The format.
        out: A ``.zip``, a ``.json`` (for formats of one file), or a folder.
        shapes: "exact" or "polygons"; exact where the format can if None.
        display: Progress.

    Returns:
        Figures: images, files.

    Raises:
        UserError: There are no masks, the format is unknown or cannot hold these shapes, or the disk refuses.
    """
    module = formats.get(name)
    shapes = shapes or ("exact" if name in _EXACT and name != "labelme" else "polygons")
    if shapes not in ("exact", "polygons") or name not in (_EXACT if shapes == "exact" else _POLYGONS):
        able = [s for s, able in (("exact", _EXACT), ("polygons", _POLYGONS)) if name in able]
        raise ConfigError(f"{name} cannot hold shapes '{shapes}'; it holds {' and '.join(able)}")
    there = [n for n in sorted(subjects.files) if file_for(masks, n, ".png").is_file()]
    if not there:
        raise DataError(f"{masks} holds no <name>.png for any of {len(subjects.files)} images")
    with _writer(out) as (put, count), display.task("export", len(there)) as task:

        def items() -> Iterator[Labelled]:
            for image in there:
                mask = read_indices(file_for(masks, image, ".png"), max_pixels=10 * MAX_PIXELS)
                yield Labelled(image, subjects.files[image], mask)
                task.advance()

        module.write(items(), subjects.classes, put, shapes)
    return {"images": len(there), "files": count[0], "format": name, "shapes": shapes}


@contextmanager
def _writer(out: Path) -> Iterator[tuple[Put, list[int]]]:
    """A function that takes files, and how many it took; archives and single files appear when complete."""
    count = [0]
    if out.suffix.lower() == ".zip":
        with atomic_write(out) as target, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:

            def pack(path: str, content: bytes) -> None:
                count[0] += 1
                # A fixed date: equal masks give byte-equal archives.
                archive.writestr(zipfile.ZipInfo(path), content, zipfile.ZIP_DEFLATED)

            yield pack, count
        return
    single = out.suffix.lower() == ".json"

    def save(path: str, content: bytes) -> None:
        count[0] += 1
        if single and not path.endswith(".json"):
            return
        if single and count[0] > 1:
            raise ConfigError(
                f"this format needs several files; give a folder or a .zip instead of {out.name}"
            )
        target_path = out if single else file_for(out, path, "")
        with atomic_write(target_path) as target:
            target.write_bytes(content)

    yield save, count


def read_annotations(source: Path, subjects: Subjects, name: str | None = None) -> Iterator[Found]:
    """Labels of the images that some annotations are about, one image at a time.

    Args:
        source: A folder, a zip archive or a JSON file.
        subjects: The images they may be about.
        name: The format; told by the look of the files if None.

    Yields:
        Name of an image, and its labels in its size.

    Raises:
        DataError: The files cannot be read, are not to be trusted, or do not fit images and classes.
    """
    tree = open_tree(source)
    try:
        if tree.refused:
            path, reason = tree.refused[0]
            raise DataError(f"{source}: '{path}' {reason}; nothing was imported")
        if isinstance(tree, FileTree) and source.suffix.lower() != ".json":
            raise DataError(f"{source} is neither a folder, a .zip nor a .json")
        module = formats.get(name or formats.detect(tree))
        try:
            yield from module.read(tree, Images(subjects.classes, subjects.sizes))
        except DataError as error:
            raise DataError(f"{source}: {error}") from None
    finally:
        if isinstance(tree, ZipTree):
            tree.close()


def import_masks(
    source: Path, subjects: Subjects, name: str | None, out: Path, display: Display
) -> dict[str, Any]:
    """Write the masks that some annotations hold, as ``<name>.png``.

    Args:
        source: A folder, a zip archive or a JSON file.
        subjects: The images they may be about.
        name: The format; told by the look of the files if None.
        out: Folder of the masks.
        display: Progress.

    Returns:
        Figures: images.

    Raises:
        UserError: See `read_annotations`; or the disk refuses.
    """
    packed: dict[str, bytes] = {}
    with display.task("import", None) as task:
        for image, mask in read_annotations(source, subjects, name):
            if image in packed:
                raise DataError(f"{source}: there are two sets of annotations for '{image}'")
            # Kept packed until all are read: half an import would look like a whole one.
            packed[image] = png_bytes(mask)
            task.advance()
    for image, content in packed.items():
        with atomic_write(file_for(out, image, ".png")) as target:
            target.write_bytes(content)
    return {"images": len(packed)}

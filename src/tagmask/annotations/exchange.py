"""Masks to the files of annotation tools, and what was corrected there back to masks."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tagmask.annotations import formats
from tagmask.annotations.formats.base import Labelled, Put, Tally
from tagmask.annotations.read import Subjects, read_annotations
from tagmask.data.datasets.writing import png_bytes
from tagmask.data.file_names import legal_part
from tagmask.data.readers.images import MAX_PIXELS, read_indices
from tagmask.data.readers.pixels import is_photograph
from tagmask.engine.log import Display
from tagmask.errors import ConfigError, DataError
from tagmask.store.files import atomic_write, file_for

__all__ = ["export_masks", "import_masks", "write_pictures"]

_EXACT = ("coco", "cvat", "cvat-coco", "label-studio", "labelme", "voc")
_SOME = 3
_POLYGONS = ("coco", "cvat-coco", "labelme", "yolo")


def export_masks(
    masks: Path, subjects: Subjects, name: str, out: Path, shapes: str | None, display: Display
) -> dict[str, Any]:
    """Write masks in the format of an annotation tool.

    Args:
        masks: Folder of ``<name>.png``.
        subjects: The images; those without a mask are left out.
        name: The format.
        out: A ``.zip``, a ``.json`` (for formats of one file), or a folder.
        shapes: "exact" or "polygons"; exact where the format can if None.
        display: Progress.

    Returns:
        Figures: images, without (images that have no mask), files.

    Raises:
        UserError: There are no masks, one is of another size than its image or has a label that is no class,
            the format is unknown or cannot hold these shapes, or the disk refuses.
    """
    module = formats.get(name)
    shapes = shapes or ("exact" if name in _EXACT and name != "labelme" else "polygons")
    if shapes not in ("exact", "polygons") or name not in (_EXACT if shapes == "exact" else _POLYGONS):
        able = [s for s, able in (("exact", _EXACT), ("polygons", _POLYGONS)) if name in able]
        raise ConfigError(f"{name} cannot hold shapes '{shapes}'; it holds {' and '.join(able)}")
    there = [n for n in sorted(subjects.files) if file_for(masks, n, ".png").is_file()]
    if not there and any(path.suffix in (".tif", ".gz", ".dcm") for path in masks.rglob("*")):
        raise DataError(
            f"{masks} holds masks of scenes, volumes or scans, which programs for these open as they are; "
            "annotations are made of a run's masks (tagmask annotate export RUN)"
        )
    if not there:
        raise DataError(f"{masks} holds no <name>.png for any of {len(subjects.files)} images")
    with _writer(out) as (put, count), display.task("export", len(there)) as task:

        def items() -> Iterator[Labelled]:
            for image in there:
                path = file_for(masks, image, ".png")
                mask = read_indices(path, max_pixels=10 * MAX_PIXELS)
                _check(mask, path, image, subjects)
                yield Labelled(image, subjects.files[image], mask)
                task.advance()

        module.write(items(), subjects.classes, put, shapes)
    without = len(subjects.files) - len(there)
    return {"images": len(there), "without": without, "files": count[0], "format": name, "shapes": shapes}


def write_pictures(masks: Path, subjects: Subjects, out: Path, display: Display) -> int:
    """Write the images that no annotation tool shows as 8-bit PNGs, as people see them, and count them.

    Args:
        masks: Folder of ``<name>.png``; images without a mask are left out.
        subjects: The images.
        out: Gets ``<name>.png``, as exported annotations call them.
        display: Progress.

    Raises:
        DataError: An image cannot be read, or the disk refuses.
    """
    dataset = subjects.dataset
    if dataset is None or dataset.reading is None:
        return 0
    there = [
        (index, item.name)
        for index, item in enumerate(dataset.items)
        if not is_photograph(item.image) and file_for(masks, item.name, ".png").is_file()
    ]
    with display.task("pictures", len(there)) as task:
        for index, name in there:
            with atomic_write(file_for(out, name, ".png")) as target:
                Image.fromarray(dataset.picture(index)).save(target, format="PNG")
            task.advance()
    return len(there)


def _check(mask: NDArray[np.uint8], path: Path, image: str, subjects: Subjects) -> None:
    """Refuse a mask that its image or the classes contradict.

    Raises:
        DataError: It is of another size, or has a label that is neither a class nor ignored.
    """
    height, width = subjects.sizes[image]()
    if mask.shape != (height, width):
        raise DataError(
            f"{path} is {mask.shape[1]} x {mask.shape[0]}, but its image {width} x {height}; export masks of "
            "the images' own size"
        )
    last, ignore = subjects.classes.num_classes, subjects.classes.ignore_index
    wrong = [label for label in np.unique(mask).tolist() if label > last and label != ignore]
    if wrong:
        raise DataError(f"{path} holds the label {wrong[0]}; allowed are 0 to {last} and {ignore}")


def _coded(name: str) -> str:
    return "/".join(legal_part(part) for part in name.split("/"))


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


def import_masks(
    source: Path,
    subjects: Subjects,
    name: str | None,
    out: Path,
    display: Display,
    empty: Collection[str] = (),
) -> dict[str, Any]:
    """Write the masks that some annotations hold, as ``<name>.png``.

    Args:
        source: A folder, a zip archive or a JSON file.
        subjects: The images they may be about.
        name: The format; told by the look of the files if None.
        out: Folder of the masks.
        display: Progress.
        empty: Images that are background all over where nobody drew anything; "all" means every one.

    Returns:
        Figures: images, left (what was left out, in words).

    Raises:
        UserError: See `read_annotations`; nobody annotated anything; or the disk refuses.
    """
    packed: dict[str, bytes] = {}
    tally = Tally()
    with display.task("import", None) as task:
        for image, mask in read_annotations(source, subjects, name, empty, tally):
            if image in packed:
                raise DataError(f"{source}: there are two sets of annotations for '{image}'")
            # Kept packed until all are read: half an import would look like a whole one.
            packed[image] = png_bytes(mask)
            task.advance()
    if tally.outlines >= _SOME and tally.rectangles == tally.outlines:
        tally.said.append(
            f"all {tally.outlines} outlines are rectangles: if they are boxes, the pixels in their "
            "corners count as the object"
        )
    for line in tally.said:
        display.say(line)
    if not packed:
        raise DataError(
            f"{source} has no annotated image ({tally.text() or 'nothing in it'}); images that you looked at "
            "and found empty are taken with --empty NAME or --empty all"
        )
    codes = Counter(map(_coded, subjects.sizes))
    for image, content in packed.items():
        path = file_for(out, image, ".png")
        # Called like its picture, which lies here under this name, unless that is the code of another's.
        if os.name != "nt" and codes[image] == (_coded(image) == image):
            path = out / f"{image}.png"
        with atomic_write(path) as target:
            target.write_bytes(content)
    return {"images": len(packed), "left": tally.text()}

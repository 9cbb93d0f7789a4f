"""Images that are in one sub-folder per class."""

from __future__ import annotations

from pathlib import Path

from tagmask.data.base import Problem
from tagmask.data.classes import ClassTable, class_table
from tagmask.data.datasets.listing import class_folders, pictures_below
from tagmask.data.datasets.splits import part_folders, part_name
from tagmask.errors import DataError, nearest

__all__ = ["NO_CLASS", "Tagged", "folders_of", "pictures_of"]

NO_CLASS = "_none"
"""Name of the folder for images without any class."""
Tagged = tuple[list[Path], list[tuple[int, ...]]]
"""Picture files, and the classes of each."""


def folders_of(root: Path, split: str | None) -> tuple[Path, list[Path]]:
    """The folders that are named after classes, and the one that they are in.

    Args:
        root: Folder of the data set; ``train``, ``val`` (or ``valid``), ``test`` and ``images`` may be above
            the classes.
        split: Part of it; None for all there is.

    Raises:
        DataError: There is no such part, or no folder.
    """
    home = root
    if not part_folders(root) and not class_folders(root) and (root / "images").is_dir():
        home = root / "images"
    parts = {} if _is_class(home) else part_folders(home)
    wanted = None if split in (None, "all") else part_name(str(split))
    if parts and wanted is not None and wanted not in parts:
        raise DataError(f"{home} has no folder '{split}'. {nearest(str(split), list(parts))}")
    if not parts and wanted not in (None, "train"):
        raise DataError(f"{root} has no folder for split '{split}': all its images are split train")
    if not parts:
        return home, class_folders(home)
    chosen = [p for part, found in parts.items() if wanted in (None, part) for p in found]
    home = chosen[0] if wanted is not None and len(chosen) == 1 else home
    inner = [p / "images" if not class_folders(p) and (p / "images").is_dir() else p for p in chosen]
    if len(inner) == 1 and home == chosen[0]:
        home = inner[0]
    return home, sorted(folder for p in inner for folder in class_folders(p))


def _is_class(home: Path) -> bool:
    """Whether a folder "train" is of trains: it holds no folders, and those beside it are no parts."""
    parts = part_folders(home)
    others = [p for p in class_folders(home) if p not in (q for found in parts.values() for q in found)]
    return set(parts) == {"train"} and bool(others) and not class_folders(parts["train"][0])


def pictures_of(
    folders: list[Path], root: Path, given: ClassTable | None, problems: list[Problem]
) -> tuple[ClassTable, Tagged]:
    """The pictures of class folders.

    Args:
        folders: See `folders_of`.
        root: Folder of the data set.
        given: Classes that a user named.
        problems: Gets folders that are no class, and those without a picture.

    Raises:
        DataError: No folder is named after a class.
    """
    names = sorted({p.name for p in folders} - {NO_CLASS})
    if not names:
        raise DataError(
            f"{root} holds neither a tag file (tags.csv, tags.jsonl) nor a sub-folder per class; "
            f"{_known(root)}name the file with --tags FILE or use --tags none for images without tags"
        )
    classes = given or class_table(names, root)
    images: list[Path] = []
    tags: list[tuple[int, ...]] = []
    for folder in folders:
        if folder.name != NO_CLASS and folder.name not in classes.names:
            detail = f"folder {folder} is not named after a class. {nearest(folder.name, classes.names)}"
            problems.append(Problem("unknown tag", folder.name, detail))
            continue
        inside = pictures_below(folder, root, problems)
        if not inside and folder.name != NO_CLASS:
            problems.append(Problem("empty class folder", folder.name, f"{folder} holds no picture"))
        images += inside
        tags += [() if folder.name == NO_CLASS else (classes.index(folder.name),)] * len(inside)
    return classes, (images, tags)


def _known(root: Path) -> str:
    """What a folder without tags seems to be, and what to do about it; empty if nobody knows."""
    places = [root, *(p for found in part_folders(root).values() for p in found)]
    flags = next((p / "_classes.csv" for p in places if (p / "_classes.csv").is_file()), None)
    if flags is not None:
        return (
            f"{flags.relative_to(root)} is a table of Roboflow: export COCO Segmentation there, or write one "
            "row per image (image,tags) with the names of its classes; "
        )
    if (root / "data.yaml").is_file() or (root / "labels").is_dir():
        return (
            "YOLO's labels are read as masks (tagmask annotate import) but not as tags: write one row per "
            "image (image,tags) with the names of its classes; "
        )
    return ""

"""Images that lie in one sub-folder per class."""

from __future__ import annotations

from pathlib import Path

from tagmask.data.base import Problem
from tagmask.data.classes import ClassTable, class_table
from tagmask.data.datasets.listing import class_folders, pictures_below
from tagmask.errors import DataError, nearest

__all__ = ["NO_CLASS", "Tagged", "folders_of", "pictures_of"]

NO_CLASS = "_none"
"""Name of the folder for images without any class."""
Tagged = tuple[list[Path], list[tuple[int, ...]]]
"""Picture files, and the classes of each."""


def folders_of(root: Path, split: str | None) -> tuple[Path, list[Path]]:
    """The folders that are named after classes, and the one that they lie in.

    Args:
        root: Folder of the data set; ``train``/``val``/``test`` or ``images`` may lie above the classes.
        split: Part of it; None for all there is.

    Raises:
        DataError: There is no such part, or no folder.
    """
    parts = [p.name for p in (root / "train", root / "val", root / "test") if p.is_dir()]
    home = root
    if parts and split not in (None, "all"):
        if split not in parts:
            raise DataError(f"{root} has no folder '{split}'. {nearest(str(split), parts)}")
        home = root / str(split)
    elif split not in (None, "all", "train"):
        raise DataError(f"{root} has no folder for split '{split}': all its images are split train")
    folders = class_folders(home)
    if not folders and (home / "images").is_dir():
        home = home / "images"
        folders = class_folders(home)
    if parts and home == root:
        folders = sorted(p for part in parts for p in class_folders(root / part))
    return home, folders


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
            "name the file with --tags FILE or use --tags none for images without tags"
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

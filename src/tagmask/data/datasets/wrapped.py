"""A folder that holds nothing but a folder with a whole data set, as archives are often unpacked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tagmask.data.base import Source
from tagmask.data.classes import ClassTable
from tagmask.data.datasets.listing import class_folders
from tagmask.data.datasets.splits import EVERY_TAG_FILE, part_folders
from tagmask.data.readers.images import IMAGE_SUFFIXES
from tagmask.errors import DataError

__all__ = ["refuse_wrapped"]

_SHOWN = 4


def refuse_wrapped(source: Source, folders: list[Path], given: ClassTable | None) -> None:
    """Take no data set for a class that is called like its folder.

    Args:
        source: Its root holds one folder, perhaps.
        folders: Those that are named after classes.
        given: Classes that a user named; what is one of them is a class.

    Raises:
        DataError: The only folder is a data set itself, or may be one.
    """
    if len(folders) != 1 or folders[0].parent != source.root:
        return
    inner = folders[0]
    if (given is not None and inner.name in given.names) or _pictures(source.root):
        return
    start = f"{source.root} holds nothing but the folder {inner.name}"
    one = "if it is one class, name it in a file: --classes FILE"
    if (sign := _sign(replace(source, root=inner))) is not None:
        raise DataError(f"{start}, which is a data set itself (it holds {sign}); give {inner}; {one}")
    parts = [path for found in part_folders(inner).values() for path in found]
    below = [path for path in class_folders(inner) if path not in parts]
    if len(below) > 1 and not _pictures(inner) and all(map(_pictures, below)):
        names = ", ".join(path.name for path in below[:_SHOWN]) + ", ..." * (len(below) > _SHOWN)
        raise DataError(
            f"{start}, which may be a class or hold the classes {names}; if they are the classes, give "
            f"{inner}; {one}"
        )


def _pictures(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir())


def _sign(source: Source) -> str | None:
    """What shows that a folder is a data set; None if nothing does."""
    from tagmask.data import find_kind

    kind = find_kind(source)
    if kind != "folder":
        return f"one of kind {kind}"
    file = next((name for name in EVERY_TAG_FILE if (source.root / name).is_file()), None)
    if file is not None:
        return file
    if (source.root / "images").is_dir():
        return "a folder images"
    parts = part_folders(source.root)
    if len(parts) > 1 and any(map(class_folders, parts.get("train", ()))):
        return f"the folders {', '.join(p.name for found in parts.values() for p in found)}"
    return None

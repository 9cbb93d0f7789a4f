"""Where instances files and images of a data set in COCO's form are: as released, or as Roboflow has it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from tagmask.data.base import Source
from tagmask.data.datasets.splits import part_folders, part_name
from tagmask.errors import DataError

__all__ = ["image_folder", "instances_file", "listing", "roboflow_files"]

_ROBOFLOW = "_annotations.coco.json"


def roboflow_files(root: Path) -> dict[str, Path]:
    """Part to ``<part>/_annotations.coco.json``; "train" where one is in the folder itself."""
    found = {
        part: next((p / _ROBOFLOW for p in folders if (p / _ROBOFLOW).is_file()), None)
        for part, folders in part_folders(root).items()
    }
    parts = {part: path for part, path in found.items() if path is not None}
    if not parts and (root / _ROBOFLOW).is_file():
        return {"train": root / _ROBOFLOW}
    return parts


def instances_file(source: Source) -> tuple[Path, str]:
    """The instances file and the split it is about.

    Raises:
        DataError: There is none, or more than one.
    """
    wanted = source.split or "train"
    base = wanted.removesuffix("_all").removesuffix("_part")
    if source.tags is not None:
        path = Path(str(source.tags).replace("{split}", base))
        if path.suffix != ".json":
            raise DataError(f"COCO tags come from an instances json; got '{source.tags}'")
        return path, base
    folder = source.root / "annotations"
    found = sorted(folder.glob(f"instances_{base}*.json"))
    if not found and source.split is None:
        found = sorted(folder.glob("instances_*.json"))
        base = found[0].stem.removeprefix("instances_").rstrip("0123456789") if found else base
    if not found and (parts := roboflow_files(source.root)):
        return _of_part(source, parts, part_name(base))
    if len(found) != 1:
        known = [p.name for p in sorted(folder.glob("*.json"))]
        state = "several of" if found else "no"
        raise DataError(
            f"{folder} has {state} instances_{base}*.json (it has: {', '.join(known) or 'nothing'}); "
            "ask for another split or name the file with --tags FILE"
        )
    return found[0], base


def _of_part(source: Source, parts: dict[str, Path], base: str) -> tuple[Path, str]:
    if base not in parts and source.split is None:
        base = next(iter(parts))
    if base not in parts:
        raise DataError(f"{source.root} has {_ROBOFLOW} for {', '.join(parts)}, not for the split '{base}'")
    return parts[base], base


def image_folder(root: Path, base: str, rows: Sequence[Any], path: Path) -> Path:
    """The folder that the file names of an instances file begin in.

    Args:
        root: Of the data set.
        base: The split.
        rows: Images, their file names first.
        path: The instances file.
    """
    full = f"{base}2014"
    places = (full, f"images/{full}", f"JPEGImages/{full}", f"JPEGImages/{base}", f"images/{base}")
    folders = [root / place for place in (*places, base, "images", ".")]
    if path.name == _ROBOFLOW:
        folders.insert(0, path.parent)
    first = next((f for f in folders if rows and (f / rows[0][0]).is_file()), None)
    return first or next((f for f in folders if f.is_dir()), root)


def listing(folder: Path, rows: Sequence[Any]) -> set[str]:
    """Which of the files exist, with one listing per folder instead of one question per file."""
    parents = {PurePosixPath(row[0]).parent for row in rows}
    found = set()
    for parent in parents:
        inside = folder / parent
        found |= {(parent / p.name).as_posix() for p in inside.iterdir()} if inside.is_dir() else set()
    return found

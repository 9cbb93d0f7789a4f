"""What is in a data set's folders, and what of it is not to be opened: the same for every kind."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from tagmask.data.base import Problem, Scan, Source
from tagmask.data.datasets.stacks import is_stack
from tagmask.data.file_names import unusable
from tagmask.data.readers.archive import FolderTree
from tagmask.data.readers.images import FOREIGN_SUFFIXES, IMAGE_SUFFIXES, foreign
from tagmask.data.readers.regular import Inside, check_regular, irregular, is_output
from tagmask.errors import printable

__all__ = ["class_folders", "distrusted", "own_file", "pictures_below", "unique_names"]


def own_file(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of some files that is in a folder.

    Raises:
        DataError: It is no plain file, or a link that leads out of the folder.
    """
    path = next((folder / name for name in names if os.path.lexists(folder / name)), None)
    if path is not None:
        check_regular(path, inside=folder)
    return path


def pictures_below(folder: Path, root: Path, problems: list[Problem]) -> list[Path]:
    """Picture files below a folder, sorted, without hidden ones and tagmask's own outputs.

    Args:
        folder: The folder.
        root: Links may lead to what is in here.
        problems: Gets what cannot be read, and notes about pictures of formats that are not read.
    """
    tree = FolderTree(folder, within=root)
    problems += [Problem("not read", name, reason) for name, reason in tree.refused]
    foreign: dict[str, list[str]] = {}
    for name in tree.names:
        if (ending := PurePosixPath(name).suffix.lower()) in FOREIGN_SUFFIXES:
            foreign.setdefault(ending, []).append((folder / name).relative_to(root).as_posix())
    problems += [
        Problem("picture of an unknown format", ending, _left_out(names, ending), fatal=False)
        for ending, names in foreign.items()
    ]
    return [
        folder / name
        for name in tree.names
        if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES or is_stack(name)
    ]


def _left_out(names: Sequence[str], ending: str) -> str:
    return f"{len(names)} files, the first {names[0]}: each {foreign(ending)}; left out"


def class_folders(root: Path) -> list[Path]:
    """Sub-folders that may be named after a class: not hidden, not those of masks, not tagmask's own.

    Nor one called "labels" that holds no picture: YOLO's text files are in it.
    """
    found = (p for p in root.iterdir() if p.is_dir() and p.name not in ("images", "masks"))
    found = (p for p in found if not p.name.startswith(".") and not is_output(p))
    return sorted(p for p in found if p.name != "labels" or pictures_below(p, root, []))


def distrusted(scan: Scan, source: Source) -> Scan:
    """A scan with a problem for every file that must not be opened, and without the items it belongs to.

    That are links that lead out of the folders that were named (once for each folder), pipes, sockets and
    devices, and images whose names no file can have.
    """
    roots = [root for root in (source.root, source.mask_folder, scan.home) if root is not None]
    inside = Inside(roots)
    folders: Counter[tuple[Path, str]] = Counter()
    problems, items = [], []
    for item in scan.items:
        reasons = [
            (path, reason)
            for path in (item.image, item.mask)
            if path is not None and any(path.is_relative_to(root) for root in roots)
            if (reason := _reason(path, inside)) is not None
        ]
        if (unfit := unusable(item.name)) is not None:
            problems.append(Problem("name that cannot be used", printable(item.name), unfit))
        for path, reason in reasons:
            if path.is_symlink() or "link" not in reason:
                problems.append(Problem("not read", printable(item.name), f"{printable(str(path))} {reason}"))
            else:
                folders[path.parent, reason.replace(f"{os.sep}{path.name}", "", 1)] += 1
        if unfit is None and not reasons:
            items.append(item)
    problems += list(_of_folders(folders))
    return replace(scan, items=tuple(items), problems=(*scan.problems, *problems)) if problems else scan


def _of_folders(folders: Counter[tuple[Path, str]]) -> Iterator[Problem]:
    for (folder, reason), count in folders.items():
        yield Problem("not read", printable(str(folder)), f"with {count} files, {reason}")


def _reason(path: Path, inside: Inside) -> str | None:
    try:
        mode = os.lstat(path).st_mode
    except (OSError, ValueError):
        return None  # masks that are drawn later; a missing image was named by the scan
    if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
        return irregular(path)
    return inside.reason(path) or (irregular(path) if stat.S_ISLNK(mode) else None)


def unique_names(files: Sequence[str]) -> list[str]:
    """Names of picture files: their paths without ending; with it where two differ in nothing else.

    Args:
        files: Paths below the image folder, "/" between folders.
    """
    short = [PurePosixPath(file).with_suffix("").as_posix() for file in files]
    count = Counter(short)
    names = [name if count[name] == 1 else file for name, file in zip(short, files, strict=True)]
    again = Counter(names)  # "a.jpg" may be a picture without its ending, and one with it
    return [name if again[name] == 1 else file for name, file in zip(names, files, strict=True)]

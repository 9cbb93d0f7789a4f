"""Your own images without code: a folder with a tag file, or with one sub-folder per class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from tagmask.data.base import Item, Problem, Scan, Source
from tagmask.data.classes import ClassTable, class_table, read_class_file
from tagmask.data.datasets.listing import class_folders, own_file, pictures_below, unique_names
from tagmask.data.datasets.tagfile import TagRow, file_split, read_tag_file, split_tags
from tagmask.data.file_names import named_file
from tagmask.data.readers.images import IMAGE_SUFFIXES
from tagmask.data.readers.masks import mask_values
from tagmask.errors import DataError, nearest

__all__ = ["matches", "scan"]

_TAG_FILES = ("tags.csv", "tags.jsonl", "tags.ndjson", "tags.tsv")
_NO_CLASS = "_none"
_UNTAGGED = "none"


def matches(root: Path) -> bool:
    """Any folder can be one of these; other kinds are asked first."""
    return root.is_dir()


def scan(source: Source) -> Scan:
    """Read a folder of images.

    ``source.tags`` is a CSV or JSON-lines file ("{split}" in its name is replaced), the word "none" (all
    images, untagged), or None: ``tags.csv``, ``tags.jsonl`` or ``tags_{split}.csv`` in the root, else one
    sub-folder per class (``_none`` for images without any, ``train``/``val`` above them if present).
    Images lie in ``images/`` or in the root itself; masks in ``masks/``; class names in ``classes.txt``
    in the root or beside the tag file.

    Raises:
        DataError: The tag file or the classes cannot be read, or the split does not exist.
    """
    tags = _tag_file(source)
    if tags is not None:
        return _from_rows(source, tags)
    if source.tags == _UNTAGGED:
        return _untagged(source)
    return _from_class_folders(source)


def _tag_file(source: Source) -> Path | None:
    if source.tags == _UNTAGGED:
        return None
    if source.tags is not None:
        return Path(str(source.tags).replace("{split}", source.split or "train"))
    names = [*_TAG_FILES, *(name.replace(".", f"_{source.split}.") for name in _TAG_FILES if source.split)]
    return own_file(source.root, names)


def _from_rows(source: Source, path: Path) -> Scan:
    rows = read_tag_file(path)
    classes = _classes(source, path, rows)
    chosen, split = _of_split(rows, path, source.split)
    finder = _Finder(_image_folder(source.root))
    problems: list[Problem] = []
    found: dict[Path, TagRow] = {}
    for row in chosen:
        image = finder.find(row, problems)
        if image is None:
            continue
        if image in found:
            detail = f"lines {found[image].line} and {row.line} are about the same image; keep one"
            problems.append(Problem("duplicate row", row.image, detail))
        else:
            found[image] = row
    tags = [_tag_indices(row, classes, problems) for row in found.values()]
    items = _named(list(found), tags, finder.folder)
    return _finish(source, classes, items, split, problems, str(path))


def _of_split(rows: Sequence[TagRow], path: Path, split: str | None) -> tuple[list[TagRow], str]:
    """The rows of a split. Without a split column, a file serves the one its name ends with, or train."""
    if split in (None, "all"):
        return list(rows), file_split(path) or "all"
    known = {row.split for row in rows if row.split is not None}
    if known:
        chosen = [row for row in rows if row.split == split]
        if not chosen:
            raise DataError(
                f"{path} has no rows of split '{split}'. {nearest(str(split), filter(None, known))}"
            )
        return chosen, str(split)
    own = file_split(path) or "train"
    if split != own:
        raise DataError(
            f"{path} has no split column, so it is split '{own}', not '{split}'; name a file of that split, "
            "put {split} into its name, or add the column"
        )
    return list(rows), own


def _tag_indices(row: TagRow, classes: ClassTable, problems: list[Problem]) -> tuple[int, ...]:
    indices = []
    for name in split_tags(row.tags, classes.names):
        if name in classes.names:
            indices.append(classes.names.index(name))
        else:
            detail = f"'{name}' (line {row.line}) is not a class. {nearest(name, classes.names)}"
            problems.append(Problem("unknown tag", row.image, detail))
    return tuple(sorted(indices))


def _classes(source: Source, path: Path, rows: Sequence[TagRow]) -> ClassTable:
    given = _given_classes(source, path.parent)
    if given is not None:
        return given
    every = list(rows)
    if source.tags is not None and "{split}" in str(source.tags):
        # All splits must number their classes alike, so all of them are asked.
        pattern = Path(source.tags)
        for other in sorted(pattern.parent.glob(pattern.name.replace("{split}", "*"))):
            every += read_tag_file(other) if other != path else []
    names = sorted({name for row in every for name in split_tags(row.tags)})
    if not names:
        raise DataError(f"{path} holds no tag at all; at least one image must have one")
    return class_table(names, path)


def _given_classes(source: Source, *folders: Path) -> ClassTable | None:
    if isinstance(source.classes, (str, Path)):
        return read_class_file(source.classes)
    if source.classes is not None:
        return class_table(source.classes, "classes")
    found = next(filter(None, (own_file(f, ["classes.txt"]) for f in (source.root, *folders))), None)
    return None if found is None else read_class_file(found)


def _image_folder(root: Path) -> Path:
    return root / "images" if (root / "images").is_dir() else root


class _Finder:
    """Looks up image files, listing every folder once instead of asking for every file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listed: dict[PurePosixPath, dict[str, list[str]]] = {}

    def find(self, row: TagRow, problems: list[Problem]) -> Path | None:
        written = PurePosixPath(row.image.replace("\\", "/"))
        if not row.image or written.is_absolute() or ".." in written.parts:
            detail = f"line {row.line}: paths must lie below {self.folder}"
            problems.append(Problem("path outside", row.image or "(empty)", detail))
            return None
        stems = self._list(written.parent)
        if written.name in stems.get(written.stem, ()):
            return self.folder / written
        # A name without ending is taken if exactly one picture has it ("a.b" may itself be such a name).
        matching = [n for n in stems.get(written.name, []) if Path(n).suffix.lower() in IMAGE_SUFFIXES]
        if len(matching) == 1:
            return self.folder / written.parent / matching[0]
        problem = "no such file" if not matching else f"could be any of {', '.join(sorted(matching))}"
        problems.append(Problem("missing image", row.image, f"line {row.line}: {problem} in {self.folder}"))
        return None

    def _list(self, sub: PurePosixPath) -> dict[str, list[str]]:
        if sub not in self._listed:
            stems: dict[str, list[str]] = {}
            folder = self.folder / sub
            for name in os.listdir(folder) if folder.is_dir() else ():
                stems.setdefault(PurePosixPath(name).stem, []).append(name)
            self._listed[sub] = stems
        return self._listed[sub]


def _named(images: Sequence[Path], tags: Sequence[tuple[int, ...] | None], folder: Path) -> list[Item]:
    """Items called by their path without ending; with it where two pictures differ in nothing else."""
    names = unique_names([image.relative_to(folder).as_posix() for image in images])
    return [Item(*parts) for parts in zip(names, images, tags, strict=True)]


def _untagged(source: Source) -> Scan:
    classes = _given_classes(source)
    if classes is None:
        raise DataError(
            f"{source.root}: images without tags need the class names (classes.txt or --classes FILE)"
        )
    folder = _image_folder(source.root)
    skip = source.mask_folder or source.root / "masks"
    problems: list[Problem] = []
    images = [p for p in pictures_below(folder, source.root, problems) if not p.is_relative_to(skip)]
    items = _named(images, [None] * len(images), folder)
    return _finish(source, classes, items, source.split or "all", problems, "none")


def _from_class_folders(source: Source) -> Scan:
    root, split = source.root, source.split or "all"
    parts = [p.name for p in (root / "train", root / "val", root / "test") if p.is_dir()]
    if parts and source.split not in (None, "all"):
        if source.split not in parts:
            raise DataError(f"{root} has no folder '{source.split}'. {nearest(str(source.split), parts)}")
        root = root / str(source.split)
    elif source.split not in (None, "all", "train"):
        raise DataError(f"{root} has no folder for split '{source.split}': all its images are split train")
    folders = class_folders(root)
    if not folders and (root / "images").is_dir():
        root = root / "images"
        folders = class_folders(root)
    if parts and root == source.root:
        folders = sorted(p for part in parts for p in class_folders(root / part))
    names = sorted({p.name for p in folders} - {_NO_CLASS})
    if not names:
        raise DataError(
            f"{root} holds neither a tag file ({', '.join(_TAG_FILES[:2])}) nor a sub-folder per class; "
            "name the file with --tags FILE or use --tags none for images without tags"
        )
    classes = _given_classes(source) or class_table(names, root)
    problems: list[Problem] = []
    images: list[Path] = []
    tags: list[tuple[int, ...]] = []
    for folder in folders:
        if folder.name != _NO_CLASS and folder.name not in classes.names:
            detail = f"folder {folder} is not named after a class. {nearest(folder.name, classes.names)}"
            problems.append(Problem("unknown tag", folder.name, detail))
            continue
        inside = pictures_below(folder, source.root, problems)
        if not inside and folder.name != _NO_CLASS:
            problems.append(Problem("empty class folder", folder.name, f"{folder} holds no picture"))
        images += inside
        tags += [() if folder.name == _NO_CLASS else (classes.index(folder.name),)] * len(inside)
    return _finish(source, classes, _named(images, tags, root), split, problems, "sub-folders")


def _finish(
    source: Source, classes: ClassTable, items: list[Item], split: str, problems: list[Problem], origin: str
) -> Scan:
    """Attach masks, note images without tags, and keep where everything came from."""
    folder = source.mask_folder or source.root / "masks"
    if source.masks:
        items, missing = _with_masks(items, folder)
        problems = problems + missing
    problems = problems + [
        Problem("image without tags", item.name, "counts as a negative: none of the classes", fatal=False)
        for item in items
        if item.tags == ()
    ]
    values = source.mask_values or (_beside(source, folder) if source.masks else None)
    about = {
        "kind": "folder",
        "tags": origin,
        "images": str(source.root),
        "masks": str(folder) if source.masks else "not opened",
    }
    return Scan(classes, tuple(items), split, tuple(problems), mask_values(values, classes).read, about)


def _with_masks(items: Sequence[Item], folder: Path) -> tuple[list[Item], list[Problem]]:
    """Items with their masks: ``<name>.png``, also where two pictures differ in their ending only."""
    if not folder.is_dir():
        raise DataError(f"masks are asked for, but there is no folder {folder}; name it with --masks DIR")
    result, problems = [], []
    for item in items:
        mask = named_file(folder, item.name, ".png")
        if mask.is_file():
            result.append(replace(item, mask=mask))
        else:
            result.append(item)
            problems.append(Problem("missing mask", item.name, f"no file {mask}"))
    return result, problems


def _beside(source: Source, masks: Path) -> Path | None:
    """``mask_values.json`` in the root, beside the tag file or among the masks."""
    folders = [source.root, masks, *([Path(source.tags).parent] if source.tags else [])]
    return next(filter(None, (own_file(folder, ["mask_values.json"]) for folder in folders)), None)

"""Your own images without code: a folder with a tag file, or with one sub-folder per class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tagmask.data.base import Item, Problem, Scan, Source
from tagmask.data.classes import ClassTable, class_table, read_class_file
from tagmask.data.datasets.class_folders import folders_of, pictures_of
from tagmask.data.datasets.finder import Finder, look_around
from tagmask.data.datasets.listing import own_file, pictures_below, unique_names
from tagmask.data.datasets.splits import (
    EVERY_TAG_FILE,
    SPLITS,
    TAG_FILES,
    part_folders,
    part_name,
    tag_files,
)
from tagmask.data.datasets.stacks import one_a_slice
from tagmask.data.datasets.tagfile import TagRow, file_split, read_tag_file, split_rows
from tagmask.data.datasets.wrapped import refuse_wrapped
from tagmask.data.file_names import named_file
from tagmask.data.mask_meaning import decide
from tagmask.data.readers.masks import mask_values
from tagmask.errors import DataError, nearest

__all__ = ["matches", "scan"]

_UNTAGGED = "none"


def matches(root: Path) -> bool:
    """Any folder can be one of these; other kinds are asked first."""
    return root.is_dir()


def scan(source: Source) -> Scan:
    """Read a folder of images.

    ``source.tags`` is a CSV or JSON-lines file ("{split}" in its name is replaced), the word "none" (all
    images, untagged), or None: ``tags.csv`` or ``tags.jsonl`` in the root, else ``tags_train.csv``,
    ``tags_val.csv`` and so on, else one sub-folder per class (``_none`` for images without any,
    ``train``/``val`` above them if present). Images lie in ``images/`` or in the root itself; masks in
    ``masks/``; class names in ``classes.txt`` in the root or beside the tag file.

    Raises:
        DataError: The tag file or the classes cannot be read, or the split does not exist.
    """
    if source.tags == _UNTAGGED:
        return _untagged(source)
    tags = _own_tag_files(source)
    return _from_rows(source, tags) if tags else _from_class_folders(source)


@dataclass(frozen=True)
class _TagFile:
    """A tag file, the split of its rows where they name none, and whether its rows are asked for."""

    path: Path
    split: str | None
    chosen: bool = True


def _own_tag_files(source: Source) -> list[_TagFile]:
    """The tag files of a source, the one to begin with first; all of them count for the class names."""
    if source.tags is not None:
        path = Path(str(source.tags).replace("{split}", source.split or "train"))
        others: list[Path] = []
        if "{split}" in str(source.tags):
            pattern = Path(source.tags)
            others = sorted(pattern.parent.glob(pattern.name.replace("{split}", "*")))
        return [_TagFile(path, None), *(_TagFile(p, None, chosen=False) for p in others if p != path)]
    single = own_file(source.root, TAG_FILES)
    if single is not None:
        return [_TagFile(single, None)]
    found = []
    for split in dict.fromkeys((*SPLITS, *([part_name(source.split)] if source.split else []))):
        path_of = own_file(source.root, tag_files(split))
        found += [] if path_of is None else [_TagFile(path_of, split)]
    return found


def _from_rows(source: Source, files: Sequence[_TagFile]) -> Scan:
    path = files[0].path
    given = _given_classes(source, path.parent)
    rows: list[TagRow] = []
    names: dict[int, tuple[str, ...]] = {}  # by the row's identity: rows of two files may be equal
    seen: set[str] = set()
    for file in files:
        read = [
            row if row.split is not None or file.split is None else replace(row, split=file.split)
            for row in read_tag_file(file.path)
        ]
        parted = split_rows(read, file.path, given.names if given else ())
        seen.update(name for tags in parted for name in tags)
        if file.chosen:
            rows += read
            names |= {id(row): tags for row, tags in zip(read, parted, strict=True)}
    if given is None and not seen:
        raise DataError(f"{path} holds no tag at all; at least one image must have one")
    classes = given or class_table(sorted(seen), path)
    chosen, split = _of_split(rows, path, source.split)
    finder = Finder(_image_folder(source.root))
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
    problems += _unasked(rows, files[0].path, source)
    tags = [_tag_indices(row, names[id(row)], classes, problems) for row in found.values()]
    items = _named(list(found), tags, finder.folder, problems)
    origin = (
        str(path) if len(files) == 1 or source.tags else str(path.with_name(f"tags_{{split}}{path.suffix}"))
    )
    every = rows if not source.tags or "{split}" not in str(source.tags) else None
    unsplit = not any(row.split for row in rows) and file_split(path) is None
    scan = _finish(source, classes, items, split, problems, origin, partial(_look, source, every, finder))
    return replace(scan, unsplit=unsplit, about={**scan.about, **_counted(rows)})


def _counted(rows: Sequence[TagRow]) -> dict[str, str]:
    """How many rows each split has, for people; nothing where none is named."""
    counts = Counter(row.split for row in rows if row.split)
    return {"splits": ", ".join(f"{name} {count}" for name, count in counts.items())} if counts else {}


def _unasked(rows: Sequence[TagRow], path: Path, source: Source) -> list[Problem]:
    """Rows that no split holds, and tag files beside the one that is read."""
    split = {row.split for row in rows} - {None, ""}
    detail = "its row names no split, so that neither training nor scoring sees it"
    found = [
        Problem("image without split", r.image, detail, fatal=False) for r in rows if split and not r.split
    ]
    for name in sorted({*filter(None, split)} - {*SPLITS}):
        count = sum(row.split == name for row in rows)
        detail = (
            f"{count} images are of this split, which is used for training or scoring only if you name it"
        )
        found.append(Problem("split of another name", name, detail, fatal=False))
    if source.tags is None and path.stem == "tags":
        beside = [n for n in EVERY_TAG_FILE if n != path.name and (source.root / n).is_file()]
        found += [
            Problem("tag file not read", n, f"{path.name} is there and counts", fatal=False) for n in beside
        ]
    return found


def _look(source: Source, rows: Sequence[TagRow] | None, finder: Finder) -> Sequence[Problem]:
    skip = source.mask_folder or source.root / "masks"
    return look_around(finder.folder, source.root, skip, rows, finder)


def _of_split(rows: Sequence[TagRow], path: Path, split: str | None) -> tuple[list[TagRow], str]:
    """The rows of a split. Without a split column, a file serves the one its name ends with, or train."""
    split = split and part_name(split)
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


def _tag_indices(
    row: TagRow, names: Sequence[str], classes: ClassTable, problems: list[Problem]
) -> tuple[int, ...]:
    indices = []
    for name in names:
        if name in classes.names:
            indices.append(classes.names.index(name))
        else:
            detail = f"'{name}' (line {row.line}) is not a class. {nearest(name, classes.names)}"
            problems.append(Problem("unknown tag", row.image, detail))
    return tuple(sorted(indices))


def _given_classes(source: Source, *folders: Path) -> ClassTable | None:
    if isinstance(source.classes, (str, Path)):
        return read_class_file(source.classes)
    if source.classes is not None:
        return class_table(source.classes, "classes")
    found = next(filter(None, (own_file(f, ["classes.txt"]) for f in (source.root, *folders))), None)
    return None if found is None else read_class_file(found)


def _image_folder(root: Path) -> Path:
    return root / "images" if (root / "images").is_dir() else root


def _named(
    images: Sequence[Path], tags: Sequence[tuple[int, ...] | None], folder: Path, problems: list[Problem]
) -> list[Item]:
    """Items called by their path without ending; with it where two pictures differ in nothing else."""
    names = unique_names([image.relative_to(folder).as_posix() for image in images])
    items, unreadable = one_a_slice([Item(*p) for p in zip(names, images, tags, strict=True)], folder)
    problems += unreadable
    return items


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
    items = _named(images, [None] * len(images), folder, problems)
    return _finish(source, classes, items, source.split or "all", problems, "none")


def _from_class_folders(source: Source) -> Scan:
    root, folders = folders_of(source.root, source.split)
    problems: list[Problem] = []
    given = _given_classes(source)
    refuse_wrapped(source, folders, given)
    classes, (images, tags) = pictures_of(folders, source.root, given, problems)
    items = _named(images, tags, root, problems)
    look = partial(_look, source, None, Finder(root))
    scan = _finish(source, classes, items, source.split or "all", problems, "sub-folders", look)
    return replace(scan, unsplit=not (part_folders(source.root) or part_folders(source.root / "images")))


def _finish(
    source: Source,
    classes: ClassTable,
    items: list[Item],
    split: str,
    problems: list[Problem],
    origin: str,
    look: Callable[[], Sequence[Problem]] = tuple,
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
    given = source.mask_values or (_beside(source, folder) if source.masks else None)
    values = mask_values(given, classes)
    if given is None and source.masks:
        values, unclear = decide(items, classes, values)
        problems += unclear
    about = {
        "kind": "folder",
        "tags": origin,
        "images": str(source.root),
        "masks": str(folder) if source.masks else "not opened",
        **({"mask values": values.text()} if source.masks else {}),
    }
    return Scan(classes, tuple(items), split, tuple(problems), values.read, about, look=look)


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

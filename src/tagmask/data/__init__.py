"""Data sets by kind. A file in `datasets/` with a function `scan` is a kind, its name is the key."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagmask.errors import DataError, nearest

if TYPE_CHECKING:
    from tagmask.data.base import Item, Problem, Scan, Source, TagDataset
    from tagmask.data.classes import ClassTable

__all__ = [
    "ClassTable",
    "Item",
    "TagDataset",
    "as_dataset",
    "find_kind",
    "names",
    "open_dataset",
    "scan_dataset",
]

_GROUP = "tagmask.data"
_CACHES = ("none", "memory")
_HOMES = {"ClassTable": "classes", "Item": "base", "TagDataset": "base"}


def __getattr__(name: str) -> Any:
    # Loaded when first used: listing the kinds must not load PyTorch.
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def names() -> list[str]:
    """Names of all kinds, without importing any; other packages join by the entry point "tagmask.data"."""
    files = (Path(__file__).parent / "datasets").glob("*.py")
    own = {f.stem for f in files if "\ndef scan(source: Source)" in f.read_text(encoding="utf-8")}
    return sorted(own | {point.name for point in entry_points(group=_GROUP)})


def _module(kind: str) -> Any:
    if kind not in names():
        raise DataError(f"unknown kind of data '{kind}'. {nearest(kind, [*names(), 'auto'])}")
    for point in entry_points(group=_GROUP):
        if point.name == kind:
            return point.load()
    return importlib.import_module(f"{__name__}.datasets.{kind}")


def find_kind(source: Source) -> str:
    """The kind a folder looks like; a tag file of one's own decides by its ending.

    Raises:
        DataError: The root is no folder.
    """
    if not source.root.is_dir():
        state = "is no folder" if source.root.exists() else "does not exist"
        raise DataError(f"data root {source.root} {state}")
    ending = Path(source.tags).suffix.lower() if source.tags is not None else ""
    if ending in (".csv", ".tsv", ".jsonl", ".ndjson"):
        return "folder"
    if ending == ".json":
        return "coco"
    for kind in names():
        if kind != "folder" and _module(kind).matches(source.root):
            return kind
    return "folder"


def scan_dataset(kind: str, source: Source) -> Scan:
    """Everything a kind finds at a source, problems included (`open_dataset` refuses on fatal ones).

    Raises:
        DataError: The kind is unknown, or the source cannot even be read.
    """
    if kind == "auto":
        kind = find_kind(source)
    elif not source.root.is_dir():
        find_kind(source)
    result: Scan = _module(kind).scan(source)
    return result


def open_dataset(
    kind: str,
    root: str | Path,
    split: str | None = None,
    *,
    masks: bool = False,
    tags: str | Path | None = None,
    classes: Sequence[str] | str | Path | None = None,
    mask_folder: str | Path | None = None,
    mask_values: Mapping[int | str, str] | str | Path | None = None,
    cache: str = "none",
) -> TagDataset:
    """Open images with their tags.

    Args:
        kind: "folder", "voc", "coco", ..., or "auto" to tell by the look of the root.
        root: Folder of the data set.
        split: Which part: "train", "val", ... as the data set names them; None for all there is.
        masks: True opens the true masks too. For evaluation only: training never does.
        tags: Where tags come from instead of the usual place. A CSV or JSON-lines file; "none" for images
            without tags; for VOC also "xml", "masks" or a published .npy.
        classes: Class names or a file with one a line. For VOC and COCO it picks some of their classes, the
            others become background.
        mask_folder: Where the masks lie, if not in the usual place.
        mask_values: What the numbers in the masks mean, if not the labels themselves: "voc", a mapping such
            as ``{8: "cat", "other": "background"}``, or a JSON file with one.
        cache: "memory" keeps decoded images; "none" reads them every time.

    Returns:
        The data set; its `about` says where everything was found.

    Raises:
        DataError: Something is missing, unknown or contradictory; one message names the first of each kind.
    """
    from tagmask.data.base import Source

    if cache not in _CACHES:
        raise DataError(f"unknown cache '{cache}'. {nearest(cache, _CACHES)}")
    folder = None if mask_folder is None else Path(mask_folder)
    source = Source(Path(root), split, masks, tags, classes, folder, mask_values)
    return as_dataset(scan_dataset(kind, source), source, cache)


def as_dataset(scan: Scan, source: Source, cache: str = "none") -> TagDataset:
    """What a scan found as a data set; masks can be read if `source` asked for them.

    Raises:
        DataError: The scan found something fatal; one message names the first of each kind.
    """
    from tagmask.data.base import TagDataset

    _refuse(scan.problems, source)
    return TagDataset(
        scan.classes,
        scan.items,
        scan.split,
        source.masks,
        read_mask=scan.read_mask if source.masks else None,
        about=scan.about,
        keep_decoded=cache == "memory",
    )


def _refuse(problems: Sequence[Problem], source: Source) -> None:
    fatal = [problem for problem in problems if problem.fatal]
    if not fatal:
        return
    parts = []
    for kind in dict.fromkeys(problem.kind for problem in fatal):
        of_kind = [problem for problem in fatal if problem.kind == kind]
        more = f" (and {len(of_kind) - 1} more)" if len(of_kind) > 1 else ""
        parts.append(f"{kind} '{of_kind[0].name}': {of_kind[0].detail}{more}")
    hint = "; 'tagmask data check' lists all" if len(fatal) > 1 else ""
    raise DataError(f"{source.tags or source.root}: {'; '.join(parts)}{hint}")

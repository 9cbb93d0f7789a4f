"""Data sets by kind: files in `datasets/`, entry points of other packages, and scans registered in code.

The names below are the promise (docs/project/stability.md).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from tagmask.data.datasets.given import Tags, tag_file
from tagmask.data.datasets.hub import data_folder
from tagmask.errors import ConfigError, DataError, nearest
from tagmask.names import deprecated, lazy, points, warn_renamed

if TYPE_CHECKING:
    from tagmask.data.base import Item, Problem, Scan, Source, TagDataset
    from tagmask.data.check import CheckReport
    from tagmask.data.check import check as check_data
    from tagmask.data.classes import ClassTable
    from tagmask.data.levels import Reading
    from tagmask.data.loader import eval_images, train_batches
    from tagmask.data.transforms.base import View, make_view, register_view

__all__ = [
    "CheckReport",
    "ClassTable",
    "Item",
    "Problem",
    "Scan",
    "Source",
    "TagDataset",
    "View",
    "as_dataset",
    "check_data",
    "eval_images",
    "find_kind",
    "list_datasets",
    "make_view",
    "names",
    "open_dataset",
    "register_dataset",
    "register_view",
    "scan_dataset",
    "train_batches",
]

_GROUP = "tagmask.data"
_CACHES = ("none", "memory")
_HOMES = {
    "CheckReport": ".check",
    "ClassTable": ".classes",
    "Item": ".base",
    "Problem": ".base",
    "Scan": ".base",
    "Source": ".base",
    "TagDataset": ".base",
    "View": ".transforms.base",
    "check_data": ".check:check",
    "eval_images": ".loader",
    "make_view": ".transforms.base",
    "register_view": ".transforms.base",
    "train_batches": ".loader",
}
_REGISTERED: dict[str, Any] = {}
_S = TypeVar("_S", bound="Callable[[Source], Scan]")

# Hidden from type checkers, which then find a wrong name.
if not TYPE_CHECKING:
    __getattr__ = lazy(__name__, _HOMES)


def list_datasets(filter: str = "*") -> list[str]:
    """Names of the kinds of data there are, without importing any.

    Args:
        filter: Only names of this pattern.
    """
    known = {*_own(), *_REGISTERED, *(point.name for point in points(_GROUP))}
    return sorted(name for name in known if fnmatchcase(name, filter))


@cache
def _own() -> frozenset[str]:
    """Files that are kinds of data; asked for many times an open data set, and the same all the time."""
    files = (Path(__file__).parent / "datasets").glob("*.py")
    return frozenset(f.stem for f in files if "\ndef scan(source: Source)" in f.read_text(encoding="utf-8"))


def names() -> list[str]:
    """Names of all kinds, see `list_datasets`."""
    return list_datasets()


def register_dataset(name: str, matches: Callable[[Path], bool] = lambda root: False) -> Callable[[_S], _S]:
    """Decorator that makes a kind of data known by name in this process, as an entry point does for good.

    The function lists and checks what is at a `Source` and gives a `Scan`; it decodes nothing.

    Args:
        name: What ``--kind`` and the argument `kind` call it.
        matches: Whether a folder looks like this kind; lets "auto" find it.

    Raises:
        ConfigError: The name is taken.
    """
    if name == "auto" or (name not in _REGISTERED and name in names()):
        raise ConfigError(f"there is a kind of data '{name}' already; choose another name")

    def decorate(scan: _S) -> _S:
        _REGISTERED[name] = SimpleNamespace(scan=scan, matches=matches)
        return scan

    return decorate


def _module(kind: str) -> Any:
    if kind in _REGISTERED:
        return _REGISTERED[kind]
    if kind not in names():
        raise DataError(f"unknown kind of data '{kind}'. {nearest(kind, [*names(), 'auto'])}")
    for point in points(_GROUP):
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
        raise DataError(
            f"data root {source.root} {state}; if the data has moved, say where it is: --data DIR"
        )
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
    from tagmask.data.datasets.listing import distrusted

    return distrusted(_module(kind).scan(source), source)


@deprecated("0.2", arguments={"mask_folder": "masks"})
def open_dataset(
    root: str | Path,
    kind: str | Path = "auto",
    split: str | None = None,
    *,
    masks: bool | str | Path = False,
    tags: Tags | None = None,
    classes: Sequence[str] | str | Path | None = None,
    mask_values: Mapping[int | str, str] | str | Path | None = None,
    cache: str = "none",
) -> TagDataset:
    """Open images with their tags.

    Args:
        root: Folder of the data set.
        kind: "folder", "voc", "coco", ..., or "auto" to tell by the look of the root.
        split: Which part: "train", "val", ... as the data set names them; None for all there is.
        masks: True opens the true masks too, a folder opens those in it. For evaluation only: training never
            does.
        tags: Where tags come from instead of the usual place. A CSV or JSON-lines file; "none" for images
            without tags; for VOC also "xml", "masks" or a published .npy; or the tags themselves: a mapping
            of image names to class names, or a data frame with the columns image and tags.
        classes: Class names or a file with one a line. For VOC and COCO it picks some of their classes, the
            others become background.
        mask_values: What the numbers in the masks mean, if not the labels themselves: "voc", a mapping such
            as ``{8: "cat", "other": "background"}``, or a JSON file with one.
        cache: "memory" keeps decoded images; "none" reads them every time.

    Returns:
        The data set; its `about` says where everything was found.

    Raises:
        DataError: Something is missing, unknown or contradictory; one message names the first of each kind.
    """
    if _is_kind(root) and not _is_kind(kind):
        # Until 0.2 the kind came first. A folder of that name is meant only where nothing else is one.
        old = f"open_dataset({str(root)!r}, root, ...)"
        warn_renamed(old, f"open_dataset(root, {str(root)!r}, ...)", "0.2", level=4)
        root, kind = kind, root
    if cache not in _CACHES:
        raise DataError(f"unknown cache '{cache}'. {nearest(cache, _CACHES)}")
    with tag_file(tags) as file:
        source = make_source(root, split, masks, file, classes, mask_values)
        scan = scan_dataset(str(kind), source)
    return as_dataset(scan, source, cache)


def as_dataset(scan: Scan, source: Source, cache: str = "none", reading: Reading | None = None) -> TagDataset:
    """What a scan found as a data set; masks can be read if `source` asked for them.

    Args:
        scan: What was found.
        source: Where.
        cache: See `open_dataset`.
        reading: How the numbers of files become levels; None for 8-bit pictures.

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
        reading=reading,
    )


def make_source(
    root: str | Path,
    split: str | None,
    masks: bool | str | Path,
    tags: str | Path | None,
    classes: Sequence[str] | str | Path | None,
    mask_values: Mapping[int | str, str] | str | Path | None,
) -> Source:
    """Where a data set is, from the arguments of `open_dataset`."""
    from tagmask.data.base import Source

    folder = None if isinstance(masks, bool) else Path(masks).expanduser()
    opened = masks if isinstance(masks, bool) else True
    return Source(Path(data_folder(root)).expanduser(), split, opened, tags, classes, folder, mask_values)


def _is_kind(value: str | Path) -> bool:
    return isinstance(value, str) and (value == "auto" or value in names())


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

"""Data sets as the Hugging Face hub holds them: image folders with a metadata file, and Parquet shards.

What is found becomes a tag file (and pictures, of shards) in the user's cache folder, which is then read as
any folder of images is. Neither the package ``datasets`` nor code of the data set is used.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from tagmask.data.base import Scan, Source
from tagmask.data.datasets import folder
from tagmask.data.datasets.class_folders import NO_CLASS
from tagmask.data.datasets.listing import class_folders, own_file, pictures_below
from tagmask.data.datasets.shards import names_of, open_shard, unpacked
from tagmask.data.datasets.splits import SPLIT_WORDS
from tagmask.data.readers.regular import read_text
from tagmask.errors import DataError, one_line

__all__ = ["matches", "scan"]

_METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_TAGS = ("tags", "labels", "label", "classes", "class")
_SPLITS = {word: part for part, words in SPLIT_WORDS.items() for word in words} | {"eval": "test"}
_FOLDERS = ("train", "validation", "test")
_OWN = ("tags.csv", "tags.jsonl", "tags.ndjson", "tags.tsv")


@dataclass(frozen=True)
class _Row:
    image: str
    tags: Any
    split: str | None


def matches(root: Path) -> bool:
    """A metadata file in the folder or its parts, Parquet shards, or a part called validation."""
    if any((root / name).is_file() for name in _OWN):
        return False
    places = [root, *_parts(root)]
    if any((place / name).is_file() for place in places for name in _METADATA):
        return True
    # Folders may be called after classes, such as "valid"; two of these names together are parts.
    return bool(_shards(root)) or all((root / name).is_dir() for name in _FOLDERS[:2])


def scan(source: Source) -> Scan:
    """Read an image folder (``metadata.jsonl``, ``.csv`` or ``.parquet``, or a folder per class) or shards.

    Tags are a column ``tags``, ``labels`` or ``label``: names, numbers of classes that a shard names, or a
    text with several names. Parts are folders or shards called train, validation and test.

    Raises:
        DataError: Nothing of the kind is there, a file cannot be read, or it has no column of tags.
    """
    shards = _shards(source.root)
    place, rows = (_from_shards(source, shards)) if shards else (source.root, _from_folders(source))
    if not rows:
        raise DataError(f"{source.root} holds no tagged picture")
    lines = [{"image": r.image, "tags": r.tags, **({"split": r.split} if r.split else {})} for r in rows]
    tags = _written(source.root, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    split = _SPLITS.get(source.split or "", source.split)
    if split == "train" and not any(row.split for row in rows):
        split = None
    given = source.classes
    if given is None and (listed := own_file(source.root, ["classes.txt"])) is not None:
        given = listed
    masks = source.mask_folder or source.root / "masks"
    inner = replace(source, root=place, split=split, tags=tags, classes=given, mask_folder=masks)
    found = folder.scan(inner)
    about = {**found.about, "kind": "hugging_face", "images": str(source.root)}
    return replace(found, about=about, home=place)


def _parts(root: Path) -> list[Path]:
    return sorted(p for name in _SPLITS if (p := root / name).is_dir())


def _shards(root: Path) -> list[Path]:
    """Parquet files with pictures, in the folder or in those below that may be parts."""
    found: list[Path] = []
    for place in (root, root / "data", *_parts(root), *_parts(root / "data")):
        found += [p for p in sorted(place.glob("*.parquet")) if p.name not in _METADATA]
    return found


def _split_of(path: Path) -> str | None:
    """``train-00000-of-00004.parquet``, ``train/0000.parquet``: the part that a shard belongs to."""
    first = path.name.split("-")[0].split(".")[0]
    return _SPLITS.get(first) or _SPLITS.get(path.parent.name)


def _from_shards(source: Source, shards: list[Path]) -> tuple[Path, list[_Row]]:
    place = _cache(source.root, *(f"{p.name}|{p.stat().st_size}|{p.stat().st_mtime_ns}" for p in shards))
    rows = []
    for number, path in enumerate(shards):
        table = open_shard(path, source.root)
        column = _tag_column(table.schema_arrow.names, path)
        names = names_of(table, column)
        for image, value in unpacked(table, column, path, place / "images", number):
            rows.append(_Row(image, _names(value, names, path), _split_of(path)))
    return place, rows


def _from_folders(source: Source) -> list[_Row]:
    root = source.root
    rows: list[_Row] = []
    for place in (root, *_parts(root)):
        path = own_file(place, _METADATA)
        below = place.relative_to(root)
        split = _SPLITS.get(place.name) if place != root else None
        if path is not None:
            rows += [_Row(_joined(below, row, path), _tags_of(row, path), split) for row in _metadata(path)]
        elif place != root and place.name in _FOLDERS:
            rows += list(_of_class_folders(place, root, split))
    inside = "images/"
    if (root / "images").is_dir() and all(row.image.startswith(inside) for row in rows):
        # A folder "images" is where pictures are looked for, so names begin below it.
        return [replace(row, image=row.image.removeprefix(inside)) for row in rows]
    return rows


def _of_class_folders(place: Path, root: Path, split: str | None) -> Iterator[_Row]:
    for each in class_folders(place):
        tags = [] if each.name == NO_CLASS else [each.name]
        for picture in pictures_below(each, root, []):
            yield _Row(picture.relative_to(root).as_posix(), tags, split)


def _metadata(path: Path) -> Iterator[Mapping[str, Any]]:
    """Rows of a metadata file."""
    if path.suffix == ".parquet":
        table = open_shard(path, path.parent)
        names = {name: names_of(table, name) for name in table.schema_arrow.names if name in _TAGS}
        for batch in table.iter_batches():
            for row in batch.to_pylist():
                yield {k: _names(v, names.get(k), path) if k in names else v for k, v in row.items()}
        return
    try:
        text = read_text(path, inside=path.parent, encoding="utf-8-sig")
        if path.suffix == ".csv":
            yield from csv.DictReader(io.StringIO(text), strict=True)
            return
        for line in filter(str.strip, text.splitlines()):
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("a line is no object")
            yield row
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {one_line(error)}") from None


def _joined(below: Path, row: Mapping[str, Any], path: Path) -> str:
    name = row.get("file_name")
    if not isinstance(name, str) or not name:
        raise DataError(f"{path} has a row without 'file_name', which says what picture it is about")
    return (PurePosixPath(below.as_posix()) / name.replace("\\", "/")).as_posix()


def _tags_of(row: Mapping[str, Any], path: Path) -> Any:
    return _names(row.get(_tag_column(list(row), path)), None, path)


def _tag_column(columns: list[str], path: Path) -> str:
    found = next((name for name in _TAGS if name in columns), None)
    if found is None:
        raise DataError(
            f"{path} has no column of tags: one of {', '.join(_TAGS)}; it has {', '.join(map(str, columns))}"
        )
    return found


def _names(value: Any, names: list[str] | None, path: Path) -> Any:
    """Tags as names: of numbers those that the file gives them."""
    if value is None:
        return []
    many = value if isinstance(value, list) else [value]
    if names is not None and all(isinstance(one, int) for one in many):
        try:
            # The hub writes -1 where nobody knows.
            return [names[one] for one in many if one >= 0]
        except IndexError:
            raise DataError(f"{path} holds the label {max(many)}, but names {len(names)} only") from None
    if all(isinstance(one, str) for one in many):
        return value
    if all(isinstance(one, int) for one in many):
        return [str(one) for one in many]
    raise DataError(f"{path}: tags are names or numbers of classes, got {str(value)[:80]}")


def _cache(root: Path, *states: str) -> Path:
    """Where what follows from a folder is kept."""
    key = hashlib.sha256("|".join((str(root.resolve()), *states)).encode()).hexdigest()[:12]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "tagmask" / f"hf-{root.resolve().name}-{key}"


def _written(root: Path, text: str) -> Path:
    """The tag file; an equal one is left as it is."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    path = _cache(root) / f"tags-{digest}.jsonl"
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}")
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror}; set XDG_CACHE_HOME") from None
    return path

"""Read lists of tagged images: CSV with the columns image and tags, or JSON lines."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tagmask.data.datasets.splits import SPLITS, part_name
from tagmask.data.datasets.tagcells import join_tags, split_cells
from tagmask.data.readers.plain import parse_json
from tagmask.data.readers.regular import open_regular
from tagmask.data.tables import csv_text, plain_cell
from tagmask.errors import DataError

__all__ = ["TagRow", "file_split", "read_tag_file", "split_rows", "split_tags", "write_tag_file"]


@dataclass(frozen=True)
class TagRow:
    """One line of a tag file.

    Attributes:
        line: Line number, 1-based, for messages.
        image: Path of the picture below the image folder, as written.
        tags: Names as a list (JSON lines) or one text still to be split (CSV).
        split: Value of the split column, "val" for "Validation" and the like; None without one.
    """

    line: int
    image: str
    tags: tuple[str, ...] | str
    split: str | None


def read_tag_file(path: str | Path) -> list[TagRow]:
    """All rows of a tag file, in order; ``.jsonl`` and ``.ndjson`` are JSON lines, all else is CSV.

    CSV may be separated by comma, semicolon or tab: by what makes the first line name the columns image and
    tags, in any order; it may name split. A spreadsheet's line ``sep=;`` before it is passed over.

    Raises:
        DataError: The file is missing, empty, not text, or a line cannot be read; the line is named.
    """
    path = Path(path)
    lines = path.suffix.lower() in (".jsonl", ".ndjson")
    try:
        with (
            open_regular(path) as content,
            io.TextIOWrapper(content, encoding="utf-8-sig", newline=None if lines else "") as file,
        ):
            rows = list(_json_rows(file) if lines else _csv_rows(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read the tags in {path}: {error}") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    if not rows:
        raise DataError(f"{path} holds no rows; each image needs one, for example 'image1.jpg,cat dog'")
    return rows


def _csv_rows(file: Iterable[str]) -> Iterator[TagRow]:
    stream = iter(file)
    header, before = next(stream, ""), 1
    if header.strip().lower() in ("sep=,", "sep=;", "sep=\t", '"sep=,"', '"sep=;"'):
        header, before = next(stream, ""), 2
    delimiter, columns = _columns(header)
    unnamed = DataError(f"the first line must name the columns image and tags, it is '{header.strip()[:80]}'")
    known = "image" in columns and "tags" in columns
    if header.strip() and not known:
        raise unnamed
    twice = next((name for name in ("image", "tags", "split") if columns.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"the first line names the column {twice} twice; keep one of them")
    reader = csv.reader(stream, delimiter=delimiter, strict=True)
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if not known:  # an empty first line, but not an empty file
            raise unnamed
        line = reader.line_num + before
        if len(cells) > len(columns):
            raise DataError(
                f"line {line} has {len(cells)} fields, the first line names {len(columns)}; "
                "separate the tags of an image by ';' or '|', or put quotes around them"
            )
        row = dict(zip(columns, (cell.strip() for cell in cells), strict=False))
        if not row.get("image"):
            raise DataError(f"line {line} names no image")
        split = part_name(row.get("split", "")) if "split" in columns else None
        yield TagRow(line, plain_cell(row["image"]), plain_cell(row.get("tags", "")), split)


def _columns(header: str) -> tuple[str, list[str]]:
    """What separates the columns, and their names in small letters."""
    found = {}
    for mark in (",", ";", "\t"):
        with suppress(csv.Error):
            found[mark] = [name.strip().lower() for name in next(csv.reader([header], delimiter=mark), [])]
    fits = (mark for mark, names in found.items() if {"image", "tags"} <= set(names))
    mark = next(fits, max(found, key=lambda mark: len(found[mark]), default=","))
    return mark, found.get(mark, [])


def _json_rows(file: Iterable[str]) -> Iterator[TagRow]:
    for line, text in enumerate(file, start=1):
        if not text.strip():
            continue
        try:
            row = parse_json(text)
        except ValueError as error:
            raise DataError(f"line {line} is not JSON: {error}") from None
        image, tags = (row.get("image"), row.get("tags", [])) if isinstance(row, dict) else (None, None)
        if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags):
            tags = tuple(tags)
        if not isinstance(image, str) or not isinstance(tags, (str, tuple)):
            raise DataError(f'line {line} must be like {{"image": "a.jpg", "tags": ["cat", "dog"]}}')
        yield TagRow(line, image.strip(), tags, part_name(str(row["split"])) if row.get("split") else None)


def split_rows(rows: Iterable[TagRow], path: str | Path, known: Iterable[str] = ()) -> list[tuple[str, ...]]:
    """Class names of every row, see `tagcells.split_cells`.

    Args:
        rows: All rows of a file, since one rule holds for all.
        path: The file, for messages.
        known: Names of the classes, if they are known.

    Raises:
        DataError: They can be read in two ways.
    """
    try:
        return split_cells([(row.line, row.tags) for row in rows], known)
    except DataError as error:
        raise DataError(f"{path}, {error}") from None


def split_tags(tags: tuple[str, ...] | str, known: Iterable[str] = ()) -> tuple[str, ...]:
    """Class names in one tags field that stands alone, see `tagcells.split_cells`.

    Raises:
        DataError: They can be read in two ways.
    """
    return split_cells([(1, tags)], known)[0]


def write_tag_file(path: Path, rows: Iterable[tuple[str, Sequence[str], str | None]]) -> None:
    """Write a CSV that `read_tag_file` and `split_rows` read back as the same images, classes and splits.

    Args:
        path: The file; its folder must be there.
        rows: Image, class names and split of every row; no split in any row leaves out the column.
    """
    every = [(image, tuple(names), split) for image, names, split in rows]
    known = {name for _, names, _ in every for name in names}
    parted = any(split is not None for *_, split in every)
    table: list[list[str]] = [["image", "tags", *(["split"] if parted else [])]]
    for image, names, split in every:
        table.append([image, join_tags(names, known), *([split or ""] if parted else [])])
    path.write_text(csv_text(table), encoding="utf-8", newline="")


def file_split(path: str | Path) -> str | None:
    """The split a file's own name speaks of: "val" for ``tags_valid.csv``; None if it names none."""
    last = part_name(re.split(r"[_\-.]", Path(path).stem.lower())[-1])
    return last if last in SPLITS else None

"""Read lists of tagged images: CSV with the columns image and tags, or JSON lines."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tagmask.data.readers.regular import open_regular
from tagmask.errors import DataError

__all__ = ["TagRow", "file_split", "read_tag_file", "split_tags"]

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class TagRow:
    """One line of a tag file.

    Attributes:
        line: Line number, 1-based, for messages.
        image: Path of the picture below the image folder, as written.
        tags: Names as a list (JSON lines) or one text still to be split (CSV).
        split: Value of the split column; None without one.
    """

    line: int
    image: str
    tags: tuple[str, ...] | str
    split: str | None


def read_tag_file(path: str | Path) -> list[TagRow]:
    """All rows of a tag file, in order; ``.jsonl`` and ``.ndjson`` are JSON lines, all else is CSV.

    CSV may be separated by comma, semicolon or tab, as its first line shows. That line must name the
    columns image and tags, in any order, and may name split.

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
    header = next(stream, "")
    delimiter = next((mark for mark in (",", ";", "\t") if mark in header), ",")
    columns = [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])]
    unnamed = DataError(f"the first line must name the columns image and tags, it is '{header.strip()[:80]}'")
    known = "image" in columns and "tags" in columns
    if header.strip() and not known:
        raise unnamed
    reader = csv.reader(stream, delimiter=delimiter, strict=True)
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if not known:  # an empty first line, but not an empty file
            raise unnamed
        line = reader.line_num + 1
        if len(cells) > len(columns):
            raise DataError(
                f"line {line} has {len(cells)} fields, the first line names {len(columns)}; "
                "separate the tags of an image by blanks, ';' or '|', or put quotes around them"
            )
        row = dict(zip(columns, (cell.strip() for cell in cells), strict=False))
        yield TagRow(
            line, row["image"], row.get("tags", ""), row.get("split", "") if "split" in columns else None
        )


def _json_rows(file: Iterable[str]) -> Iterator[TagRow]:
    for line, text in enumerate(file, start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"line {line} is not JSON: {error}") from None
        image, tags = (row.get("image"), row.get("tags", [])) if isinstance(row, dict) else (None, None)
        if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags):
            tags = tuple(tags)
        if not isinstance(image, str) or not isinstance(tags, (str, tuple)):
            raise DataError(f'line {line} must be like {{"image": "a.jpg", "tags": ["cat", "dog"]}}')
        yield TagRow(line, image.strip(), tags, str(row["split"]) if row.get("split") else None)


def split_tags(tags: tuple[str, ...] | str, known: Iterable[str] = ()) -> tuple[str, ...]:
    """Class names in one tags field, without repetition, in the order written.

    Text is split at ";" and "|" if it holds any, else at blanks, unless all of it is one known class
    (whose name may hold blanks).
    """
    if isinstance(tags, str):
        text = tags.strip()
        marked = ";" in text or "|" in text
        parts = re.split(r"[;|]", text) if marked else [text] if text in set(known) else text.split()
    else:
        parts = list(tags)
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def file_split(path: str | Path) -> str | None:
    """The split a file's own name speaks of: "val" for ``tags_val.csv``; None if it names none."""
    last = re.split(r"[_\-.]", Path(path).stem.lower())[-1]
    return last if last in _SPLITS else None

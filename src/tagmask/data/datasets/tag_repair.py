"""Change one tag of one image in a tag file; everything else in the file keeps its meaning."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from tagmask.data.datasets.tagcells import join_tags
from tagmask.data.datasets.tagfile import TagRow, read_tag_file, split_rows
from tagmask.data.readers.regular import read_text
from tagmask.data.tables import csv_text, plain_cell
from tagmask.errors import DataError

__all__ = ["repair_tag"]


def repair_tag(path: Path, image: str, tag: str, present: bool, known: Sequence[str]) -> tuple[str, ...]:
    """Add a tag to an image, or take it away, in one step: the file is the old or the new one, never half.

    Other rows, splits and further columns stay; a CSV comes back separated by commas.

    Args:
        path: Tag file, see `read_tag_file`.
        image: Path of the picture as the file has it, or its name without ending.
        tag: Name of the class.
        present: Whether the image shall have the tag.
        known: Names of all classes.

    Returns:
        The image's tags now.

    Raises:
        DataError: The tag is no class, the image is not in the file or more than once, or the file cannot be
            read or written.
    """
    if tag not in known:
        raise DataError(f"'{tag}' is no class; known are {', '.join(known[:20])}")
    rows = read_tag_file(path)
    names = split_rows(rows, path, known)
    places = [i for i, row in enumerate(rows) if _is(row, image)]
    if len(places) != 1:
        problem = "does not name" if not places else f"names {len(places)} times"
        raise DataError(f"{path} {problem} the image '{image}'; correct the file by hand")
    place = places[0]
    left = tuple(name for name in names[place] if name != tag)
    changed = (*left, tag) if present else left
    if set(changed) == set(names[place]):
        return names[place]
    names[place] = changed
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        text = _json_text(path, rows[place].line, changed)
    else:
        text = _csv_text(path, names, known)
    _replace(path, text)
    return changed


def _is(row: TagRow, image: str) -> bool:
    return image in (row.image, PurePosixPath(row.image).with_suffix("").as_posix())


def _json_text(path: Path, line: int, tags: Sequence[str]) -> str:
    lines = read_text(path).lstrip("\ufeff").splitlines(keepends=True)
    row = json.loads(lines[line - 1])
    end = "\n" if lines[line - 1].endswith("\n") else ""
    lines[line - 1] = json.dumps({**row, "tags": list(tags)}, ensure_ascii=False) + end
    return "".join(lines)


def _csv_text(path: Path, names: Sequence[Sequence[str]], known: Sequence[str]) -> str:
    stream = io.StringIO(read_text(path).lstrip("\ufeff"), newline="")
    header = stream.readline()
    if header.strip().lower().strip('"').startswith("sep="):
        header = stream.readline()
    for mark in (",", ";", "\t"):
        columns = [cell.strip() for cell in next(csv.reader([header], delimiter=mark), [])]
        if {"image", "tags"} <= {cell.lower() for cell in columns}:
            break
    column = [cell.lower() for cell in columns].index("tags")
    cells = [row for row in csv.reader(stream, delimiter=mark) if any(cell.strip() for cell in row)]
    table = [columns]
    for row, own in zip(cells, names, strict=True):
        full = [plain_cell(cell.strip()) for cell in row] + [""] * (len(columns) - len(row))
        full[column] = join_tags(own, known)
        table.append(full)
    return csv_text(table)


def _replace(path: Path, text: str) -> None:
    target = path.resolve()  # a link stays a link
    try:
        handle, name = tempfile.mkstemp(prefix=".tags-", dir=target.parent)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with suppress(OSError):
            os.chmod(name, target.stat().st_mode & 0o777)
        os.replace(name, target)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}; it is as it was") from None
    finally:
        Path(name).unlink(missing_ok=True)

"""Tags that a program holds, a mapping or a data frame, as a tag file."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tagmask.errors import DataError

__all__ = ["Frame", "Tags", "tag_file", "write_tags"]


class Frame(Protocol):
    """A table as pandas has it."""

    @property
    def columns(self) -> Any:
        """Names of the columns."""


Tags = str | Path | Mapping[str, Sequence[str] | str] | Frame
"""A tag file or a word that stands for one, or the tags themselves: image name to class names, or a data
frame with the columns image and tags (and split), or image and a column of 0 and 1 for every class."""


@contextmanager
def tag_file(tags: Tags | None) -> Iterator[str | Path | None]:
    """The tags as something to read: what is no file yet becomes one while the context lasts.

    Raises:
        DataError: See `write_tags`.
    """
    if tags is None or isinstance(tags, (str, Path)):
        yield tags.expanduser() if isinstance(tags, Path) else tags
        return
    with tempfile.TemporaryDirectory() as folder:
        yield write_tags(tags, Path(folder) / "tags.jsonl")


def write_tags(tags: Mapping[str, Sequence[str] | str] | Frame, path: Path) -> Path:
    """Write tags as JSON lines.

    Args:
        tags: Image name to class names, or a data frame.
        path: The file to write.

    Returns:
        The file.

    Raises:
        DataError: It is something else, or a row does not say its image and tags.
    """
    if isinstance(tags, Mapping):
        rows: list[dict[str, Any]] = [{"image": str(image), "tags": _names(v)} for image, v in tags.items()]
    elif hasattr(tags, "columns") and hasattr(tags, "to_dict"):
        rows = [_row(row) for row in tags.to_dict("records")]
    else:
        raise DataError(
            "tags are a file, a mapping of image names to class names, or a data frame, got "
            f"{type(tags).__name__}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    return path


def _names(value: Any) -> list[str] | str:
    if isinstance(value, str):
        return value
    if value is None or value != value:  # pandas writes a missing text as NaN
        return []
    try:
        names = list(value)
    except TypeError:
        raise DataError(f"the tags of an image are class names, got {value!r}") from None
    if not all(isinstance(name, str) for name in names):
        raise DataError(f"the tags of an image are class names, got {names[:3]!r}")
    return names


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    if "image" not in row:
        known = ", ".join(str(name) for name in row)
        raise DataError(f"a data frame of tags needs the columns image and tags, it has {known}")
    if "tags" in row:
        names = _names(row["tags"])
    else:
        flags = {str(name): value for name, value in row.items() if name not in ("image", "split")}
        wrong = [name for name, value in flags.items() if value not in (0, 1)]
        if wrong or not flags:
            raise DataError(
                "a data frame of tags needs a column tags, or a column of 0 and 1 for every class; "
                f"{', '.join(wrong[:3]) or 'it has only image'} is neither"
            )
        names = [name for name, value in flags.items() if value]
    split = row.get("split")
    return {"image": str(row["image"]), "tags": names, **({"split": split} if isinstance(split, str) else {})}

"""Parquet shards with pictures inside: their rows, the names of their classes, the pictures as files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tagmask.data.readers.regular import check_regular
from tagmask.errors import ConfigError, DataError, one_line

__all__ = ["names_of", "open_shard", "unpacked"]

_LARGEST = 256 << 20
_ENDINGS = {
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"RIFF": ".webp",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\x00": ".tif",
    b"MM\x00*": ".tif",
}
"""How files of these kinds begin."""


def open_shard(path: Path, root: Path) -> Any:
    """A Parquet file, as pyarrow has it.

    Args:
        path: The file.
        root: Folder that it may not lead out of.

    Raises:
        ConfigError: pyarrow is not installed.
        DataError: It is no plain file or no Parquet file.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ConfigError(f"reading {path.name} needs pyarrow: pip install 'tagmask[hf]'") from None
    check_regular(path, inside=root)
    try:
        return parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is no readable Parquet file ({one_line(error)})") from None


def names_of(table: Any, column: str) -> list[str] | None:
    """Names of the classes that a column's numbers mean, as the package datasets notes them in the schema."""
    try:
        noted = json.loads(table.schema_arrow.metadata[b"huggingface"])["info"]["features"][column]
    except (KeyError, TypeError, ValueError):
        return None
    while isinstance(noted, dict) and "feature" in noted:
        noted = noted["feature"]
    if isinstance(noted, list) and len(noted) == 1:
        (noted,) = noted
    names = noted.get("names") if isinstance(noted, dict) else None
    return [str(name) for name in names] if isinstance(names, list) else None


def unpacked(table: Any, column: str, path: Path, folder: Path, number: int) -> Iterator[tuple[str, Any]]:
    """Pictures of a shard as files, with the tags of each.

    Args:
        table: See `open_shard`.
        column: Of the tags.
        path: The shard, for messages.
        folder: Gets the pictures, called by their place and nothing that the shard says.
        number: Of the shard.

    Yields:
        Path of a picture below the folder's parent's ``images``, and the value in the column of tags.

    Raises:
        DataError: The shard has no pictures, or one cannot be taken.
    """
    import pyarrow

    if "image" not in table.schema_arrow.names:
        raise DataError(f"{path} has no column 'image' (it has {', '.join(table.schema_arrow.names)})")
    row = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for batch in table.iter_batches(batch_size=64, columns=["image", column]):
            for one in batch.to_pylist():
                content = one["image"].get("bytes") if isinstance(one["image"], dict) else one["image"]
                if not isinstance(content, bytes) or not 0 < len(content) <= _LARGEST:
                    raise DataError(
                        f"{path}, row {row}: the picture is not inside the shard, empty, or larger than "
                        f"{_LARGEST >> 20} MB"
                    )
                name = f"{number:04d}-{row:06d}{_ending(content)}"
                _save(folder / name, content)
                yield name, one[column]
                row += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be unpacked after {row} pictures ({one_line(error)})") from None


def _ending(content: bytes) -> str:
    return next((ending for mark, ending in _ENDINGS.items() if content.startswith(mark)), ".png")


def _save(path: Path, content: bytes) -> None:
    if path.is_file() and path.stat().st_size == len(content):
        return
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(path)

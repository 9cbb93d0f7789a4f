"""``hf:NAME_OR_FOLDER``: a data set of the Hugging Face hub, or a folder laid out like one."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tagmask.errors import DataError, one_line, printable

__all__ = ["PREFIX", "data_folder"]

PREFIX = "hf:"
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_WANTED = (
    "*.parquet", "*metadata.*", "*.jpg", "*.jpeg", "*.png", "*.webp", "*.bmp", "*.tif", "*.tiff", "*.gif",
    "*.JPG", "*.JPEG", "*.PNG", "classes.txt", "README.md",
)  # fmt: skip


def data_folder(given: str | Path) -> str:
    """Where data is: a path as it is, and what begins with ``hf:`` as the folder of its files.

    A folder of that name is taken before a data set of the hub, which is fetched once into the user's cache;
    only pictures, metadata and Parquet files are, and no code.

    Raises:
        DataError: It is neither, or the hub cannot be reached.
    """
    text = str(given)
    if not text.startswith(PREFIX):
        return text
    name = text.removeprefix(PREFIX)
    place = Path(name).expanduser()
    if name and place.is_dir():
        return str(place)
    if not _NAME.fullmatch(name) or ".." in name:
        raise DataError(f"{printable(text)} is neither a folder nor the name of a data set (owner/name)")
    return str(_fetched(name))


def _fetched(name: str) -> Path:
    from huggingface_hub import snapshot_download

    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = base / "tagmask" / "hub" / name.replace("/", "--")
    try:
        # Plain files in a folder of their own: the hub's cache consists of links, which data may not have.
        snapshot_download(name, repo_type="dataset", local_dir=target, allow_patterns=list(_WANTED))
    except Exception as error:  # the hub's client raises types of its own and of its dependencies
        raise DataError(
            f"hf:{name} is no folder here and cannot be fetched ({type(error).__name__}: "
            f"{one_line(error)[:200]}); check the name, or fetch it elsewhere and give hf:FOLDER"
        ) from None
    return target

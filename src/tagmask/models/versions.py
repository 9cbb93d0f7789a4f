"""Numbered versions of a model in a folder: ``v1``, ``v2``, ... each whole or not there."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tagmask.errors import CheckpointError
from tagmask.models.checkpoint import save_model
from tagmask.models.trained import Trained, save_method

__all__ = ["newest_version", "save_version"]


def _number(path: Path) -> int:
    digits = path.name.removeprefix("v")
    return int(digits) if path.name.startswith("v") and digits.isdecimal() else 0


def newest_version(folder: Path) -> Path | None:
    """The version with the highest number that holds a whole model; None if there is none."""
    found = [path for path in folder.glob("v*") if _number(path) and (path / "weights.safetensors").is_file()]
    return max(found, key=_number, default=None)


def save_version(folder: Path, trained: Trained) -> Path:
    """Write a model as the next version; earlier ones are not touched, and nobody else gets its number.

    Args:
        folder: Of all versions; made if missing.
        trained: The model.

    Returns:
        The new model folder.

    Raises:
        CheckpointError: It cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number = 1 + max(map(_number, folder.glob("v*")), default=0)
        while True:
            place = folder / f"v{number}"
            try:
                place.mkdir()
                break
            except FileExistsError:
                number += 1
    except OSError as error:
        raise CheckpointError(f"cannot write {folder}: {error.strerror or error}") from None
    meta: Mapping[str, Any] = trained.meta
    try:
        if meta:
            save_model(place, trained.method.state_dict(), meta)
        else:
            save_method(place, trained.method, trained.name, trained.classes, {}, {})
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    return place

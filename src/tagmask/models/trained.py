"""Methods as modules: built from settings, saved to and loaded from model folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tagmask import methods
from tagmask.backbones.weights import load_strictly, read_weights
from tagmask.config import validate
from tagmask.data import ClassTable
from tagmask.errors import CheckpointError
from tagmask.methods.base import Method
from tagmask.models.checkpoint import load_model, save_model, weight_file
from tagmask.store.files import sha256
from tagmask.types import IGNORE

__all__ = ["Trained", "build_method", "load_published", "load_trained", "save_method"]


@dataclass(frozen=True)
class Trained:
    """A method with its weights.

    Attributes:
        method: The module, in eval mode, on the CPU.
        name: Its key in `tagmask.methods`.
        classes: What its outputs mean.
        checksum: SHA-256 of the weight file.
        meta: The header it was saved with; empty for a published checkpoint.
    """

    method: Method
    name: str
    classes: ClassTable
    checksum: str
    meta: Mapping[str, Any]


def build_method(name: str, values: Mapping[str, Any], num_classes: int, where: str = "model") -> Method:
    """A method with random weights.

    Args:
        name: Key in `tagmask.methods`.
        values: Its settings; defaults for the rest.
        num_classes: K.
        where: What the user knows the settings as.

    Raises:
        ConfigError: The name or a setting is unknown.
    """
    kind = methods.get(name)
    return kind(validate(kind.config_class, values, where), num_classes)


def save_method(
    folder: Path,
    method: Method,
    name: str,
    classes: ClassTable,
    metrics: Mapping[str, Any],
    extra: Mapping[str, Any],
) -> Path:
    """Write a model folder.

    Args:
        folder: Made if missing.
        method: The module.
        name: Its key in `tagmask.methods`.
        classes: What its outputs mean.
        metrics: Its latest scores.
        extra: How it was trained and wants to be used.

    Returns:
        The weight file.

    Raises:
        CheckpointError: It cannot be written; an earlier model there is unchanged.
    """
    meta = {
        "method": name,
        "settings": method.config_values(),
        "classes": {"names": list(classes.names), "ignore": classes.ignore_index},
        "metrics": dict(metrics),
        "extra": dict(extra),
    }
    return save_model(folder, method.state_dict(), meta)


def load_trained(path: Path) -> Trained:
    """A method from its model folder (or a run folder that holds one).

    Raises:
        CheckpointError: There is no model, it is damaged, or it does not fit its own settings.
    """
    inner = path / "model"
    folder = inner if (inner / "weights.safetensors").exists() else path
    state, meta = load_model(folder)
    classes = ClassTable(tuple(meta["classes"]["names"]), meta["classes"].get("ignore", IGNORE))
    # The random weights made on the way are thrown away; the program's random stream must not notice.
    with torch.random.fork_rng(devices=[]):
        method = build_method(meta["method"], meta["settings"], classes.num_classes, f"{folder}")
    load_strictly(method, state, str(folder))
    return Trained(method.eval(), meta["method"], classes, sha256(weight_file(folder)), meta)


def load_published(path: Path, name: str, values: Mapping[str, Any], classes: ClassTable) -> Trained:
    """A method from the authors' own checkpoint; nothing in it is executed.

    Args:
        path: The file.
        name: The method's key.
        values: The method's settings.
        classes: What its outputs mean.

    Raises:
        CheckpointError: The file cannot be read or does not fit method, settings or classes.
    """
    method = build_method(name, values, classes.num_classes)
    try:
        state = method.convert_weights(read_weights(path))
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path} is not a checkpoint of {name}: {error}") from None
    load_strictly(method, state, str(path))
    return Trained(method.eval(), name, classes, sha256(path), {})

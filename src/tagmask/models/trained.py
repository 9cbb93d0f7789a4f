"""Methods as modules: built from settings, saved to and loaded from model folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tagmask import methods
from tagmask.backbones.bands import with_bands
from tagmask.backbones.weights import load_strictly, read_weights
from tagmask.config import validate
from tagmask.data import ClassTable
from tagmask.data.levels import Reading
from tagmask.errors import CheckpointError, ConfigError, one_line
from tagmask.methods.base import Method, MethodConfig
from tagmask.models.checkpoint import is_own, load_model, read_header, require_finite, save_model, weight_file
from tagmask.store.files import sha256
from tagmask.types import IGNORE

__all__ = [
    "Trained",
    "build_method",
    "from_module",
    "load_published",
    "load_trained",
    "save_method",
    "stored_reading",
]

_SPARE_NUMBERS = 1 << 26
_SPARE_TENSORS = 1000
_FACTORIES = (
    torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.arange, torch.linspace,
    torch.eye,
)  # fmt: skip
"""What makes tensors of a size that is asked for."""


@dataclass(frozen=True)
class Trained:
    """A method with its weights.

    Attributes:
        method: The module, in eval mode, on the CPU.
        name: Its key in `tagmask.methods`.
        classes: What its outputs mean.
        checksum: SHA-256 of the weight file.
        meta: The header it was saved with; empty for a published checkpoint.
        reading: How files become the levels it learned from; None for 8-bit pictures.
    """

    method: Method
    name: str
    classes: ClassTable
    checksum: str
    meta: Mapping[str, Any]
    reading: Reading | None = None


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
    return save_model(folder, method.state_dict(), _header(method, name, classes, metrics, extra))


def _header(
    method: Method, name: str, classes: ClassTable, metrics: Mapping[str, Any], extra: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "method": name,
        "settings": method.config_values(),
        "classes": {"names": list(classes.names), "ignore": classes.ignore_index},
        "metrics": dict(metrics),
        "extra": dict(extra),
    }


def from_module(method: Method, classes: ClassTable | Sequence[str]) -> Trained:
    """A method that was trained elsewhere, with its classes.

    Args:
        method: The module; its class is registered if it has no name yet.
        classes: What its outputs mean.

    Raises:
        ConfigError: It is no method, holds no settings, or has another number of classes.
        DataError: These are no class names.
    """
    if not isinstance(method, Method):
        raise ConfigError(f"a method is an instance of tagmask.methods.Method, got {type(method).__name__}")
    name = methods.name_of(type(method))
    if not isinstance(getattr(method, "config", None), MethodConfig):
        raise ConfigError(f"{type(method).__name__} must keep its settings: self.config = config")
    table = classes if isinstance(classes, ClassTable) else ClassTable(tuple(classes))
    if table.num_classes != method.num_classes:
        raise ConfigError(f"the method has {method.num_classes} classes, got {table.num_classes} names")
    return Trained(method, name, table, "", _header(method, name, table, {}, {}))


def load_trained(path: Path) -> Trained:
    """A method from its model folder (or a run folder that holds one).

    Raises:
        CheckpointError: There is no model, it is damaged, or it does not fit its own settings.
    """
    inner = path / "model"
    folder = inner if (inner / "weights.safetensors").exists() else path
    state, meta = load_model(folder)
    classes = ClassTable(tuple(meta["classes"]["names"]), meta["classes"].get("ignore", IGNORE))
    described = meta["method"], meta["settings"], classes.num_classes
    reading = _reading_of(meta, folder)
    channels = 3 if reading is None else reading.channels
    # The random weights made on the way are thrown away; the program's random stream must not notice.
    with torch.random.fork_rng(devices=[]):
        method = _as_large_as(state, folder, lambda: _built(described, channels, folder))
    load_strictly(method, state, str(folder))
    return Trained(method.eval(), meta["method"], classes, sha256(weight_file(folder)), meta, reading)


def stored_reading(path: Path | None) -> Reading | None:
    """How a saved model reads files; None for 8-bit pictures, no model, or somebody else's weights.

    Raises:
        CheckpointError: It is damaged.
    """
    if path is None or (path.is_file() and not is_own(path)):
        return None
    inner = path / "model"
    folder = path.parent if path.is_file() else inner if (inner / "weights.safetensors").exists() else path
    return _reading_of(read_header(folder), folder) if weight_file(folder).is_file() else None


def _built(described: tuple[str, Mapping[str, Any], int], channels: int, folder: Path) -> Method:
    method = build_method(*described, str(folder))
    with_bands(method, channels)
    return method


def _reading_of(meta: Mapping[str, Any], folder: Path) -> Reading | None:
    try:
        return Reading.from_values(meta.get("extra", {}).get("pixels"))
    except ValueError as error:
        raise CheckpointError(f"{folder} is damaged: {error}; use another model") from None


class _Bounded(TorchFunctionMode):
    """Adds up the tensors that are made, before they are: a header can describe what no memory holds."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._numbers = _SPARE_NUMBERS + 4 * sum(value.numel() for value in state.values())
        self._tensors = _SPARE_TENSORS + 20 * len(state)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FACTORIES:
            self._tensors -= 1
            self._numbers -= func(*args, **{**kwargs, "device": "meta"}).numel()
            if self._tensors < 0 or self._numbers < 0:
                raise _TooLarge
        return func(*args, **kwargs)


class _TooLarge(Exception):
    """More is built than a file can fill."""


def _as_large_as(state: Mapping[str, Tensor], folder: Path, build: Callable[[], Method]) -> Method:
    """A network that is about as large as its weights.

    Raises:
        CheckpointError: The header describes a larger one, or one that cannot be built.
    """
    count = sum(value.numel() for value in state.values())
    try:
        with _Bounded(state):
            return build()
    except _TooLarge:
        raise CheckpointError(
            f"{folder} does not fit its own header: that describes a network far larger than the "
            f"{len(state)} tensors with {count:,} numbers that the file holds; use another model"
        ) from None
    except (RuntimeError, ValueError, TypeError, ArithmeticError, MemoryError, LookupError) as error:
        raise CheckpointError(
            f"{folder} is damaged: its header describes a network that cannot be built ({one_line(error)})"
        ) from None


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
    require_finite(state, str(path))
    load_strictly(method, state, str(path))
    return Trained(method.eval(), name, classes, sha256(path), {})

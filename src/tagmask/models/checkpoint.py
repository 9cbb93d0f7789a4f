"""Models and training states on disk: safetensors with a JSON header, never a pickle.

A model folder holds ``weights.safetensors`` and ``meta.json``. The header is stored inside the weight file as
well, so that one rename replaces model and header together; ``meta.json`` is the copy for people and tools.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tagmask import __version__
from tagmask.data.readers.regular import check_regular
from tagmask.errors import CheckpointError, DataError
from tagmask.store.files import atomic_write, write_json

__all__ = [
    "FORMAT",
    "PUBLISHED",
    "is_own",
    "load_model",
    "load_tensors",
    "non_finite",
    "read_header",
    "require_finite",
    "save_model",
    "save_tensors",
    "weight_file",
]

PUBLISHED = "model.safetensors"
"""Name of the weight file in folders laid out for a model hub."""

FORMAT = 1
"""Number of the header's layout; raised whenever a reader of the old one would misread it."""

_UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""Old format number to the function that turns its header into the next format's."""

_NEEDED = ("method", "settings", "classes")


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and plain values into one file, atomically and with a checksum.

    Args:
        path: Ends in ``.safetensors``.
        tensors: Any tensors, on any device.
        header: Plain values (what JSON can hold).

    Raises:
        CheckpointError: The file cannot be written; the one that was there before is unchanged.
    """
    own = _separate(tensors)
    text = json.dumps({**header, "format": FORMAT, "tagmask": __version__, "tensors": _digest(own)})
    with atomic_write(path, CheckpointError) as target:
        try:
            save_file(own, target, {"tagmask": text})
        except SafetensorError as error:
            raise OSError(f"{error}") from None


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors on the CPU, none sharing memory with another (the file format forbids it)."""
    seen: set[int] = set()
    own: dict[str, Tensor] = {}
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        pointer = value.untyped_storage().data_ptr()
        if pointer in seen or value.numel() * value.element_size() != value.untyped_storage().nbytes():
            value = value.clone()
        seen.add(value.untyped_storage().data_ptr())
        own[name] = value
    return own


def _digest(tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        if value.numel():
            total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header written by `save_tensors`.

    Returns:
        The tensors on the CPU, and the header in the layout of `FORMAT`.

    Raises:
        CheckpointError: The file is missing, damaged, of a newer format, or not one of ours.
    """
    check_regular(path, error=CheckpointError)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("tagmask")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"no saved weights at {path}") from None
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or not a safetensors file ({error})") from None
    if text is None:
        raise CheckpointError(
            f"{path} was not written by tagmask (its header is missing); a plain weight file is given with "
            "--weights, or with --method as a published checkpoint"
        )
    header = _header(path, text)
    if _digest(tensors) != header.pop("tensors", None):
        raise CheckpointError(f"{path} is damaged: its content does not match its checksum; use another one")
    return tensors, header


def _header(path: Path, text: str) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or type(header.get("format", 0)) is not int:
        raise CheckpointError(f"{path} is damaged: its header cannot be read; use another one")
    return _upgrade(path, header)


def _check_meta(path: Path, meta: Mapping[str, Any]) -> None:
    """What later readers rely on; the checksum covers the tensors, not the header."""
    if missing := [key for key in _NEEDED if key not in meta]:
        raise CheckpointError(f"{path} is not a model: its header lacks {', '.join(missing)}")
    classes, extra = meta["classes"], meta.get("extra", {})
    sound = (
        isinstance(meta["method"], str) and isinstance(meta["settings"], dict) and isinstance(classes, dict)
    )
    if sound:
        names = classes.get("names")
        use: Any = extra.get("use", {}) if isinstance(extra, dict) else None
        sound = isinstance(names, list) and all(isinstance(name, str) for name in names)
        sound = sound and type(classes.get("ignore", 0)) is int and isinstance(use, dict)
        sound = sound and all(isinstance(use.get(key, {}), dict) for key in ("localize", "segment"))
    if not sound:
        raise CheckpointError(f"{path} is damaged: its header does not describe a model; use another one")


def _upgrade(path: Path, header: dict[str, Any]) -> dict[str, Any]:
    number = header.get("format", 0)
    if number > FORMAT:
        raise CheckpointError(
            f"{path} has format {number}, written by tagmask {header.get('tagmask')}; this is tagmask "
            f"{__version__}, which reads formats up to {FORMAT}. Update tagmask"
        )
    while number < FORMAT:
        if number not in _UPGRADES:
            raise CheckpointError(f"{path} has format {number}, which no tagmask reads")
        header = _UPGRADES[number](header)
        number += 1
    return header


def save_model(folder: Path, state: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Path:
    """Write a model folder: ``weights.safetensors`` and ``meta.json``.

    Args:
        folder: Made if missing.
        state: The method's state dict.
        meta: At least "method", "settings" and "classes"; also "metrics" and "extra".

    Returns:
        The weight file.

    Raises:
        ValueError: A needed entry is missing from `meta`.
        CheckpointError: A weight is not finite, or a file cannot be written; the model that was there before
            still loads.
    """
    if missing := [key for key in _NEEDED if key not in meta]:
        raise ValueError(f"meta lacks {missing}")
    require_finite(state, f"the model for {folder}")
    weights = folder / "weights.safetensors"
    save_tensors(weights, state, meta)
    write_json(folder / "meta.json", {"format": FORMAT, "tagmask": __version__, **meta})
    return weights


@torch.no_grad()
def non_finite(state: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinity; the device is waited for once."""
    names = [name for name, value in state.items() if value.is_floating_point() and value.numel()]
    if not names:
        return []
    device = state[names[0]].device
    flags = torch.stack([state[name].isfinite().all().to(device) for name in names]).tolist()
    return [name for name, finite in zip(names, flags, strict=True) if not finite]


def require_finite(state: Mapping[str, Tensor], what: str) -> None:
    """Refuse weights with NaN or infinity, whose masks and scores would look like results.

    Raises:
        CheckpointError: A tensor holds one.
    """
    if broken := non_finite(state):
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise CheckpointError(
            f"{what} holds numbers that are not finite (in {broken[0]}{more}): its training went wrong. Use "
            "another model, or train again from an earlier state with a lower learning rate"
        )


def weight_file(path: Path) -> Path:
    """The weight file of a model folder, of ours or one laid out for a hub; anything else is given back."""
    if not path.is_dir():
        return path
    published = path / PUBLISHED
    own = path / "weights.safetensors"
    return published if published.exists() and not own.exists() else own


def load_model(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State dict and header of a model folder, or of its weight file given directly.

    Raises:
        CheckpointError: There is no model, it is damaged, it comes from a newer tagmask, or a weight is not
            finite.
    """
    path = weight_file(folder)
    state, meta = load_tensors(path)
    _check_meta(path, meta)
    require_finite(state, str(path))
    return state, meta


def read_header(folder: Path) -> dict[str, Any]:
    """Header of a model folder, without its weights.

    Raises:
        CheckpointError: There is no model, or it comes from a newer tagmask.
    """
    path = weight_file(folder) if folder.is_dir() else folder / "weights.safetensors"
    check_regular(path, error=CheckpointError)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("tagmask")
    except FileNotFoundError:
        raise CheckpointError(f"no model in {folder}") from None
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or not a safetensors file ({error})") from None
    if text is None:
        raise CheckpointError(f"{path} was not written by tagmask (its header is missing)")
    header = _header(path, text)
    _check_meta(path, header)
    return header


def is_own(path: Path) -> bool:
    """Whether a file was written by `save_tensors`; False for anything else, readable or not."""
    try:
        check_regular(path)
        with safe_open(path, framework="pt") as file:
            return "tagmask" in (file.metadata() or {})
    except (OSError, SafetensorError, ValueError, DataError):
        return False

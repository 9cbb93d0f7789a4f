"""ImageNet weights of ResNet-38 from the ademxapp project's MXNet file, without MXNet."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tagmask.errors import CheckpointError

__all__ = ["read_params", "rename_resnet38"]

# No one-time converter outside the package: recipes (voc/psa, voc/transcam) name the published file itself.
_LIST_MAGIC = 0x112
# Array headers: before version 1 the first word is the number of axes itself.
_V1, _V2 = 0xF993FAC8, 0xF993FAC9
_TYPES = {0: "<f4", 1: "<f8", 2: "<f2", 3: "u1", 4: "<i4", 5: "i1", 6: "<i8"}
_UNIT = re.compile(r"(res|bn)(\d)(?:a|b(\d+))_(branch\w+?)_(.+)")
_SUFFIXES = {
    "weight": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "mean": "running_mean",
    "moving_var": "running_var",
    "var": "running_var",
}


def read_params(path: str | Path) -> dict[str, Tensor]:
    """Arrays of an MXNet ``.params`` file (dense, little endian; written by MXNet 0.7 to 1.x).

    Args:
        path: The file.

    Returns:
        Values by name, the "arg:" or "aux:" in front removed.

    Raises:
        CheckpointError: The file is missing, cut short, or holds something else.
    """
    path = Path(path)
    try:
        content = _Reader(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"no weight file at {path}: {error}") from None
    try:
        if content.take("Q") != _LIST_MAGIC:
            raise CheckpointError(f"{path} is no MXNet .params file")
        content.take("Q")
        arrays = [_read_array(content) for _ in range(content.take("Q"))]
        names = [content.take_bytes(content.take("Q")).decode() for _ in range(content.take("Q"))]
    except (struct.error, UnicodeDecodeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is cut short or of an unknown MXNet version: {error}") from None
    if len(names) != len(arrays):
        raise CheckpointError(f"{path} has {len(arrays)} arrays but {len(names)} names")
    return {name.partition(":")[2] or name: array for name, array in zip(names, arrays, strict=True)}


def rename_resnet38(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """MXNet names to those of `backbones.resnet38.ResNet38`; the 1000-way classifier is left out.

    Raises:
        CheckpointError: A name belongs to another network.
    """
    return {_rename(name): value for name, value in state.items() if not name.startswith("linear")}


def _rename(name: str) -> str:
    if name == "conv1a_weight":
        return "conv1a.weight"
    if name.startswith("bn7_"):
        unit, suffix = "bn7", name.removeprefix("bn7_")
    else:
        match = _UNIT.fullmatch(name)
        if match is None:
            raise CheckpointError(
                f"'{name}' is no entry of ademxapp's ResNet-38 (res2a_branch2a_weight, ...)"
            )
        kind, stage, repeat, branch, suffix = match.groups()
        block = f"b{stage}_{repeat}" if repeat else f"b{stage}"
        unit = f"{block}.{'conv' if kind == 'res' else 'bn'}_{branch}"
    if suffix not in _SUFFIXES:
        raise CheckpointError(f"'{name}' ends in '{suffix}'; expected one of {', '.join(_SUFFIXES)}")
    return f"{unit}.{_SUFFIXES[suffix]}"


class _Reader:
    """Little-endian values one after the other."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._place = 0

    def take(self, kind: str) -> int:
        value = struct.unpack_from(f"<{kind}", self._content, self._place)[0]
        self._place += struct.calcsize(f"<{kind}")
        return int(value)

    def take_bytes(self, count: int) -> bytes:
        part = self._content[self._place : self._place + count]
        if len(part) != count:
            raise ValueError(f"{count} bytes expected, {len(part)} left")
        self._place += count
        return part


def _read_array(content: _Reader) -> Tensor:
    word = content.take("I")
    if word == _V2 and content.take("i") != 0:
        raise ValueError("sparse arrays are not supported")
    if word in (_V1, _V2):
        shape = [content.take("q") for _ in range(content.take("I"))]
    else:
        shape = [content.take("I") for _ in range(word)]
    content.take("i")  # device type and number of the machine that wrote it
    content.take("i")
    dtype = np.dtype(_TYPES[content.take("i")])
    values = np.frombuffer(content.take_bytes(dtype.itemsize * int(np.prod(shape))), dtype)
    return torch.from_numpy(values.reshape(shape).copy())

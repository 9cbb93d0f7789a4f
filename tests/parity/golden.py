"""Stored outputs of the originals: reading them, making their weights, comparing with ours."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Kind = Literal["abs", "rel", "exact", "mismatch"]


@dataclass(frozen=True)
class Golden:
    """One stored case: `meta`, and arrays without their `input/` and `output/` prefixes."""

    name: str
    meta: dict[str, Any]
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]

    def tensor(self, key: str) -> Tensor:
        """An input as a tensor."""
        return torch.from_numpy(np.array(self.inputs[key]))

    def output(self, key: str) -> Tensor:
        """A stored output as a tensor."""
        return torch.from_numpy(np.array(self.outputs[key]))

    @property
    def config(self) -> dict[str, Any]:
        """Settings of the original's run; some files keep them beside the rest of `meta`."""
        return {**self.meta, **self.meta.get("config", {})}

    def shape(self, ending: str) -> tuple[int, ...]:
        """Shape of the weight whose name ends so."""
        entries = {name: tuple(shape) for name, shape in self.meta["state_dict"]}
        return next(shape for name, shape in entries.items() if f".{name}".endswith(f".{ending}"))

    def numbers(self, pattern: str) -> list[int]:
        """What the group of a pattern matches in the names of inputs and outputs, ascending."""
        found = (re.fullmatch(pattern, key) for key in (*self.inputs, *self.outputs))
        return sorted({int(match[1]) for match in found if match})


@dataclass(frozen=True)
class Check:
    """One comparison: "rel" is max|a-b| / max|b|, "mismatch" the fraction of unequal entries."""

    name: str
    ours: Any
    golden: Any
    kind: Kind
    tolerance: float = 0.0

    def difference(self) -> float:
        """Size of the difference in the unit of `kind`; NaN equals NaN; another shape is infinitely far."""
        ours, golden = _array(self.ours), _array(self.golden)
        if ours.shape != golden.shape:
            return float("inf")
        if self.kind == "mismatch":
            return float(np.mean(ours != golden)) if ours.size else 0.0
        if self.kind == "exact" and ours.dtype.kind in "USO":
            return 0.0 if (ours == golden).all() else float("inf")
        a, b = ours.astype(np.float64), golden.astype(np.float64)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        with np.errstate(invalid="ignore"):  # inf - inf, which `same` has already settled
            gap = np.where(same, 0.0, np.abs(a - b))
        if np.isnan(gap).any():
            return float("inf")
        largest = float(gap.max(initial=0.0))
        if self.kind == "rel":
            scale = float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
            return largest / scale if scale > 0 else largest
        return largest

    def passes(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self.difference() <= self.tolerance


def _array(value: Any) -> np.ndarray:
    return value.detach().cpu().float().numpy() if _is_half(value) else np.asarray(_plain(value))


def _is_half(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)


def _plain(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else value


def load_golden(path: str | Path) -> Golden:
    """Read one .npz; nothing in it is unpickled."""
    path = Path(path)
    with np.load(path, allow_pickle=False) as archive:
        meta = json.loads(str(archive["meta"]))
        inputs = {k.removeprefix("input/"): archive[k] for k in archive.files if k.startswith("input/")}
        outputs = {k.removeprefix("output/"): archive[k] for k in archive.files if k.startswith("output/")}
    return Golden(path.stem, meta, inputs, outputs)


def golden_weights(entries: Iterable[tuple[str, Iterable[int]]]) -> dict[str, Tensor]:
    """Weights that every machine makes alike from names and shapes: {name: tensor}."""
    return dict(_filled(tuple((name, tuple(shape)) for name, shape in entries)))


@lru_cache(maxsize=1)
def _filled(entries: tuple[tuple[str, tuple[int, ...]], ...]) -> dict[str, Tensor]:
    """The last weights are kept: they take seconds, and files of one network follow one another."""
    return {name: torch.from_numpy(_fill(name, shape)) for name, shape in entries}


def forget_weights() -> None:
    """Free the weights kept for the next file."""
    _filled.cache_clear()


class Blank(TorchFunctionMode):
    """Networks built inside get zeros for random weights; all are overwritten, and that spares seconds.

    Only for networks whose weights are loaded strictly afterwards.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Zeros wherever random numbers were to be drawn; some initialisers draw until all are in range."""
        kwargs = kwargs or {}
        if func in _RANDOM or getattr(func, "__module__", None) == "torch.nn.init":
            return (args[0] if args else kwargs["tensor"]).detach().zero_()
        return func(*args, **kwargs)


_RANDOM = (Tensor.uniform_, Tensor.normal_, Tensor.erfinv_)


def joint_norm(tensors: Iterable[Tensor]) -> float:
    """Norm of all entries of several tensors together, summed in double precision."""
    return float(torch.stack([torch.linalg.vector_norm(t, dtype=torch.float64) for t in tensors]).norm())


def _fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, dtype=np.int64)
    random = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFFFFFF)
    noise = random.standard_normal(size=shape).astype(np.float32)
    if name.endswith("running_var"):
        return (0.5 + np.abs(noise)).astype(np.float32, copy=False)
    if name.endswith("running_mean"):
        return (0.1 * noise).astype(np.float32, copy=False)
    if len(shape) <= 1:
        return (0.02 * noise if name.endswith("bias") else 1.0 + 0.1 * noise).astype(np.float32, copy=False)
    if len(shape) == 3 and ("token" in name or "pos_embed" in name):
        return (0.2 * noise).astype(np.float32, copy=False)
    return (noise / np.sqrt(int(np.prod(shape[1:])))).astype(np.float32, copy=False)

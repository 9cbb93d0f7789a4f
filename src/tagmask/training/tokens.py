"""The lower part of a network, computed once: the tokens in front of a transformer's upper blocks."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tagmask.backbones.vit import ViT
from tagmask.engine.compute import Compute
from tagmask.methods.base import Method

__all__ = ["Cut", "TokenStore", "find_encoder"]

_IN_MEMORY = 512 << 20
"""Tokens that would take more bytes lie in a file that is read where needed."""


def find_encoder(method: Method) -> ViT | None:
    """The plain vision transformer that a method segments with; None if it has another backbone."""
    return next((part for part in method.modules() if isinstance(part, ViT)), None)


class _Reached(Exception):
    """The forward pass has come to the block that was asked for."""


class _Passed(nn.Module):
    """Stands where a block stood whose work was done before."""

    def forward(self, tokens: Tensor, *others: Any) -> Tensor:
        return tokens


class Cut:
    """A method whose lower part is computed once for every view, and its upper part as often as wanted.

    Of a plain vision transformer the lower part is everything in front of a block. A method with another
    backbone is not cut: what is kept of a view is the view itself.

    Args:
        method: Segments; on the device, used by nobody else, and given back by `close`.
        blocks: How many blocks of a transformer lie above the cut.
        compute: Device and precision.

    Attributes:
        method: The method.
        heads: Parameters outside the backbone.
        upper: Parameters of the backbone above the cut; none if it is not cut.
    """

    def __init__(self, method: Method, blocks: int, compute: Compute) -> None:
        self.method, self._compute = method, compute
        self._encoder = find_encoder(method)
        self._given: Tensor | None = None
        self._lower: list[nn.Module] = []
        self._handle: Any = None
        if self._encoder is None:
            self.heads, self.upper = _heads(method), []
            return
        places: Any = self._encoder.blocks
        self._first = max(len(places) - blocks, 0)
        inner = {id(param) for param in self._encoder.parameters()}
        self.heads = [param for param in method.parameters() if id(param) not in inner]
        above = [*places[self._first :], self._encoder.norm]
        self.upper = [param for module in above for param in module.parameters()]

    def lower(self, images: Tensor) -> Tensor:
        """What is kept of views: tokens (B, T, D) in front of the cut, or the views (B, 3, H, W)."""
        if self._encoder is None:
            return images
        found: list[Tensor] = []

        def keep(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            found.append(inputs[0])
            raise _Reached

        blocks: Any = self._encoder.blocks
        handle = blocks[self._first].register_forward_pre_hook(keep)
        try:
            with self._compute.predicting():
                self.method.segment(images.to(self._compute.device))
        except _Reached:
            return found[0].float()
        finally:
            handle.remove()
        raise ValueError(f"{type(self.method).__name__} segments without its encoder's last blocks")

    def skip(self) -> None:
        """From now on passes begin at the cut, see `upon`."""
        if self._encoder is None or self._lower:
            return
        blocks: Any = self._encoder.blocks
        self._lower = [blocks[index] for index in range(self._first)]
        for index in range(self._first):
            blocks[index] = _Passed()

        def replace(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            return (self._given, *inputs[1:])

        self._handle = blocks[self._first].register_forward_pre_hook(replace)

    def upon(self, fn: Callable[[Tensor], Tensor], kept: Tensor, side: int) -> Tensor:
        """A function of images, for views of which only what `lower` gave is known.

        Args:
            fn: A pass of the method, such as its `segment`.
            kept: What `lower` gave.
            side: S, side of the views in pixels.
        """
        if self._encoder is None:
            return fn(kept)
        self._given = kept
        try:
            # Such a pass reads nothing of the images but their size.
            channels = self._encoder.patch_embed.proj.in_channels
            return fn(kept.new_zeros(len(kept), channels, side, side))
        finally:
            self._given = None

    def weights(self) -> dict[str, Tensor]:
        """A copy of what the method holds now, without the blocks that are skipped."""
        return {key: value.clone() for key, value in self.method.state_dict().items()}

    def go(self, start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float) -> None:
        """Set the weights that lie a share of the way between two copies."""
        mixed = {
            key: torch.lerp(start[key], value, share)
            if value.is_floating_point()
            else (value if share else start[key])
            for key, value in end.items()
        }
        self.method.load_state_dict(mixed)

    def close(self) -> Method:
        """The method with its lower blocks back in their places."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        blocks: Any = None if self._encoder is None else self._encoder.blocks
        for index, module in enumerate(self._lower):
            blocks[index] = module
        self._lower = []
        return self.method


def _heads(method: Method) -> list[nn.Parameter]:
    """What lies behind the backbone: a segmenter says so itself, other methods call it their decoder."""
    marks = getattr(getattr(method, "network", None), "heads", ()) or ("decoder",)
    return [param for name, param in method.named_parameters() if any(mark in name for mark in marks)]


class TokenStore:
    """Tokens and labels of many views: half precision, in memory or, if they are many, in a file.

    Args:
        rows: Views that may come.
        shape: Of what is kept of a view, (T, D) or (3, S, S).
        side: S, its labels are (S, S).

    Attributes:
        labels: (rows, S, S) uint8, 255 unknown.
        used: Rows that are filled.
    """

    def __init__(self, rows: int, shape: tuple[int, ...], side: int) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.labels: NDArray[np.uint8] = np.empty((rows, side, side), np.uint8)
        self.used = 0
        self._tokens: NDArray[np.float16]
        if 2 * rows * math.prod(shape) <= _IN_MEMORY:
            self._tokens = np.empty((rows, *shape), np.float16)
        else:
            self._folder = tempfile.TemporaryDirectory(prefix="tagmask-")
            place = Path(self._folder.name) / "tokens"
            self._tokens = np.memmap(place, np.float16, "w+", shape=(rows, *shape))

    def add(self, tokens: Tensor, labels: NDArray[np.uint8]) -> list[int]:
        """Keep views; gives their rows.

        Args:
            tokens: (B, ...).
            labels: (B, S, S).
        """
        rows = list(range(self.used, self.used + len(labels)))
        # Half precision ends at 65504; a residual stream comes near only where something is broken.
        self._tokens[rows] = tokens.clamp(-6e4, 6e4).cpu().numpy().astype(np.float16)
        self.labels[rows] = labels
        self.used += len(labels)
        return rows

    def get(self, rows: NDArray[np.int64] | list[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Tokens (B, ...) float32 and labels (B, S, S) int64 of some rows."""
        tokens = torch.from_numpy(np.asarray(self._tokens[rows], np.float32)).to(device)
        return tokens, torch.from_numpy(self.labels[rows].astype(np.int64)).to(device)

    def close(self) -> None:
        """Remove the file, if there is one."""
        del self._tokens
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

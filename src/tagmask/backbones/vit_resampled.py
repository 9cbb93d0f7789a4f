"""Pretrained ViTs resampled to another patch size and position grid, as WeakTr's second phase needs them.

The position table is resampled once, when the pretrained weights are read, and again (bilinearly) for images
of another grid; patch kernels of another size are resampled bicubically. Neither is antialiased, which is
where timm's own resizing differs by a tenth of the value range.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagmask.backbones.vit import ViT
from tagmask.ops.resize import resize_positions

__all__ = ["ResampledViT", "resize_kernel"]

_EPS = 1e-5


class ResampledViT(ViT):
    """An encoder with random weights, see the module's description.

    Args:
        name: timm name or custom shape, see `ViT`; EVA-02, such as ``eva02_small_patch14_224.mim_in22k``, has
            its rotary positions beside the table.
        size: Side in pixels of the images the position table is made for.
        patch: Patch side in pixels; 16 for networks with patches of 14, else the network's own, if None.
        drop_path: Largest stochastic-depth rate (linear over the blocks).

    Raises:
        ConfigError: The name is unknown or no plain ViT.
    """

    def __init__(self, name: str, size: int = 480, patch: int | None = None, drop_path: float = 0.1) -> None:
        # The published AugReg runs start from a file whose reader resizes bicubically.
        mode = "bicubic" if "augreg" in _tag(name) else "bilinear"
        super().__init__(
            name,
            1,
            0,
            normalisation=_rounded(name),
            extra_token_noise=0.0,
            grid_mode=mode,
            drop_path=drop_path,
        )
        side = patch or (16 if self.patch_size == 14 else self.patch_size)
        if side != self.patch_size:
            self.patch_embed.proj = nn.Conv2d(3, self.dim, side, side)
            self.patch_size = side
        before, self.grid = self.grid, (size // side,) * 2
        self.pos_embed = nn.Parameter(_positions(self.pos_embed.detach(), self.grid, before))
        _set_eps(self)

    def positions(self, size: tuple[int, int], grid: tuple[int, int] | None = None) -> Tensor:
        """Position rows for an image of (height, width) pixels and its patch grid, (1, 1 + h * w, D)."""
        grid = grid or (size[0] // self.patch_size, size[1] // self.patch_size)
        return _positions(self.pos_embed, grid, self.grid)

    def load_plain(self, state: dict[str, Tensor], source: str) -> None:
        """Load a plain ViT into this one, see `ViT.load_plain`; the patch kernel may have another size."""
        super().load_plain(_with_kernel(state, self.patch_size), source)


def resize_kernel(kernel: Tensor, side: int) -> Tensor:
    """Patch kernel (D, 3, p, p) at another side, bicubic without antialiasing."""
    if kernel.shape[-1] == side:
        return kernel
    return F.interpolate(kernel, (side, side), mode="bicubic", align_corners=False)


def _with_kernel(state: dict[str, Tensor], side: int) -> dict[str, Tensor]:
    key = "patch_embed.proj.weight"
    return state | {key: resize_kernel(state[key], side)} if key in state else state


def _positions(rows: Tensor, grid: tuple[int, int], stored: tuple[int, int]) -> Tensor:
    """Position rows of a class token and a patch grid."""
    # An exported graph resamples always; to the stored grid that changes nothing.
    if grid == stored and not torch.compiler.is_exporting():
        return rows
    table = resize_positions(rows[:, 1:], grid, stored, mode="bilinear")
    return torch.cat([rows[:, :1], table], 1)


def _set_eps(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = _EPS


def _config(name: str) -> Any:
    import timm  # see vit_names.py

    return timm.get_pretrained_cfg(name) if timm.is_model(name.split(".")[0]) else None


def _tag(name: str) -> str:
    config = _config(name)
    return cast(str, config.tag) if config is not None else ""


def _rounded(name: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and deviation the weights expect, rounded to hundredths of a grey level as published."""
    config = _config(name)
    half = (0.5, 0.5, 0.5)
    pair = (half, half) if config is None else (tuple(config.mean), tuple(config.std))
    mean, std = (tuple(float(np.round(255 * value, 2)) / 255 for value in values) for values in pair)
    return cast("tuple[tuple[float, float, float], tuple[float, float, float]]", (mean, std))

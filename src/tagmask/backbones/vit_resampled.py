"""Pretrained ViTs resampled to another patch size and position grid, as WeakTr's second phase needs them.

The position table is resampled once, when the pretrained weights are read, and again (bilinearly) for images
of another grid; patch kernels of another size are resampled bicubically. Neither is antialiased, which is
where timm's own resizing differs by a tenth of the value range.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagmask.backbones.base import TokenFeatures, recomputed
from tagmask.backbones.vit import ViT
from tagmask.backbones.weights import hub_weights, load_strictly, read_weights
from tagmask.errors import CheckpointError
from tagmask.ops.resize import resize_positions

__all__ = ["ResampledEva", "ResampledViT", "resampled_vit", "resize_kernel"]

_EPS = 1e-5


def resampled_vit(
    name: str, size: int = 480, patch: int | None = None, drop_path: float = 0.1
) -> ViT | ResampledEva:
    """An encoder by timm name, with random weights.

    Args:
        name: A plain ViT (ViT, DeiT, DINO, DINOv2), or an EVA-02 such as
            ``eva02_small_patch14_224.mim_in22k``.
        size: Side in pixels of the images the position table is made for.
        patch: Patch side in pixels; 16 for networks with patches of 14, else the network's own, if None.
        drop_path: Largest stochastic-depth rate.

    Raises:
        ConfigError: The name is unknown or of another kind.
    """
    kind = ResampledEva if name.startswith("eva02") else ResampledViT
    return kind(name, size, patch, drop_path)


class ResampledViT(ViT):
    """See the module's description.

    Args:
        name: timm name or custom shape, see `ViT`.
        size: See `resampled_vit`.
        patch: See `resampled_vit`.
        drop_path: See `resampled_vit`.
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


class ResampledEva(nn.Module):
    """EVA-02 (Fang et al., 2023): rotary positions beside the table, SwiGLU; timm's blocks under our loop.

    Args:
        name: timm name.
        size: See `resampled_vit`.
        patch: See `resampled_vit`.
        drop_path: See `resampled_vit`.
    """

    mean: Tensor
    std: Tensor
    gradient_checkpointing = False
    """Whether blocks keep only their input for the backward pass."""

    def __init__(self, name: str, size: int = 480, patch: int | None = None, drop_path: float = 0.1) -> None:
        super().__init__()
        side = patch or 16
        model: Any = timm.create_model(
            name,
            pretrained=False,
            num_classes=0,
            img_size=size // side * side,
            patch_size=side,
            drop_path_rate=drop_path,
            dynamic_img_size=True,
        )
        self.name, self.dim, self.patch_size = name, int(model.embed_dim), side
        self.num_heads = int(model.blocks[0].attn.num_heads)
        self.grid = (size // side,) * 2
        self.cls_token, self.pos_embed = model.cls_token, model.pos_embed
        self.patch_embed, self.blocks = model.patch_embed, model.blocks
        self.rope = model.rope  # angles are computed from the grid; nothing of it is saved
        # timm moves the last norm behind the pooling, where the masks would not see it.
        self.norm = nn.LayerNorm(self.dim)
        mean, std = _rounded(name)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        _set_eps(self)

    def initialise(self, weights: str) -> None:
        """Load pretrained weights from "hub", "none" (stay random) or a local file with timm's names.

        Raises:
            CheckpointError: The weights cannot be had or do not fit.
        """
        if weights == "none":
            return
        hub = weights == "hub"
        state = hub_weights(self.name) if hub else read_weights(weights)
        self.load_plain(state, f"the hub's {self.name}" if hub else f"{weights} for {self.name}")

    def load_plain(self, state: dict[str, Tensor], source: str) -> None:
        """Load a plain EVA-02 (timm's names, any classifier); its table and kernel are resampled.

        Raises:
            CheckpointError: A name is missing or a shape differs; nothing is changed then.
        """
        skipped = ("head.", "mask_token", "rope", "lm_head")
        state = {
            key.replace("fc_norm.", "norm."): value
            for key, value in state.items()
            if not key.startswith(skipped)
        }
        table = state.get("pos_embed")
        if table is None or table.shape[-1] != self.dim:
            raise CheckpointError(f"{source} does not fit: it needs a pos_embed of width {self.dim}")
        state = _with_kernel(state, self.patch_size)
        load_strictly(self, state | {"pos_embed": _positions(table, self.grid, None)}, source)

    def forward(self, images: Tensor) -> TokenFeatures:
        """Tokens after the final norm for RGB images in [0, 1], (B, 3, H, W)."""
        cells = self.patch_embed.proj((images - self.mean) / self.std)
        grid = (cells.shape[2], cells.shape[3])
        patches = cells.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(images.shape[0], -1, -1).to(patches.dtype), patches], 1)
        tokens = tokens + _positions(self.pos_embed, grid, self.grid)
        rotary = self.rope.get_embed(grid)
        for block in self.blocks:
            tokens = recomputed(self.gradient_checkpointing, block, tokens, rotary)
        tokens = self.norm(tokens)
        maps = tokens[:, 1:].transpose(1, 2).reshape(images.shape[0], self.dim, *grid)
        return TokenFeatures(tokens[:, :1], maps, grid)


def resize_kernel(kernel: Tensor, side: int) -> Tensor:
    """Patch kernel (D, 3, p, p) at another side, bicubic without antialiasing."""
    if kernel.shape[-1] == side:
        return kernel
    return F.interpolate(kernel, (side, side), mode="bicubic", align_corners=False)


def _with_kernel(state: dict[str, Tensor], side: int) -> dict[str, Tensor]:
    key = "patch_embed.proj.weight"
    return state | {key: resize_kernel(state[key], side)} if key in state else state


def _positions(rows: Tensor, grid: tuple[int, int], stored: tuple[int, int] | None) -> Tensor:
    """Position rows of a class token and a patch grid; the stored one is a square if None."""
    # An exported graph resamples always; to the stored grid that changes nothing.
    if torch.compiler.is_exporting():
        stored = stored or (math.isqrt(rows.shape[1] - 1),) * 2
    elif grid == stored or (stored is None and rows.shape[1] == 1 + grid[0] * grid[1]):
        return rows
    table = resize_positions(rows[:, 1:], grid, stored, mode="bilinear")
    return torch.cat([rows[:, :1], table], 1)


def _set_eps(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = _EPS


def _config(name: str) -> Any:
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

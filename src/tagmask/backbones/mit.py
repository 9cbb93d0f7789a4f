"""Mix Transformer (MiT), the pyramid encoder of SegFormer (Xie et al., NeurIPS 2021), with attention to read.

Parameter names are those of the published weights, so that checkpoints of SegFormer's encoder and of methods
built on it load without renaming; `mit_names.mit_names` reads the transformers library's names.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagmask.backbones.base import IMAGENET_MEAN, IMAGENET_STD, recomputed

__all__ = ["MIT_VARIANTS", "MixTransformer", "PyramidFeatures"]


@dataclass(frozen=True)
class Variant:
    """Sizes of one MiT: width and number of blocks of each of the four stages."""

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]


_WIDE = (64, 128, 320, 512)
MIT_VARIANTS = {
    "mit_b0": Variant((32, 64, 160, 256), (2, 2, 2, 2)),
    "mit_b1": Variant(_WIDE, (2, 2, 2, 2)),
    "mit_b2": Variant(_WIDE, (3, 4, 6, 3)),
    "mit_b3": Variant(_WIDE, (3, 4, 18, 3)),
    "mit_b4": Variant(_WIDE, (3, 8, 27, 3)),
    "mit_b5": Variant(_WIDE, (3, 6, 40, 3)),
}
_HEADS = (1, 2, 5, 8)
_REDUCTIONS = (8, 4, 2, 1)
_KERNELS = (7, 3, 3, 3)


@dataclass(frozen=True)
class PyramidFeatures:
    """What a pyramid encoder says about a batch of images.

    Attributes:
        maps: One feature map per stage, finest first, (B, D_i, h_i, w_i).
        attention: Queries and keys of chosen blocks, {block index over the whole network: (q, k)}, each
            (B', A, n, d) with B' the attended images; queries are averaged over the cells of their key, so
            that q @ k^T is the square map of unscaled attention scores pooled to the key grid.
    """

    maps: tuple[Tensor, ...]
    attention: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


class MixTransformer(nn.Module):
    """MiT-B0 to B5.

    Args:
        name: A key of `MIT_VARIANTS`.
        strides: Downsampling of each stage; SegFormer takes (4, 2, 2, 2), AFA keeps the last stage at 1/16
            for finer maps.
        drop_path: Stochastic depth of the last block; grows linearly from 0 in the first.

    Raises:
        ValueError: `name` is not a variant or `strides` are not four positive numbers.
    """

    gradient_checkpointing = False
    """Whether training keeps only each block's input and computes the rest again in the backward pass."""
    mean: Tensor
    std: Tensor

    def __init__(self, name: str, strides: tuple[int, ...] = (4, 2, 2, 1), drop_path: float = 0.1) -> None:
        super().__init__()
        if name not in MIT_VARIANTS or len(strides) != 4 or min(strides) < 1:
            raise ValueError(
                f"need one of {', '.join(MIT_VARIANTS)} and four strides of at least 1, got {name} {strides}"
            )
        variant = MIT_VARIANTS[name]
        self.widths, self.strides, self.heads = variant.widths, strides, _HEADS
        self.num_blocks = sum(variant.depths)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)
        # All embeddings come before the blocks, which is the parameter order of published checkpoints.
        before = (3, *variant.widths[:-1])
        for i, width in enumerate(variant.widths):
            embedding = _PatchEmbedding(before[i], width, _KERNELS[i], strides[i])
            self.add_module(f"patch_embed{i + 1}", embedding)
        rates = iter([drop_path * i / (self.num_blocks - 1) for i in range(self.num_blocks)])
        for i, (width, depth) in enumerate(zip(variant.widths, variant.depths, strict=True)):
            blocks = [_Block(width, _HEADS[i], _REDUCTIONS[i], next(rates)) for _ in range(depth)]
            self.add_module(f"block{i + 1}", nn.ModuleList(blocks))
            self.add_module(f"norm{i + 1}", nn.LayerNorm(width, eps=1e-6))
        self.apply(_initialise)

    def forward(
        self, images: Tensor, attention: Collection[int] = (), attended: int | None = None
    ) -> PyramidFeatures:
        """Feature maps of all stages.

        Args:
            images: RGB in [0, 1], (B, 3, H, W), sides of at least 29 pixels.
            attention: Blocks whose queries and keys are wanted, counted over the network; negative ones from
                the end.
            attended: Only of the first so many images; of all if None.

        Raises:
            ValueError: The images are too small for the reduced keys of some stage.
        """
        if not torch.compiler.is_exporting():
            self._check_size(images.shape[2], images.shape[3])
        chosen = {index % self.num_blocks for index in attention}
        x = (images - self.mean) / self.std
        maps: list[Tensor] = []
        found: dict[int, tuple[Tensor, Tensor]] = {}
        index = 0
        for i in range(1, 5):
            x, grid = self.get_submodule(f"patch_embed{i}")(x)
            for block in self.get_submodule(f"block{i}").children():
                x, pair = recomputed(
                    self.gradient_checkpointing, block, x, grid, attended if index in chosen else 0
                )
                if pair is not None:
                    found[index] = pair
                index += 1
            x = _as_map(self.get_submodule(f"norm{i}")(x), grid)
            maps.append(x)
        return PyramidFeatures(tuple(maps), found)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Size of the last feature map for images of a given size."""
        return self._grids(height, width)[-1]

    def _grids(self, height: int, width: int) -> list[tuple[int, int]]:
        grids = []
        for stride in self.strides:
            height, width = math.ceil(height / stride), math.ceil(width / stride)
            grids.append((height, width))
        return grids

    def _check_size(self, height: int, width: int) -> None:
        for grid, reduction in zip(self._grids(height, width), _REDUCTIONS, strict=True):
            if min(grid) < reduction:
                raise ValueError(
                    f"images of {height} x {width} are too small for a Mix Transformer: a stage has "
                    f"{grid[0]} x {grid[1]} cells and needs {reduction} per side; enlarge the image "
                    "(29 pixels per side suffice at the usual strides)"
                )


class _PatchEmbedding(nn.Module):
    def __init__(self, before: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(before, width, kernel, stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x = self.proj(x)
        grid = (x.shape[2], x.shape[3])
        return self.norm(x.flatten(2).transpose(1, 2)), grid


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, reduction: int, drop_path: float) -> None:
        from timm.layers.drop import DropPath  # seconds, which commands without a network need not spend

        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = _Attention(width, heads, reduction)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = _Mlp(width, 4 * width)
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Tensor, grid: tuple[int, int], attended: int | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        mixed, pair = self.attn(self.norm1(x), grid, attended)
        x = x + self.drop_path(mixed)
        return x + self.drop_path(self.mlp(self.norm2(x), grid)), pair


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        if reduction > 1:
            self.sr = nn.Conv2d(width, width, reduction, reduction)
            self.norm = nn.LayerNorm(width)

    def forward(
        self, x: Tensor, grid: tuple[int, int], attended: int | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        source = x
        if self.reduction > 1:
            small = self.sr(_as_map(x, grid))
            source = self.norm(small.flatten(2).transpose(1, 2))
        query = self._split(self.q(x))
        key, value = (self._split(part) for part in self.kv(source).chunk(2, dim=-1))
        mixed = F.scaled_dot_product_attention(query, key, value)
        out = self.proj(mixed.transpose(1, 2).flatten(2))
        return out, None if attended == 0 else (self._pool(query[:attended], grid), key[:attended])

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def _pool(self, query: Tensor, grid: tuple[int, int]) -> Tensor:
        # The mean of a score over queries is the score of the mean query: no map of all queries is built.
        if self.reduction == 1:
            return query
        batch, heads, _, depth = query.shape
        cells = query.transpose(2, 3).reshape(batch, heads * depth, *grid)
        pooled = F.avg_pool2d(cells, self.reduction)
        return pooled.view(batch, heads, depth, -1).transpose(2, 3)


class _Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.dwconv = _DepthwiseConv(hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        mixed: Tensor = self.fc2(F.gelu(self.dwconv(self.fc1(x), grid)))
        return mixed


class _DepthwiseConv(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        mixed: Tensor = self.dwconv(_as_map(x, grid))
        return mixed.flatten(2).transpose(1, 2)


def _as_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *grid)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)

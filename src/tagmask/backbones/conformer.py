"""Conformer-S: a CNN and a transformer that exchange features at every stage (Peng et al., ICCV 2021).

timm has no such network. Parameter names are those of the published files, heads left to the methods.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagmask.backbones.attention import attention_with_scores
from tagmask.backbones.base import IMAGENET_MEAN, IMAGENET_STD
from tagmask.backbones.weights import load_strictly, read_weights
from tagmask.errors import CheckpointError, ConfigError, nearest
from tagmask.ops.steps import in_steps

__all__ = ["Conformer", "ConformerFeatures", "is_conformer"]

_SHAPES = {
    "conformer_tiny": {"ratio": 1},
    "conformer_small": {},
    "conformer_base": {"ratio": 6, "dim": 576, "heads": 9},
}
_MOST = {"dim": 16384, "depth": 96, "heads": 1024, "ratio": 64, "base": 1024}
_DEFAULTS = {"dim": 384, "depth": 12, "heads": 6, "ratio": 4, "base": 64}
_HOW = (
    "Conformer has no weights on the hub. Give the local file Conformer_small_patch16.pth of "
    "pengzhiliang/Conformer, or 'none' to start from random weights"
)

# The stem and the last token normalisation keep PyTorch's 1e-5; everything else uses this.
_EPSILON = 1e-6


@dataclass(frozen=True)
class ConformerFeatures:
    """What the two branches end with.

    Attributes:
        map: Last CNN map, (B, channels, h, w) with h = H / 16, w = W / 16.
        tokens: Normalised tokens, class token first, (B, 1 + N, D).
        scores: Scaled attention scores before softmax of chosen blocks, {block index: (B, A, 1 + N, 1 + N)},
            or what `reduce` made of them.
    """

    map: Tensor
    tokens: Tensor
    scores: dict[int, Tensor] = field(default_factory=dict)


class _ConvBlock(nn.Module):
    """ResNet bottleneck that can take a token map between its first and second convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, project: bool = False) -> None:
        super().__init__()
        middle = outputs // 4
        norm = partial(nn.BatchNorm2d, eps=_EPSILON)
        self.conv1 = nn.Conv2d(inputs, middle, 1, bias=False)
        self.bn1 = norm(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, 1, bias=False)
        self.bn2 = norm(middle)
        self.conv3 = nn.Conv2d(middle, outputs, 1, bias=False)
        self.bn3 = norm(outputs)
        self.residual_conv: nn.Module = nn.Identity()
        self.residual_bn: nn.Module = nn.Identity()
        if project:
            self.residual_conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.residual_bn = norm(outputs)

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Output map, and the middle map that is handed to the transformer."""
        hidden = F.relu(self.bn1(self.conv1(x)))
        middle = F.relu(self.bn2(self.conv2(hidden if tokens is None else hidden + tokens)))
        return F.relu(self.bn3(self.conv3(middle)) + self.residual_bn(self.residual_conv(x))), middle


class _Squeeze(nn.Module):
    """CNN map to patch tokens."""

    def __init__(self, inputs: int, dim: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.conv_project = nn.Conv2d(inputs, dim, 1)
        self.ln = nn.LayerNorm(dim, eps=_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.avg_pool2d(self.conv_project(x), self.factor)
        return F.gelu(self.ln(pooled.flatten(2).transpose(1, 2)))


class _Expand(nn.Module):
    """Patch tokens to a CNN map."""

    def __init__(self, dim: int, outputs: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.conv_project = nn.Conv2d(dim, outputs, 1)
        self.bn = nn.BatchNorm2d(outputs, eps=_EPSILON)

    def forward(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        x = patches.transpose(1, 2).reshape(patches.shape[0], -1, *grid)
        return F.interpolate(F.relu(self.bn(self.conv_project(x))), scale_factor=self.factor, mode="nearest")


class _Stage(nn.Module):
    """CNN block, tokens fed from it, transformer block, CNN block fed from the tokens."""

    def __init__(self, inputs: int, outputs: int, factor: int, block: Any, stride: int, last: bool) -> None:
        super().__init__()
        dim: int = block.norm1.normalized_shape[0]
        self.cnn_block = _ConvBlock(inputs, outputs, stride, project=inputs != outputs)
        self.fusion_block = _ConvBlock(outputs, outputs, project=last)
        self.squeeze_block = _Squeeze(outputs // 4, dim, factor)
        self.expand_block = _Expand(dim, outputs // 4, factor)
        self.trans_block = block

    def forward(
        self, x: Tensor, tokens: Tensor, double: bool, attend: Callable[[nn.Module, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        x, middle = self.cnn_block(x)
        first = tokens[:, :1] * 2 if double else tokens[:, :1]
        patches = tokens[:, 1:] + self.squeeze_block(middle)
        tokens = attend(self.trans_block, torch.cat([first, patches], dim=1))
        factor = self.squeeze_block.factor
        grid = (middle.shape[-2] // factor, middle.shape[-1] // factor)
        return self.fusion_block(x, self.expand_block(tokens[:, 1:], grid))[0], tokens


class Conformer(nn.Module):
    """Both branches, without heads.

    Two dialects share every weight but not their arithmetic. The original network and TransCAM double the
    class token at each of the stages 2 to 12; AReAM's rewrite does not, although it starts from weights
    trained with it. There is no position embedding.

    Args:
        name: conformer_tiny, conformer_small (the papers' choice), conformer_base, or a custom shape such as
            ``conformer:dim=96,depth=6,heads=2,ratio=1,base=16``. The maps of the CNN have 64, 128 and 256
            times `ratio` channels if `base`, the width of the stem, is 64.
        double_class_token: True for the original and TransCAM, False for AReAM.
        drop_path: Largest rate of dropped residual branches, reached at the last stage.

    Raises:
        ConfigError: The name is unknown.
    """

    stride = 16
    mean: Tensor
    std: Tensor

    def __init__(self, name: str, double_class_token: bool, drop_path: float = 0.1) -> None:
        from timm.models.vision_transformer import Block  # seconds, and not every command builds a network

        super().__init__()
        shape = _shape(name)
        self.double_class_token = double_class_token
        dim, depth, heads, ratio, base = (shape[key] for key in _DEFAULTS)
        self.dim, self.depth, self.channels = dim, depth, 4 * base * ratio
        rates = [drop_path * index / (depth - 1) for index in range(depth)]
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.trans_norm = nn.LayerNorm(dim)
        self.conv1 = nn.Conv2d(3, base, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(base)
        self.conv_1 = _ConvBlock(base, base * ratio, project=True)
        self.trans_patch_conv = nn.Conv2d(base, dim, 4, 4)
        norm: Any = partial(nn.LayerNorm, eps=_EPSILON)
        block = partial(Block, dim, heads, qkv_bias=True, norm_layer=norm)
        self.trans_1 = block(drop_path=rates[0])
        third, channels = depth // 3, base * ratio
        for index in range(2, depth + 1):
            # The CNN halves its map after each third; the token grid never changes.
            level = (index - 1) // third
            outputs = base * ratio * 2**level
            stage = _Stage(
                channels,
                outputs,
                factor=4 // 2**level,
                block=block(drop_path=rates[index - 1]),
                stride=1 if outputs == channels else 2,
                last=index == depth,
            )
            self.add_module(f"conv_trans_{index}", stage)
            channels = outputs
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)
        self.apply(_initialise)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def initialise(self, weights: str) -> None:
        """Load ImageNet weights; the classifier of the file is left out.

        Args:
            weights: "none" (stay random) or a local file: the original Conformer, TransCAM or AReAM.

        Raises:
            CheckpointError: "hub" was asked for, or the file is missing, damaged or of another network.
        """
        if weights == "none":
            return
        if weights == "hub":
            raise CheckpointError(_HOW)
        state = {key: value for key, value in read_weights(weights).items() if "head" not in key}
        load_strictly(self, state, weights)

    def forward(
        self,
        images: Tensor,
        *,
        scores: Collection[int] = (),
        reduce: Callable[[Tensor], Tensor] | None = None,
    ) -> ConformerFeatures:
        """Run both branches.

        Args:
            images: RGB in [0, 1], (B, 3, H, W), sides multiples of 16.
            scores: Blocks (0-based) whose attention scores are wanted, with gradient; the others use fused
                attention.
            reduce: Applied to every block's scores before they are kept, in the order of the blocks.

        Raises:
            ValueError: A side is no multiple of 16.
        """
        height, width = images.shape[-2:]
        if not torch.compiler.is_exporting() and (height % self.stride or width % self.stride):
            raise ValueError(
                f"Conformer needs sides that are multiples of {self.stride}, got {height} x {width}; "
                "pad or resize the images"
            )
        stem = self.conv1((images - self.mean) / self.std)
        stem = F.max_pool2d(F.relu(self.bn1(stem)), 3, 2, 1)
        x = self.conv_1(stem)[0]
        patches = self.trans_patch_conv(stem).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(images.shape[0], -1, -1), patches], dim=1)
        kept: dict[int, Tensor] = {}

        def attend(index: int, block: nn.Module, tokens: Tensor) -> Tensor:
            if index not in scores and not in_steps():
                fused: Tensor = block(tokens)
                return fused
            tokens, found = _block_with_scores(block, tokens)
            if index in scores:
                kept[index] = found if reduce is None else reduce(found)
            return tokens

        tokens = attend(0, self.trans_1, tokens)
        for index in range(1, self.depth):
            stage = self.get_submodule(f"conv_trans_{index + 1}")
            x, tokens = stage(x, tokens, self.double_class_token, partial(attend, index))
        return ConformerFeatures(x, self.trans_norm(tokens), kept)


def is_conformer(name: str) -> bool:
    """Whether a backbone's name means a Conformer, known or custom."""
    return name in _SHAPES or name.partition(":")[0] == "conformer"


def _shape(name: str) -> dict[str, int]:
    if name in _SHAPES:
        return {**_DEFAULTS, **_SHAPES[name]}
    kind, _, text = name.partition(":")
    shape = dict(_DEFAULTS)
    if kind != "conformer" or not text:
        raise ConfigError(
            f"unknown backbone '{name}'. {nearest(name, [*_SHAPES, 'conformer:dim=96,heads=2'])}"
        )
    for item in text.split(","):
        key, _, value = item.partition("=")
        if key not in shape or not (value.isascii() and value.isdigit() and len(value) < 20):
            raise ConfigError(f"backbone '{name}': '{item}' is not name=number. {nearest(key, shape)}")
        shape[key] = int(value)
        if not 1 <= shape[key] <= _MOST[key]:
            raise ConfigError(f"backbone '{name}': {key} must be 1 to {_MOST[key]}, got {shape[key]}")
    if shape["depth"] % 3 or shape["dim"] % shape["heads"]:
        raise ConfigError(f"backbone '{name}': depth must be a multiple of 3 and dim one of heads")
    return shape


def _block_with_scores(block: nn.Module, tokens: Tensor) -> tuple[Tensor, Tensor]:
    parts: Any = block
    mixed, scores = attention_with_scores(parts.attn, parts.norm1(tokens))
    tokens = tokens + parts.drop_path1(mixed)
    return tokens + parts.drop_path2(parts.mlp(parts.norm2(tokens))), scores


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

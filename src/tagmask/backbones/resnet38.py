"""Wide ResNet-38 (model A1 of Wu, Shen and van den Hengel, 2016), dilated to stride 8 as in PSA.

timm has no such network. Parameter names are those of the published PSA files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagmask.backbones.base import IMAGENET_MEAN, IMAGENET_STD
from tagmask.backbones.mxnet import read_params, rename_resnet38
from tagmask.backbones.weights import load_strictly, read_weights
from tagmask.errors import CheckpointError

__all__ = ["ResNet38", "ResNetFeatures", "resnet38_keys"]

_OWN = re.compile(r"(conv1a|b\d(_\d)?|bn7)\.")
_HOW = (
    "ResNet-38 has no weights on the hub. Give a local file: res38_cls.pth of PSA (recommended), ademxapp's "
    "ImageNet file (.params), or 'none' to start from random weights"
)


@dataclass(frozen=True)
class ResNetFeatures:
    """Three depths of the network, all at 1/8 of the input (rounded up).

    Attributes:
        conv4: Input of unit b5 after its normalisation, (B, 8 * width, h, w).
        conv5: Input of unit b6 after its normalisation, (B, 16 * width, h, w).
        conv6: After the last normalisation, (B, 64 * width, h, w).
    """

    conv4: Tensor
    conv5: Tensor
    conv6: Tensor


class _Residual(nn.Module):
    """Pre-activation unit of two 3x3 convolutions."""

    def __init__(
        self, inputs: int, middle: int, outputs: int, stride: int = 1, dilations: tuple[int, int] = (1, 1)
    ) -> None:
        super().__init__()
        first, second = dilations
        self.bn_branch2a = nn.BatchNorm2d(inputs)
        self.conv_branch2a = nn.Conv2d(inputs, middle, 3, stride, first, first, bias=False)
        self.bn_branch2b1 = nn.BatchNorm2d(middle)
        self.conv_branch2b1 = nn.Conv2d(middle, outputs, 3, 1, second, second, bias=False)
        self.conv_branch1 = (
            nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs or stride != 1 else None
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Output and the normalised input, which other units' features are read from."""
        pre = F.relu(self.bn_branch2a(x))
        skip = x if self.conv_branch1 is None else self.conv_branch1(pre)
        main = F.relu(self.bn_branch2b1(self.conv_branch2a(pre)))
        return skip + self.conv_branch2b1(main), pre


class _Bottleneck(nn.Module):
    """Pre-activation unit 1x1, 3x3, 1x1 with channel dropout before the later two."""

    def __init__(self, inputs: int, outputs: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.bn_branch2a = nn.BatchNorm2d(inputs)
        self.conv_branch2a = nn.Conv2d(inputs, outputs // 4, 1, bias=False)
        self.bn_branch2b1 = nn.BatchNorm2d(outputs // 4)
        self.dropout_2b1 = nn.Dropout2d(dropout)
        self.conv_branch2b1 = nn.Conv2d(
            outputs // 4, outputs // 2, 3, padding=dilation, dilation=dilation, bias=False
        )
        self.bn_branch2b2 = nn.BatchNorm2d(outputs // 2)
        self.dropout_2b2 = nn.Dropout2d(dropout)
        self.conv_branch2b2 = nn.Conv2d(outputs // 2, outputs, 1, bias=False)
        self.conv_branch1 = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Output and the normalised input."""
        pre = F.relu(self.bn_branch2a(x))
        main = self.dropout_2b1(F.relu(self.bn_branch2b1(self.conv_branch2a(pre))))
        main = self.dropout_2b2(F.relu(self.bn_branch2b2(self.conv_branch2b1(main))))
        return self.conv_branch1(pre) + self.conv_branch2b2(main), pre


class ResNet38(nn.Module):
    """The network up to its last normalisation.

    Batch normalisation always uses its stored statistics and is never trained, as in PSA: small batches
    of large crops would ruin them.

    Args:
        width: Channels of the stem; 64 is the published network, less is for tests.
        frozen: Names of further parts that keep their weights ("conv1a", "b2", "b2_1", ...).
    """

    stride = 8
    mean: Tensor
    std: Tensor

    def __init__(self, width: int = 64, frozen: Iterable[str] = ("conv1a",)) -> None:
        super().__init__()
        self.channels = (8 * width, 16 * width, 64 * width)
        self.conv1a = nn.Conv2d(3, width, 3, padding=1, bias=False)
        plan = [("b2", 2, 3), ("b3", 4, 3), ("b4", 8, 6)]
        inputs = width
        for name, factor, count in plan:
            outputs = factor * width
            self.add_module(name, _Residual(inputs, outputs, outputs, stride=2))
            for index in range(1, count):
                self.add_module(f"{name}_{index}", _Residual(outputs, outputs, outputs))
            inputs = outputs
        self.b5 = _Residual(8 * width, 8 * width, 16 * width, dilations=(1, 2))
        self.b5_1 = _Residual(16 * width, 8 * width, 16 * width, dilations=(2, 2))
        self.b5_2 = _Residual(16 * width, 8 * width, 16 * width, dilations=(2, 2))
        self.b6 = _Bottleneck(16 * width, 32 * width, dilation=4, dropout=0.3)
        self.b7 = _Bottleneck(32 * width, 64 * width, dilation=4, dropout=0.5)
        self.bn7 = nn.BatchNorm2d(64 * width)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)
        self._freeze(frozen)

    def _freeze(self, names: Iterable[str]) -> None:
        norms = [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]
        for module in [*norms, *(self.get_submodule(name) for name in names)]:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> ResNet38:
        """Switch dropout; normalisation stays in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def initialise(self, weights: str) -> None:
        """Load initial weights; classifier entries of the file are left out.

        Args:
            weights: "none" (stay random) or a local file: `res38_cls.pth`, any PSA checkpoint, or
                ademxapp's ImageNet weights (.params).

        Raises:
            CheckpointError: "hub" was asked for, or the file is missing, damaged or of another network.
        """
        if weights == "none":
            return
        if weights == "hub":
            raise CheckpointError(_HOW)
        state = (
            rename_resnet38(read_params(weights)) if weights.endswith(".params") else read_weights(weights)
        )
        own = {key: value for key, value in state.items() if _OWN.match(key)}
        # MXNet does not count batches; the counter is never read.
        counters = {k: v for k, v in self.state_dict().items() if k.endswith("num_batches_tracked")}
        load_strictly(self, counters | own, weights)

    def forward(self, images: Tensor) -> ResNetFeatures:
        """Features of RGB images in [0, 1], (B, 3, H, W), any size."""
        x = self.conv1a((images - self.mean) / self.std)
        normed: dict[str, Tensor] = {}
        for name, unit in self.named_children():
            if isinstance(unit, _Residual | _Bottleneck):
                x, pre = unit(x)
                if name in ("b5", "b6"):
                    normed[name] = pre
        return ResNetFeatures(normed["b5"], normed["b6"], F.relu(self.bn7(x)))


def resnet38_keys(state: Mapping[str, Tensor], prefix: str = "backbone.") -> dict[str, Tensor]:
    """A published file's entries with those of the network put under `prefix`; heads keep their names."""
    return {(prefix + key if _OWN.match(key) else key): value for key, value in state.items()}

"""A segmentation network trained on pseudo labels, the last step of every multi-stage system.

The network is a choice: ResNet-38 with two dilated convolutions as in PSA, MCTformer and AReAM, a plain ViT
with the LargeFOV decoder, or any model of segmentation_models_pytorch.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagmask.backbones.base import IMAGENET_MEAN, IMAGENET_STD
from tagmask.backbones.resnet38 import ResNet38, resnet38_keys
from tagmask.backbones.vit import ViT
from tagmask.backbones.weights import read_weights
from tagmask.errors import CheckpointError, ConfigError
from tagmask.heads.large_fov import LargeFOV
from tagmask.methods.base import Method, MethodConfig
from tagmask.ops.resize import pad_to_multiple, resize_bilinear
from tagmask.ops.schedules import poly_warmup
from tagmask.types import IGNORE, Batch, OptimPlan, ParamGroup, StepResult

__all__ = ["SegmentNetwork", "Segmenter", "SegmenterConfig"]


class SegmenterConfig(MethodConfig):
    """Settings of the segmentation stage; the defaults are those of the published ResNet-38 runs."""

    backbone: str = "resnet38"
    """The network: resnet38, vit:NAME for a plain ViT of timm (vit:deit_small_patch16_224), or
    smp:ARCHITECTURE:ENCODER such as smp:unet:resnet34 (needs tagmask[smp])."""
    width: int = 64
    """Channels of ResNet-38's stem; 64 is the published network."""
    optimiser: Literal["sgd", "adamw"] = "sgd"
    """SGD as published; AdamW with a rate near 1e-4 suits most networks of segmentation_models_pytorch."""
    lr: float = 7e-4
    """Base rate of the pretrained part."""
    head_factor: float = 10.0
    """How much faster the new layers learn."""
    weight_decay: float = 0.0
    """The published runs had none: theirs was taken for the momentum."""
    momentum: float = 1e-5
    """Of SGD; see `weight_decay`."""
    power: float = 0.9
    """Exponent of the polynomial decay."""


class SegmentNetwork(nn.Module):
    """What the segmenter needs of a network.

    Images in [0, 1], (B, 3, H, W), give logits (B, C, h', w') of any smaller size.
    """

    heads: tuple[str, ...] = ()
    """Parts of parameter names that mark new layers."""

    def initialise(self, weights: str) -> None:
        """Load pretrained weights from "hub", "none" or a local file."""
        raise AttributeError(f"{type(self).__name__} has no pretrained weights")


class _ResNet38LargeFOV(SegmentNetwork):
    """ResNet-38 with two convolutions of dilation 12; logits at 1/8."""

    heads = ("fc8",)

    def __init__(self, width: int, num_outputs: int) -> None:
        super().__init__()
        self.backbone = ResNet38(width)
        self.fc8_seg_conv1 = nn.Conv2d(self.backbone.channels[2], 8 * width, 3, padding=12, dilation=12)
        self.fc8_seg_conv2 = nn.Conv2d(8 * width, num_outputs, 3, padding=12, dilation=12)
        for layer in (self.fc8_seg_conv1, self.fc8_seg_conv2):
            nn.init.xavier_uniform_(layer.weight)

    def initialise(self, weights: str) -> None:
        self.backbone.initialise(weights)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.fc8_seg_conv1(self.backbone(images).conv6))
        logits: Tensor = self.fc8_seg_conv2(hidden)
        return logits


class _ViTLargeFOV(SegmentNetwork):
    """A plain ViT with the LargeFOV decoder; logits on the patch grid."""

    heads = ("decoder",)

    def __init__(self, name: str, num_outputs: int) -> None:
        super().__init__()
        self.backbone = ViT(name, drop_path=0.1)
        self.decoder = LargeFOV(self.backbone.dim, num_outputs, min(512, 2 * self.backbone.dim))

    def initialise(self, weights: str) -> None:
        self.backbone.initialise(weights)

    def forward(self, images: Tensor) -> Tensor:
        # Sides that are no multiple of a patch would lose their rest; stretching by less than one does not.
        size = self.backbone.patch_size
        whole = (-(-images.shape[2] // size) * size, -(-images.shape[3] // size) * size)
        logits: Tensor = self.decoder(self.backbone(resize_bilinear(images, whole)).patches)
        return logits


class _SMP(SegmentNetwork):
    """A model of segmentation_models_pytorch; its output has the size of the image."""

    heads = ("decoder", "segmentation_head")
    mean: Tensor
    std: Tensor
    # The deepest encoders halve the image five times.
    multiple = 32

    def __init__(self, name: str, num_outputs: int) -> None:
        super().__init__()
        self.architecture, _, self.encoder = name.removeprefix("smp:").partition(":")
        self.num_outputs = num_outputs
        if not self.architecture or not self.encoder:
            raise ConfigError(f"network '{name}': write smp:ARCHITECTURE:ENCODER, such as smp:unet:resnet34")
        try:
            self.model = self._create(None)
        except ImportError:
            raise ConfigError(f"network '{name}' needs: pip install 'tagmask[smp]'") from None
        except (KeyError, RuntimeError, ValueError) as error:
            raise ConfigError(f"network '{name}': {_one_line(error)}") from None
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def initialise(self, weights: str) -> None:
        if weights == "none":
            return
        encoder: Any = self.model.get_submodule("encoder")
        try:
            if weights == "hub":
                encoder.load_state_dict(self._create("imagenet").get_submodule("encoder").state_dict())
            else:
                encoder.load_state_dict(read_weights(weights))
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"weights '{weights}' for the encoder {self.encoder}: {_one_line(error)}"
            ) from None

    def _create(self, weights: str | None) -> nn.Module:
        smp: Any = importlib.import_module("segmentation_models_pytorch")
        model: nn.Module = smp.create_model(
            self.architecture, encoder_name=self.encoder, encoder_weights=weights, classes=self.num_outputs
        )
        return model

    def forward(self, images: Tensor) -> Tensor:
        padded = pad_to_multiple((images - self.mean) / self.std, self.multiple)
        logits: Tensor = self.model(padded)
        return logits[:, :, : images.shape[2], : images.shape[3]]


class Segmenter(Method):
    """Cross entropy on label maps; unlabelled pixels (255) take no part."""

    config_class = SegmenterConfig
    segments = True

    def __init__(self, config: SegmenterConfig, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.config = config
        self.network = _build(config, num_classes + 1)

    def segment(self, images: Tensor) -> Tensor:
        """Logits (B, K + 1, h', w') at the network's own resolution."""
        logits: Tensor = self.network(images)
        return logits

    def forward(self, batch: Batch, step: int) -> StepResult:
        """Mean cross entropy over the labelled pixels of the batch; 0 if there is none.

        Raises:
            ValueError: The batch has no labels.
        """
        if batch.labels is None:
            raise ValueError("the segmenter learns from label maps (0 background, 255 ignore): give labels")
        size = (batch.labels.shape[1], batch.labels.shape[2])
        logits = resize_bilinear(self.segment(batch.images).float(), size)
        total = F.cross_entropy(logits, batch.labels, ignore_index=IGNORE, reduction="sum")
        loss = total / (batch.labels != IGNORE).sum().clamp(min=1)
        return StepResult(loss, {"segmentation": loss.detach()})

    def optim_plan(self, iterations: int) -> OptimPlan:
        """Two groups, pretrained and new layers, with polynomial decay."""
        settings = self.config
        named = [(name, param) for name, param in self.network.named_parameters() if param.requires_grad]
        new = [p for name, p in named if any(head in name for head in self.network.heads)]
        marked = {id(p) for p in new}
        old = [p for _, p in named if id(p) not in marked]
        groups = [
            ParamGroup("pretrained", old, settings.lr, settings.weight_decay),
            ParamGroup("new", new, settings.lr * settings.head_factor, settings.weight_decay),
        ]

        def factor(step: int) -> float:
            return poly_warmup(min(step, iterations - 1), iterations, 0, settings.power)

        return OptimPlan(settings.optimiser, groups, factor, momentum=settings.momentum)

    def initialise(self, weights: str) -> None:
        """Load the pretrained part; the new layers stay random."""
        self.network.initialise(weights)

    @classmethod
    def convert_weights(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A published ResNet-38 segmentation checkpoint under this module's names."""
        state = resnet38_keys(super().convert_weights(state))
        return {f"network.{key}": value for key, value in state.items()}


def _build(config: SegmenterConfig, num_outputs: int) -> SegmentNetwork:
    if config.backbone == "resnet38":
        return _ResNet38LargeFOV(config.width, num_outputs)
    kind, _, name = config.backbone.partition(":")
    if kind == "vit" and name:
        # A custom shape is written vit:patch=8,..., which is its whole name.
        return _ViTLargeFOV(config.backbone if "=" in name else name, num_outputs)
    if kind == "smp":
        return _SMP(config.backbone, num_outputs)
    raise ConfigError(
        f"unknown segmentation network '{config.backbone}'. Known: resnet38, vit:NAME, "
        "smp:ARCHITECTURE:ENCODER"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]

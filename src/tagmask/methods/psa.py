"""PSA's classifier: class activation maps of ResNet-38 (Ahn and Kwak, CVPR 2018).

The first half of the paper; the second half, AffinityNet and its random walk, is `affinity_net`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from tagmask.backbones.resnet38 import ResNet38, resnet38_keys
from tagmask.config import Rate, Scales, Weight
from tagmask.losses.tags import multilabel_soft_margin
from tagmask.methods.base import Method, MethodConfig
from tagmask.ops.maps import class_maps
from tagmask.ops.schedules import poly_warmup
from tagmask.types import Batch, OptimPlan, ParamGroup, StepResult, ViewPlan

__all__ = ["PSA", "PSAConfig"]


class PSAConfig(MethodConfig):
    """Settings of PSA's classifier."""

    backbone: Literal["resnet38"] = "resnet38"
    """The paper's network; its weights come from a local file."""
    width: int = Field(default=64, ge=1, le=1024)
    """Channels of the stem; 64 is the published network."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """Of whole channels before the classifier."""
    lr: Rate = 0.1
    """Base rate; the classifier learns ten times as fast."""
    weight_decay: Weight = 5e-4
    """Of all convolutions."""
    momentum: float = Field(default=5e-4, ge=0, lt=1)
    """What the published runs really used: their weight decay was passed as the momentum."""
    scales: Scales = (1.0, 0.5, 1.5, 2.0)
    """Views of an image, each with its mirror image."""


class PSA(Method):
    """Global average pooling and a linear classifier on ResNet-38, read as class maps."""

    config_class = PSAConfig
    map_kinds = ("cam",)

    def __init__(self, config: PSAConfig, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.config = config
        self.backbone = ResNet38(config.width, frozen=("conv1a", "b2", "b2_1", "b2_2"))
        self.dropout = nn.Dropout2d(config.dropout)
        self.fc8 = nn.Conv2d(self.backbone.channels[2], num_classes, 1, bias=False)
        nn.init.xavier_uniform_(self.fc8.weight)

    def classify(self, images: Tensor) -> Tensor:
        """Class logits (B, K)."""
        features = self.dropout(self.backbone(images).conv6)
        logits: Tensor = self.fc8(features.mean(dim=(2, 3), keepdim=True))
        return logits.flatten(1)

    def forward(self, batch: Batch, step: int) -> StepResult:
        """Multi-label classification."""
        loss = multilabel_soft_margin(self.classify(batch.images), batch.tags)
        return StepResult(loss, {"classification": loss.detach()})

    @torch.no_grad()
    def view_maps(self, images: Tensor, kinds: Sequence[str]) -> dict[str, Tensor]:
        """Positive part of the class maps at 1/8."""
        return {"cam": class_maps(self.backbone(images).conv6, self.fc8.weight).relu()}

    def view_plan(self, kind: str) -> ViewPlan:
        """Sum over four scales and their mirror images."""
        return ViewPlan(
            scales=self.config.scales,
            flip="sum",
            relu="none",
            scaling="max",
            rounding="nearest",
            resample="pillow",
        )

    def optim_plan(self, iterations: int) -> OptimPlan:
        """SGD with polynomial decay, the classifier at ten times the rate."""
        settings = self.config
        convolutions = [p for p in self.backbone.parameters() if p.requires_grad]
        groups = [
            ParamGroup("backbone", convolutions, settings.lr, settings.weight_decay),
            ParamGroup("classifier", list(self.fc8.parameters()), 10 * settings.lr, settings.weight_decay),
        ]

        def factor(step: int) -> float:
            return poly_warmup(min(step, iterations - 1), iterations, warmup=0)

        return OptimPlan("sgd", groups, factor, momentum=settings.momentum)

    def initialise(self, weights: str) -> None:
        """Load the backbone from `res38_cls.pth` or the ImageNet `.params` file; "none" leaves it random."""
        self.backbone.initialise(weights)

    @classmethod
    def convert_weights(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """PSA's `res38_cls.pth` under this module's names."""
        return resnet38_keys(super().convert_weights(state))

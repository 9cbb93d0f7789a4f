"""Class activation maps of a convolutional network with global average pooling (Zhou et al., CVPR 2016)."""

from __future__ import annotations

from collections.abc import Sequence

import timm
import torch
from torch import Tensor, nn

from tagmask.backbones.base import IMAGENET_MEAN, IMAGENET_STD
from tagmask.backbones.weights import load_strictly, read_weights
from tagmask.losses.tags import multilabel_soft_margin
from tagmask.methods.base import Method, MethodConfig
from tagmask.ops.maps import class_maps
from tagmask.types import Batch, OptimPlan, ParamGroup, StepResult, ViewPlan


class GAPConfig(MethodConfig):
    """Settings; every default has its reason beside it, which `tagmask show gap` prints."""

    backbone: str = "resnet10t"
    """Any convolutional network of timm."""
    lr: float = 1e-3
    """AdamW's rate; the classifier learns ten times as fast."""


class GAP(Method):
    """A network, a linear classifier, and its maps."""

    config_class = GAPConfig
    map_kinds = ("cam",)

    def __init__(self, config: GAPConfig, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.config = config
        self.network = timm.create_model(config.backbone, pretrained=False, num_classes=0, global_pool="")
        self.classifier = nn.Linear(self.network.num_features, num_classes, bias=False)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def features(self, images: Tensor) -> Tensor:
        """Last feature map, (B, D, h, w), of RGB images in [0, 1]."""
        return self.network((images - self.mean) / self.std)

    def classify(self, images: Tensor) -> Tensor:
        """Class logits (B, K)."""
        return self.classifier(self.features(images).mean((2, 3)))

    def forward(self, batch: Batch, step: int) -> StepResult:
        """Multi-label classification."""
        loss = multilabel_soft_margin(self.classify(batch.images), batch.tags)
        return StepResult(loss, {"loss": loss.detach()})

    @torch.no_grad()
    def view_maps(self, images: Tensor, kinds: Sequence[str]) -> dict[str, Tensor]:
        """Raw maps of one view, (B, K, h, w)."""
        return {"cam": class_maps(self.features(images), self.classifier.weight)}

    def view_plan(self, kind: str) -> ViewPlan:
        """Three scales and their mirrored twins, summed."""
        return ViewPlan(scales=(1.0, 0.75, 1.25), flip="sum", relu="view")

    def optim_plan(self, iterations: int) -> OptimPlan:
        """AdamW at a constant rate."""
        rate = self.config.lr
        groups = [
            ParamGroup("network", list(self.network.parameters()), rate, 0.01),
            ParamGroup("classifier", list(self.classifier.parameters()), 10 * rate, 0.01),
        ]
        return OptimPlan("adamw", groups, lambda step: 1.0)

    def initialise(self, weights: str) -> None:
        """Pretrained weights from timm's hub, or a local file; "none" leaves the network random."""
        if weights == "none":
            return
        if weights == "hub":
            name = self.config.backbone
            self.network = timm.create_model(name, pretrained=True, num_classes=0, global_pool="")
        else:
            load_strictly(self.network, read_weights(weights), weights)

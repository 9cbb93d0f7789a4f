"""AffinityNet: learns which neighbours belong together, then spreads maps along them (PSA, CVPR 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagmask.backbones.base import IMAGENET_MEAN
from tagmask.backbones.resnet38 import ResNet38, ResNetFeatures, resnet38_keys
from tagmask.losses.pairs import sampled_pair_loss
from tagmask.methods.base import Method, MethodConfig
from tagmask.ops.affinity_pairs import pair_affinity, pair_labels, walk_scores
from tagmask.ops.resize import pad_to_multiple
from tagmask.ops.schedules import poly_warmup
from tagmask.types import Batch, OptimPlan, ParamGroup, StepResult

__all__ = ["AffinityNet", "AffinityNetConfig"]


class AffinityNetConfig(MethodConfig):
    """Settings of AffinityNet and of the random walk along its affinities."""

    backbone: Literal["resnet38"] = "resnet38"
    """The only network of the papers; its weights come from a local file."""
    width: int = 64
    """Channels of the stem; 64 is the published network."""
    radius: int = 5
    """Pairs are closer than this many cells of 8 pixels (PSA, section 3.2)."""
    lr: float = 0.01
    """Base rate of MCTformer, TransCAM and AReAM; PSA itself used 0.1."""
    weight_decay: float = 5e-4
    """Of all convolutions."""
    momentum: float = 5e-4
    """What the published runs really used: their decay was taken for the momentum."""
    beta: float = 8.0
    """Power of the affinities in the walk; TransCAM 14."""
    steps: int = 64
    """Length of the walk; PSA 256, TransCAM 128."""
    background: float = 0.39
    """Constant background score in the walk (AReAM, MCTformer); TransCAM 0.42."""
    background_power: float | None = None
    """If set, background is (1 - largest map)^power instead; PSA 16."""
    edges: Literal["published", "full"] = "published"
    """Which pairs the walk uses at the borders: as published, where three corners have none, or all."""


class AffinityNet(Method):
    """Three depths of ResNet-38, compressed and compared between neighbouring positions.

    Batch labels are sampled at every eighth pixel. The walk itself is `walk`.
    """

    config_class = AffinityNetConfig

    def __init__(self, config: AffinityNetConfig, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.config = config
        self.backbone = ResNet38(config.width, frozen=("conv1a", "b2", "b2_1", "b2_2"))
        sizes = [config.width, 2 * config.width, 4 * config.width]
        conv4, conv5, conv6 = self.backbone.channels
        self.f8_3 = nn.Conv2d(conv4, sizes[0], 1, bias=False)
        self.f8_4 = nn.Conv2d(conv5, sizes[1], 1, bias=False)
        self.f8_5 = nn.Conv2d(conv6, sizes[2], 1, bias=False)
        self.f9 = nn.Conv2d(sum(sizes), sum(sizes), 1, bias=False)
        for layer in (self.f8_3, self.f8_4, self.f8_5):
            nn.init.kaiming_normal_(layer.weight)
        nn.init.xavier_uniform_(self.f9.weight, gain=4)

    def features(self, images: Tensor) -> Tensor:
        """What positions are compared by, (B, 7 * width, h, w) at 1/8 (rounded up)."""
        taps: ResNetFeatures = self.backbone(images)
        heads = ((self.f8_3, taps.conv4), (self.f8_4, taps.conv5), (self.f8_5, taps.conv6))
        joined = torch.cat([F.elu(head(x)) for head, x in heads], dim=1)
        return F.elu(self.f9(joined))

    def affinity(self, images: Tensor) -> Tensor:
        """Pair affinities (B, O, P) of `ops.affinity_pairs`, in (0, 1]."""
        return pair_affinity(self.features(images), self.config.radius)

    def forward(self, batch: Batch, step: int) -> StepResult:
        """Compare the affinities with the labels of every eighth pixel.

        Raises:
            ValueError: The batch has no labels.
        """
        if batch.labels is None:
            raise ValueError("AffinityNet learns from label maps (0 background, 255 unknown): give labels")
        stride = self.backbone.stride
        pairs = pair_labels(batch.labels[:, ::stride, ::stride], self.config.radius)
        loss = sampled_pair_loss(self.affinity(batch.images), *pairs)
        logs = {name: value.detach() for name, value in loss._asdict().items() if name != "total"}
        return StepResult(loss.total, logs)

    def optim_plan(self, iterations: int) -> OptimPlan:
        """SGD with polynomial decay, the heads at ten times the rate."""
        settings = self.config
        convolutions = [p for name, p in self.backbone.named_parameters() if "conv" in name]
        heads = [p for name, p in self.named_parameters() if name.startswith("f")]
        groups = [
            ParamGroup("backbone", convolutions, settings.lr, settings.weight_decay),
            ParamGroup("heads", heads, 10 * settings.lr, settings.weight_decay),
        ]

        def factor(step: int) -> float:
            return poly_warmup(min(step, iterations - 1), iterations, warmup=0)

        return OptimPlan("sgd", groups, factor, momentum=settings.momentum)

    def initialise(self, weights: str) -> None:
        """Load the backbone from `res38_cls.pth` or the ImageNet `.params` file; "none" leaves it random."""
        self.backbone.initialise(weights)

    @classmethod
    def convert_weights(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A published AffinityNet (PSA, MCTformer, TransCAM, AReAM) under this module's names."""
        return resnet38_keys(super().convert_weights(state))

    @torch.no_grad()
    def walk(self, image: Tensor, maps: Tensor) -> Tensor:
        """Spread one image's class maps, with a background score, along its affinities.

        Args:
            image: RGB in [0, 1], (3, H, W).
            maps: Maps in [0, 1] of the present classes, (n, H, W); n may be 0.

        Returns:
            Scores (n + 1, H, W), background first; the arg max is the pseudo label.
        """
        settings, stride = self.config, self.backbone.stride
        # The mean colour is zero after normalisation; training crops are padded with black (as published).
        padded = pad_to_multiple(image[None], stride, IMAGENET_MEAN)
        full = settings.edges == "full"
        affinity = pair_affinity(self.features(padded), settings.radius, full)[0]
        return walk_scores(
            self.with_background(maps), affinity, stride, settings.radius, settings.beta, settings.steps, full
        )

    def with_background(self, maps: Tensor) -> Tensor:
        """Maps (n, H, W) behind the background score of the settings, (n + 1, H, W)."""
        power = self.config.background_power
        if power is None:
            background = torch.full_like(maps.new_empty(1, *maps.shape[1:]), self.config.background)
        else:
            empty = maps.new_zeros(1, *maps.shape[1:])
            background = (1 - torch.cat([empty, maps]).amax(dim=0, keepdim=True)) ** power
        return torch.cat([background, maps])

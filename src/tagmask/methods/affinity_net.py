"""AffinityNet: learns which neighbours belong together, then spreads maps along them (PSA, CVPR 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from tagmask.backbones.base import IMAGENET_MEAN
from tagmask.backbones.resnet38 import ResNet38, resnet38_keys
from tagmask.backbones.vit import ViT
from tagmask.config import Rate, Weight
from tagmask.losses.pairs import sampled_pair_loss
from tagmask.methods.base import Method, MethodConfig
from tagmask.ops.affinity_pairs import pair_affinity, pair_labels, walk_scores
from tagmask.ops.resize import pad_to_multiple, resize_bilinear
from tagmask.ops.schedules import poly_warmup
from tagmask.types import Batch, OptimPlan, ParamGroup, StepResult

__all__ = ["AffinityNet", "AffinityNetConfig"]


class AffinityNetConfig(MethodConfig):
    """Settings of AffinityNet; the defaults are those of the published ResNet-38 runs."""

    backbone: str = "resnet38"
    """resnet38, the network of the papers (weights from a local file), or a plain ViT."""
    width: int = Field(default=64, ge=1, le=1024)
    """Channels of ResNet-38's stem; 64 is the published network."""
    feature_width: int = Field(default=64, ge=1, le=4096)
    """Channels of the first compressed depth; the other two have twice and four times as many."""
    radius: int = Field(default=5, ge=2, le=64)
    """Pairs are closer than this many cells of 8 pixels (PSA, section 3.2)."""
    optimiser: Literal["sgd", "adamw"] = "sgd"
    """SGD as published; AdamW with a rate near 1e-4 suits a ViT."""
    lr: Rate = 0.01
    """Base rate of MCTformer, TransCAM and AReAM; PSA itself used 0.1."""
    weight_decay: Weight = 5e-4
    """Of all convolutions."""
    momentum: float = Field(default=5e-4, ge=0, lt=1)
    """What the published runs really used: their weight decay was passed as the momentum."""


class AffinityNet(Method):
    """Three depths of a network, compressed and compared between neighbouring positions.

    Batch labels are sampled at every eighth pixel. The random walk along the affinities is `walk`.
    """

    config_class = AffinityNetConfig
    stride = 8

    def __init__(self, config: AffinityNetConfig, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.config = config
        if config.backbone == "resnet38":
            resnet = ResNet38(config.width, frozen=("conv1a", "b2", "b2_1", "b2_2"))
            self.backbone: ResNet38 | ViT = resnet
            channels = resnet.channels
        else:
            vit = ViT(config.backbone)
            self.backbone = vit
            channels = (vit.dim, vit.dim, vit.dim)
        sizes = [config.feature_width, 2 * config.feature_width, 4 * config.feature_width]
        self.f8_3 = nn.Conv2d(channels[0], sizes[0], 1, bias=False)
        self.f8_4 = nn.Conv2d(channels[1], sizes[1], 1, bias=False)
        self.f8_5 = nn.Conv2d(channels[2], sizes[2], 1, bias=False)
        self.f9 = nn.Conv2d(sum(sizes), sum(sizes), 1, bias=False)
        for layer in (self.f8_3, self.f8_4, self.f8_5):
            nn.init.kaiming_normal_(layer.weight)
        nn.init.xavier_uniform_(self.f9.weight, gain=4)

    def features(self, images: Tensor) -> Tensor:
        """What positions are compared by, (B, 7 * feature_width, h, w) at 1/8 (rounded up)."""
        heads = (self.f8_3, self.f8_4, self.f8_5)
        joined = [F.elu(head(x)) for head, x in zip(heads, self._depths(images), strict=True)]
        return F.elu(self.f9(torch.cat(joined, dim=1)))

    def _depths(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps of three depths at 1/8."""
        if isinstance(self.backbone, ResNet38):
            depths = self.backbone(images)
            return depths.conv4, depths.conv5, depths.conv6
        size = (-(-images.shape[2] // self.stride), -(-images.shape[3] // self.stride))
        third = self.backbone.depth / 3
        blocks = [round(third) - 1, round(2 * third) - 1]
        padded = pad_to_multiple(images, self.backbone.patch_size, IMAGENET_MEAN)
        found = self.backbone(padded, hidden=blocks)
        maps = [*(self.backbone.to_map(found.hidden[block], found.grid) for block in blocks), found.patches]
        # The grid is coarser than a pair's cell: where objects part is left to interpolation.
        scale = (padded.shape[2] // self.stride, padded.shape[3] // self.stride)
        return tuple(resize_bilinear(x, scale)[:, :, : size[0], : size[1]] for x in maps)

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
        labels = batch.labels[:, :: self.stride, :: self.stride]
        pairs = pair_labels(labels, self.config.radius)
        loss = sampled_pair_loss(self.affinity(batch.images), *pairs)
        logs = {name: value.detach() for name, value in loss._asdict().items() if name != "total"}
        return StepResult(loss.total, logs)

    @torch.no_grad()
    def walk(
        self, image: Tensor, scores: Tensor, beta: float = 8.0, steps: int = 64, full: bool = False
    ) -> Tensor:
        """Spread one image's scores along its affinities.

        Args:
            image: RGB in [0, 1], (3, H, W).
            scores: Background and present classes, (n + 1, H, W), see `ops.maps.with_background`.
            beta: Power of the affinities.
            steps: Length of the walk.
            full: Let every cell start its pairs; as published (False) cells near the border have fewer.

        Returns:
            (n + 1, H, W); the arg max is the pseudo label.
        """
        # The mean colour is zero after normalisation; training crops are padded with black (as published).
        padded = pad_to_multiple(image[None], self.stride, IMAGENET_MEAN)
        radius = self.config.radius
        affinity = pair_affinity(self.features(padded), radius, full)[0]
        return walk_scores(scores, affinity, self.stride, radius, beta, steps, full)

    def optim_plan(self, iterations: int) -> OptimPlan:
        """Polynomial decay, the heads at ten times the rate."""
        settings = self.config
        trained = [p for p in self.backbone.parameters() if p.requires_grad]
        heads = [p for name, p in self.named_parameters() if name.startswith("f")]
        groups = [
            ParamGroup("backbone", trained, settings.lr, settings.weight_decay),
            ParamGroup("heads", heads, 10 * settings.lr, settings.weight_decay),
        ]

        def factor(step: int) -> float:
            return poly_warmup(min(step, iterations - 1), iterations, warmup=0)

        return OptimPlan(settings.optimiser, groups, factor, momentum=settings.momentum)

    def size_problem(self, size: int) -> str | None:
        """A view must hold a pair at the full radius."""
        cells = 2 * self.config.radius - 1
        return f"its pairs need {cells} cells of {self.stride}" if -(-size // self.stride) < cells else None

    def initialise(self, weights: str) -> None:
        """Load the backbone: for ResNet-38 from `res38_cls.pth` or ademxapp's `.params` file."""
        self.backbone.initialise(weights)

    @classmethod
    def convert_weights(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A published AffinityNet (PSA, MCTformer, TransCAM, AReAM) under this module's names."""
        return resnet38_keys(super().convert_weights(state))

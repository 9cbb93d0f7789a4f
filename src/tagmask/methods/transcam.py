"""TransCAM: class maps of Conformer's CNN spread along its transformer's attention (arXiv 2203.07239)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from tagmask.backbones.attention_sums import AttentionSums, Part
from tagmask.backbones.conformer import Conformer
from tagmask.config import Rate, Scales, Weight
from tagmask.losses.tags import multilabel_soft_margin
from tagmask.methods.base import Method, MethodConfig
from tagmask.ops.entropy import refined_entropy
from tagmask.types import Batch, OptimPlan, ParamGroup, StepResult, ViewPlan

__all__ = ["TransCAM", "TransCAMConfig"]


class TransCAMConfig(MethodConfig):
    """Settings of TransCAM."""

    backbone: str = "conformer_small"
    """conformer_tiny, conformer_small (the paper's), conformer_base or a custom shape."""
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    """Largest rate of dropped residual branches, at the last block."""
    cam: Literal["transcam", "convcam", "clsattn", "attnagg"] = "transcam"
    """Along patch attention (the method), the CNN's own, times class attention, or along the transpose."""
    base: int | None = Field(default=512, ge=16, le=2**14)
    """Images become squares of this side times the scale, as in the paper; None keeps their shape."""
    scales: Scales = (0.5, 1.0, 1.5)
    """Views of an image, each with its mirror image: 256, 512 and 768 pixels."""
    lr: Rate = 5e-5
    """Constant over the whole run."""
    weight_decay: Weight = 5e-4
    """Of every parameter, biases and norms included."""


class TransCAM(Method):
    """Two classifiers on Conformer, trained on the sum of their logits.

    Both have a background channel in front that no loss ever sees; it is kept for the published weights.
    """

    config_class = TransCAMConfig
    map_kinds = ("cam",)
    side_multiple = Conformer.stride
    analysis_size = 384

    def __init__(self, config: TransCAMConfig, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.config = config
        self.backbone = Conformer(config.backbone, double_class_token=True, drop_path=config.drop_path)
        self.trans_cls_head = nn.Linear(self.backbone.dim, num_classes + 1)
        self.conv_cls_head = nn.Conv2d(self.backbone.channels, num_classes + 1, 3, padding=1)
        nn.init.trunc_normal_(self.trans_cls_head.weight, std=0.02)
        nn.init.zeros_(self.trans_cls_head.bias)
        nn.init.kaiming_normal_(self.conv_cls_head.weight, mode="fan_out", nonlinearity="relu")

    def logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the CNN and of the transformer, (B, K + 1) each, background channel first."""
        features = self.backbone(images)
        return self.conv_cls_head(features.map).mean(dim=(2, 3)), self.trans_cls_head(features.tokens[:, 0])

    def classify(self, images: Tensor) -> Tensor:
        """Class logits (B, K): the sum the loss is made of."""
        cnn, transformer = self.logits(images)
        return (cnn + transformer)[:, 1:]

    def forward(self, batch: Batch, step: int) -> StepResult:
        """Multi-label classification; the attention is not needed and stays fused."""
        loss = multilabel_soft_margin(self.classify(batch.images), batch.tags)
        return StepResult(loss, {"classification": loss.detach()})

    @torch.no_grad()
    def view_maps(self, images: Tensor, kinds: Sequence[str]) -> dict[str, Tensor]:
        """Signed class maps at 1/16, by the rule of the settings."""
        if self.config.cam == "convcam":
            return {"cam": self.conv_cls_head(self.backbone(images).map)[:, 1:]}
        total = AttentionSums(all=Part([1.0] * self.backbone.depth, lambda mean: mean))
        features = self.backbone(images, scores=range(self.backbone.depth), reduce=total)
        maps = self.conv_cls_head(features.map)[:, 1:]
        return {"cam": spread(maps, total.totals["all"], self.config.cam)}

    @torch.no_grad()
    def layer_entropy(self, images: Tensor, tags: Tensor) -> Tensor:
        """Entropy in bits of the maps after each block's attention, (B, L); see `ops.entropy`."""
        blocks = range(self.backbone.depth)
        found = self.backbone(images, scores=blocks, reduce=lambda s: s.softmax(-1).mean(1)[:, 1:, 1:])
        maps = self.conv_cls_head(found.map)[:, 1:]
        rows = [refined_entropy(maps, tags, found.scores[block], 1e-6) for block in blocks]
        return torch.stack(rows, dim=1)

    def view_plan(self, kind: str) -> ViewPlan:
        """Sum over three square sizes and their mirror images, negatives cut at the end."""
        settings = self.config
        return ViewPlan(
            scales=settings.scales,
            flip="sum",
            relu="sum",
            scaling="shifted",
            base=settings.base,
            resample="pillow",
            pad=1 if settings.base else self.backbone.stride,
        )

    def optim_plan(self, iterations: int) -> OptimPlan:
        """AdamW, one group, constant rate."""
        settings = self.config
        group = ParamGroup("all", list(self.parameters()), settings.lr, settings.weight_decay)
        return OptimPlan("adamw", [group], lambda step: 1.0)

    def initialise(self, weights: str) -> None:
        """Load the original Conformer's ImageNet weights from a local file; "none" leaves them random."""
        self.backbone.initialise(weights)

    @classmethod
    def convert_weights(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The authors' file under this module's names."""
        state = super().convert_weights(state)
        return {(key if "head" in key else f"backbone.{key}"): value for key, value in state.items()}


def spread(maps: Tensor, attention: Tensor, rule: str) -> Tensor:
    """Class maps coupled with attention.

    Args:
        maps: (B, K, h, w).
        attention: Sum over blocks of the head mean after softmax, class token first, (B, 1 + N, 1 + N).
        rule: "transcam": each patch gathers from the patches it attends to; "attnagg": from those that attend
            to it; "clsattn": maps times what the class token attends to.

    Returns:
        (B, K, h, w).

    Raises:
        ValueError: The rule is unknown.
    """
    if rule == "clsattn":
        return maps * attention[:, None, 0, 1:].reshape(-1, 1, *maps.shape[2:])
    if rule not in ("transcam", "attnagg"):
        raise ValueError(f"maps are spread by 'transcam', 'attnagg' or 'clsattn', got {rule!r}")
    patches = attention[:, 1:, 1:]
    gather = patches.transpose(1, 2) if rule == "transcam" else patches
    return (maps.flatten(2) @ gather).view_as(maps)

"""A segmentation network trained on pseudo labels, the last step of every multi-stage system.

The network is a choice: ResNet-38 with two dilated convolutions as in PSA, MCTformer and AReAM; a plain ViT
with the mask-transformer decoder and WeakTr's clipped loss (its phase 2, arXiv 2304.01184); a plain ViT with
the LargeFOV decoder; or any model of segmentation_models_pytorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator
from torch import Tensor

from tagmask.backbones.resnet38 import resnet38_keys
from tagmask.losses.clipped import clip_pixel_loss, pixel_cross_entropy
from tagmask.losses.segmentation import mean_cross_entropy
from tagmask.methods._segment_networks import SegmentNetwork, Shape, build_network
from tagmask.methods.base import Method, MethodConfig
from tagmask.ops.resize import resize_bilinear
from tagmask.ops.schedules import poly_warmup
from tagmask.types import IGNORE, Batch, OptimPlan, ParamGroup, StepResult

__all__ = ["SegmentNetwork", "Segmenter", "SegmenterConfig"]

# How WeakTr retrains: what is not given for a mask:NAME network. The encoder learns at a tenth of 1e-4.
_WEAKTR = {"lr": 1e-5, "momentum": 0.9, "nesterov": True, "lr_floor": 0.1, "clip_start": 1.2}


class SegmenterConfig(MethodConfig):
    """Settings of the segmentation stage; the defaults are those of the published ResNet-38 runs.

    With a ``mask:`` network, what is not given is WeakTr's instead: lr 1e-5, momentum 0.9 with Nesterov's
    look-ahead, a floor of the rate at a tenth, and the loss clipped below 1.2.
    """

    backbone: str = "resnet38"
    """The network: resnet38; mask:NAME, a plain ViT or EVA-02 of timm with the mask-transformer decoder
    (mask:deit_small_patch16_224.fb_in1k, WeakTr); vit:NAME, a plain ViT with the LargeFOV decoder; or
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
    nesterov: bool = False
    """SGD with look-ahead."""
    power: float = 0.9
    """Exponent of the polynomial decay."""
    lr_floor: float = Field(default=0.0, ge=0, le=1)
    """Share of the base rate at which the decay ends."""
    clip_start: float | None = None
    """Mean loss below which pixels with an unusually large loss lose their gradient (WeakTr: 1.2); none if
    not given. The loss is then a mean over all pixels, ignored ones included."""
    clip_patch: int = Field(default=120, ge=1)
    """Side in pixels of the patches in which "unusual" is judged; must divide the training view."""
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    """Largest stochastic-depth rate of a mask: network's encoder."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout of a mask: network's decoder."""
    position_size: int = Field(default=480, ge=16)
    """Image side in pixels that a mask: network's position table is made for: the training view's."""
    patch: int | None = Field(default=None, ge=4)
    """Patch side of a mask: network. If not given, its own, but 16 in place of 14 (DINOv2, EVA-02)."""

    @model_validator(mode="before")
    @classmethod
    def _mask_network_defaults(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and str(values.get("backbone", "")).startswith("mask:"):
            return {**_WEAKTR, **values}
        return values


class Segmenter(Method):
    """Cross entropy on label maps; unlabelled pixels (255) take no part."""

    config_class = SegmenterConfig
    segments = True

    def __init__(self, config: SegmenterConfig, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.config = config
        shape = Shape(config.width, config.drop_path, config.dropout, config.position_size, config.patch)
        self.network = build_network(config.backbone, num_classes + 1, shape)

    def segment(self, images: Tensor) -> Tensor:
        """Logits (B, K + 1, h', w') at the network's own resolution."""
        logits: Tensor = self.network(images)
        return logits

    def segment_exits(self, images: Tensor, count: int) -> Tensor:
        """Logits (B, count, K + 1, h', w') of the decoder's last exits, the earliest first."""
        return self.network.exits(images, count)

    def forward(self, batch: Batch, step: int) -> StepResult:
        """Mean cross entropy over the labelled pixels of the batch, 0 if there is none; or the clipped loss.

        Raises:
            ValueError: The batch has no labels, or its size is no multiple of `clip_patch`.
        """
        if batch.labels is None:
            raise ValueError("the segmenter learns from label maps (0 background, 255 ignore): give labels")
        size = (batch.labels.shape[1], batch.labels.shape[2])
        logits = resize_bilinear(self.segment(batch.images).float(), size)
        if self.config.clip_start is not None:
            return self._clipped(logits, batch.labels, self.config.clip_start)
        loss = mean_cross_entropy(logits, batch.labels, IGNORE)
        return StepResult(loss, {"segmentation": loss.detach()})

    def _clipped(self, logits: Tensor, labels: Tensor, start: float) -> StepResult:
        pixels = pixel_cross_entropy(logits, labels, IGNORE)
        kept = clip_pixel_loss(pixels, start, self.config.clip_patch)
        loss, whole = kept.mean(), pixels.detach()
        cut = (kept.detach() < whole).float().mean()
        return StepResult(
            loss, {"segmentation": loss.detach(), "unclipped": whole.mean(), "clipped_pixels": cut}
        )

    def optim_plan(self, iterations: int) -> OptimPlan:
        """Groups by layer with polynomial decay, new layers `head_factor` times as fast."""
        settings = self.config
        groups = [
            ParamGroup(
                group.name,
                group.params,
                settings.lr * (settings.head_factor if group.new else 1.0),
                settings.weight_decay if group.decay else 0.0,
            )
            for group in self.network.layer_groups()
        ]
        floor = settings.lr_floor

        def factor(step: int) -> float:
            share = poly_warmup(min(step, iterations - 1), iterations, 0, settings.power)
            return float(floor + (1 - floor) * share)

        return OptimPlan(
            settings.optimiser, groups, factor, momentum=settings.momentum, nesterov=settings.nesterov
        )

    def initialise(self, weights: str) -> None:
        """Load the pretrained part; the new layers stay random."""
        self.network.initialise(weights)

    @classmethod
    def convert_weights(cls, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """A published checkpoint under our names: ResNet-38's, or one of WeakTr's phase 2."""
        state = super().convert_weights(state.get("model", state))
        if "decoder.cls_emb" in state:
            return _weaktr_keys(state)
        return {f"network.{key}": value for key, value in resnet38_keys(state).items()}


def _weaktr_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # The encoder's classifier is stored but never used; rotary angles are computed.
    skipped = ("encoder.head.", "encoder.mask_token")
    renamed = {}
    for key, value in state.items():
        if not key.startswith(skipped) and "freqs_" not in key:
            key = key.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.")
            renamed[f"network.{key}"] = value
    return renamed

"""WeakTr, phase 1: class maps from attention heads that are weighted per image.

Zhu et al., "WeakTr: Exploring Plain Vision Transformer for Weakly-supervised Semantic Segmentation",
arXiv 2304.01184. A DeiT with a token per class; its 12 x 6 attention maps are fused by weights the network
estimates from its own features, the fusion turns a coarse class map into a fine one. Phase 2, the
segmenter with the clipped loss, is `tagmask.methods.segmenter`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from tagmask.backbones.base import TokenFeatures
from tagmask.backbones.vit import ViT
from tagmask.config import Count, Rate, Scales, Weight
from tagmask.heads.attention_fusion import AttentionFusion, fuse_attention, grouped_pool
from tagmask.losses.tags import multilabel_soft_margin
from tagmask.methods.base import Method, MethodConfig
from tagmask.ops.schedules import cosine_by_epoch
from tagmask.types import Batch, OptimPlan, ParamGroup, StepResult, ViewPlan

__all__ = ["WeakTr", "WeakTrConfig"]

AttentionType = Literal["fused", "patchcam", "cross"]


class WeakTrConfig(MethodConfig):
    """Settings of WeakTr's first phase; the defaults are those of its PASCAL VOC command."""

    backbone: str = "deit_small_patch16_224.fb_in1k"
    """Any plain ViT of timm; the paper has results for this one only."""
    attention: AttentionType = "fused"
    """Maps before patch refinement: class attention times coarse map ("fused"), the coarse map alone
    ("patchcam") or class attention alone ("cross"). Training always uses "fused"."""
    patch_refine: bool = True
    """Whether maps are spread along the fused patch-to-patch attention."""
    pooling: Literal["max", "mean"] = "max"
    """Over tokens, in front of the weights of the heads; the published commands use the maximum."""
    reduction: int = Field(default=8, ge=1)
    """How much narrower the hidden layer over all heads is than their number."""
    feature_reduction: int = Field(default=8, ge=1)
    """How much narrower the hidden layer over the features of one head is."""
    scales: Scales = (1.0, 1.2)
    """Image scales of the class maps; COCO uses 1, 0.8 and 1.2."""
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    """Largest stochastic-depth rate."""
    lr: Rate = 7.5e-5
    """Learning rate for a batch of 64 (6e-4 for 512); COCO's is 2.5e-5."""
    weight_decay: Weight = 0.03
    """Of every parameter, biases and norms included: the original hands its optimiser a bare list."""
    epochs: int = Field(default=60, ge=1)
    """Epochs the run is divided into; the rate changes once per epoch."""
    warmup_epochs: Count = 5
    """Epochs of linear warm-up from 1e-6."""
    schedule_lag: Count = 1
    """Epochs by which the schedule trails, 1 as released; 0 removes the lag."""


class _Passed(NamedTuple):
    class_logits: Tensor  # (B, K)
    coarse: Tensor  # (B, K, h, w), raw output of the head, with gradient
    fused: Tensor  # (B, T, N), attention of all tokens to patches, gradient to the fusion only
    grid: tuple[int, int]


class WeakTr(Method):
    """See the module's description.

    Args:
        config: Settings.
        num_classes: K, the number of foreground classes.
    """

    config_class: ClassVar[type[MethodConfig]] = WeakTrConfig
    map_kinds: ClassVar[tuple[str, ...]] = ("cam",)
    config: WeakTrConfig

    def __init__(self, config: WeakTrConfig, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.config = config
        self.encoder = ViT(
            config.backbone,
            num_classes,
            0,
            normalisation="imagenet",
            position_offset=0.1,
            drop_path=config.drop_path,
        )
        self.side_multiple = self.encoder.patch_size
        self.head = nn.Conv2d(self.encoder.dim, num_classes, 3, padding=1)
        heads: Any = self.encoder.blocks[0].attn
        self.num_heads = int(heads.num_heads)
        self.fusion = AttentionFusion(
            self.encoder.depth * self.num_heads,
            self.encoder.dim // self.num_heads,
            config.reduction,
            config.feature_reduction,
        )

    def size_problem(self, size: int) -> str | None:
        """A view must hold a patch."""
        patch = self.encoder.patch_size
        return f"it holds no patch of {patch}" if size < patch else None

    def initialise(self, weights: str) -> None:
        """Load the pretrained backbone; see `ViT.initialise`."""
        self.encoder.initialise(weights)

    @classmethod
    def convert_weights(cls, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """Published checkpoints, the dict of several or its "model" alone, under our names."""
        renamed = {}
        for key, value in super().convert_weights(state.get("model", state)).items():
            if key.startswith("adaptive_attention_fusion."):
                renamed[key.replace("adaptive_attention_fusion.", "fusion.", 1)] = value
            else:
                renamed[key if key.startswith("head.") else f"encoder.{key}"] = value
        return renamed

    def forward(self, batch: Batch, step: int) -> StepResult:
        """One training step: the tags explain class tokens, the coarse map and the fine map."""
        class_logits, coarse, fine = self.all_logits(batch.images)
        losses = {
            "cls": multilabel_soft_margin(class_logits, batch.tags),
            "coarse": multilabel_soft_margin(coarse, batch.tags),
            "fine": multilabel_soft_margin(fine, batch.tags),
        }
        total = torch.stack(list(losses.values())).sum()
        return StepResult(total, {"loss": total.detach()} | {k: v.detach() for k, v in losses.items()})

    def all_logits(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Class logits from class tokens, the coarse map and the fine map, each (B, K)."""
        out = self._pass(images)
        fine = self._refined(out, self._maps(out, "fused"))
        return out.class_logits, out.coarse.mean((2, 3)), fine.mean((2, 3))

    def classify(self, images: Tensor) -> Tensor:
        """Class logits (B, K) of the class tokens for images (B, 3, H, W) in [0, 1]."""
        features: TokenFeatures = self.encoder(images, norm=False)
        return features.class_tokens.mean(2)

    def attention_maps(self, images: Tensor, attention: AttentionType) -> tuple[Tensor, Tensor]:
        """Maps before patch refinement and the fused attention they would be refined with.

        Args:
            images: RGB in [0, 1], (B, 3, H, W).
            attention: Which maps, see `WeakTrConfig.attention`.

        Returns:
            Maps (B, K, h, w) and patch-to-patch attention (B, N, N).
        """
        out = self._pass(images)
        return self._maps(out, attention), out.fused[:, self.num_classes :]

    def view_maps(
        self, images: Tensor, kinds: Sequence[str], tags: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Fine maps of one view (B, K, h, w), zero or above unless patch refinement is off."""
        with torch.no_grad():
            out = self._pass(images)
            maps = self._maps(out, self.config.attention)
            return {"cam": self._refined(out, maps) if self.config.patch_refine else maps}

    def view_plan(self, kind: str) -> ViewPlan:
        """Views resized by Pillow to the nearest pixel, summed with their mirror images."""
        return ViewPlan(
            scales=self.config.scales,
            flip="sum",
            relu="none",
            epsilon=1e-8,
            rounding="nearest",
            resample="pillow",
        )

    def optim_plan(self, iterations: int) -> OptimPlan:
        """AdamW with one group; the rate follows a warm-up and a cosine, epoch by epoch."""
        config = self.config
        group = ParamGroup("all", list(self.parameters()), config.lr, config.weight_decay)
        return OptimPlan(
            "adamw",
            [group],
            lambda step: cosine_by_epoch(
                step, iterations, config.epochs, config.lr, config.warmup_epochs, lag=config.schedule_lag
            ),
        )

    @classmethod
    def batch_rule(cls, config: WeakTrConfig) -> tuple[float, int]:  # type: ignore[override]
        """See `Method.batch_rule`: DeiT's rule."""
        return config.lr, 64

    def _pass(self, images: Tensor) -> _Passed:
        pooled: list[Tensor] = []
        kept: list[Tensor] = []

        def visit(_: int, probs: Tensor, branch: Tensor) -> None:
            # Features and attention teach the fusion, not the encoder.
            kept.append(probs.detach())
            pooled.append(grouped_pool(branch.detach(), self.num_heads, self.config.pooling))

        features = self.encoder(images, visit=visit, norm=False)
        weights = self.fusion(torch.stack(pooled, 2).flatten(1, 2))
        # Only columns of patches are ever read.
        fused = fuse_attention(weights, kept)[..., self.num_classes :]
        return _Passed(features.class_tokens.mean(2), self.head(features.patches), fused, features.grid)

    def _maps(self, out: _Passed, attention: AttentionType) -> Tensor:
        coarse = out.coarse.detach().relu()
        if attention == "patchcam":
            return coarse
        cross = out.fused[:, : self.num_classes].reshape(coarse.shape)
        return cross if attention == "cross" else cross * coarse

    def _refined(self, out: _Passed, maps: Tensor) -> Tensor:
        patches = out.fused[:, self.num_classes :]
        refined: Tensor = (maps.flatten(2) @ patches.transpose(1, 2)).reshape(maps.shape)
        return refined

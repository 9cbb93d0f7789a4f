"""MCTformer: one class token per class; its attention to the patches localizes the class.

Xu et al., "Multi-class Token Transformer for Weakly Supervised Semantic Segmentation", CVPR 2022
(versions 1 and 2), and "MCTformer+", arXiv 2308.03005.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from tagmask.backbones.attention_sums import AttentionSums, Part
from tagmask.backbones.vit import ViT
from tagmask.config import Count, Rate, Scales, Share, Weight
from tagmask.errors import ConfigError
from tagmask.losses.tags import multilabel_soft_margin
from tagmask.losses.tokens import class_token_contrast
from tagmask.methods.base import Method, MethodConfig
from tagmask.ops.entropy import refined_entropy
from tagmask.ops.pooling import ranked_pool
from tagmask.ops.schedules import cosine_by_epoch
from tagmask.types import Batch, OptimPlan, ParamGroup, StepResult, ViewPlan

__all__ = ["MCTformer", "MCTformerConfig"]

_RATES = {"v1": 6.25e-5, "v2": 6.25e-5, "plus": 3.125e-5}
_EPOCHS = {"v1": 60, "v2": 60, "plus": 45}
_SCALES = {"v1": (1.0,), "v2": (1.0,), "plus": (1.0, 0.75, 1.25)}
_LAST_BLOCKS = {"v1": 3, "v2": 3, "plus": 12}


class MCTformerConfig(MethodConfig):
    """Settings of MCTformer; None means the value the chosen version was published with."""

    backbone: str = "deit_small_patch16_224.fb_in1k"
    """Any plain ViT; DeiT-small in the papers."""
    version: Literal["v1", "v2", "plus"] = "v2"
    """v1: class tokens alone; v2: a patch classifier too; plus: ranked pooling and token contrast."""
    input_size: int = Field(default=448, ge=16, le=2**14)
    """Side of the training views of "plus", whose position table has this size (the others keep 224)."""
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    """Largest rate of dropped residual branches, at the last block."""
    attention_blocks: int | None = Field(default=None, ge=1)
    """From how many last blocks class attention is taken; 3, "plus" 12."""
    cam: Literal["fused", "patchcam", "mct"] = "fused"
    """Class attention times patch maps, patch maps alone, or class attention alone (v1 has only that)."""
    patch_refine: bool = True
    """Spread maps along the sum of all blocks' patch attention."""
    scales: Scales | None = None
    """Views of an image; 1, for "plus" 1, 0.75 and 1.25."""
    pool_decay: Share = 0.996
    """Weight of each next-ranked patch in the patch logits of "plus"."""
    contrast_weight: Weight = 1.0
    """Of the class-token contrast of "plus"."""
    contrast_blocks: int = Field(default=12, ge=1)
    """Over how many last blocks the contrast runs."""
    lr: Rate | None = None
    """Base rate: 5e-4 * batch / 512, with batch 64 (v1, v2) or 32 (plus)."""
    epochs: int | None = Field(default=None, ge=1)
    """Number of epochs that the learning-rate schedule assumes; 60, "plus" 45."""
    warmup_epochs: Count = 5
    """Epochs of linear warm-up."""
    warmup_lr: Rate = 1e-6
    """Rate that the warm-up starts at."""
    min_lr: Rate = 1e-5
    """Rate that the cosine ends at."""
    weight_decay: Weight = 0.05
    """Of matrices; biases, norms, the class tokens and (v1, v2) the position table have none."""


class _Outputs(NamedTuple):
    """What the training and the tests look at.

    Attributes:
        class_logits: Mean over the channels of each class token, (B, K).
        patch_maps: Output of the patch head, (B, K, h, w); None in version 1.
        class_tokens: After the blocks the contrast uses, in order, (B, K, D) each.
    """

    class_logits: Tensor
    patch_maps: Tensor | None
    class_tokens: list[Tensor]


class MCTformer(Method):
    """All three versions; published files of one load into that version only."""

    config_class = MCTformerConfig
    map_kinds = ("cam",)

    def __init__(self, config: MCTformerConfig, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.config = config
        plus = config.version == "plus"
        self.backbone = ViT(
            config.backbone,
            num_class_tokens=num_classes,
            num_extra_tokens=0,
            normalisation="imagenet",
            # "plus" duplicates each of DeiT's cells into 2 x 2; the others follow DINO's resize rule.
            position_offset=0.0 if plus else 0.1,
            grid=None if not plus else self._plus_grid(config),
            grid_mode="nearest",
            drop_path=config.drop_path,
        )
        self.side_multiple = self.backbone.patch_size
        self.head = (
            None if config.version == "v1" else nn.Conv2d(self.backbone.dim, num_classes, 3, padding=1)
        )

    @staticmethod
    def _plus_grid(config: MCTformerConfig) -> tuple[int, int]:
        return (config.input_size // 16, config.input_size // 16)

    def outputs(self, images: Tensor, hidden: Sequence[int] = ()) -> _Outputs:
        """Logits, patch maps and the class tokens after chosen blocks."""
        found = self.backbone(images, norm=False, hidden=hidden)
        maps = None if self.head is None else self.head(found.patches)
        tokens = [found.hidden[block][:, : self.num_classes] for block in hidden]
        return _Outputs(found.class_tokens.mean(2), maps, tokens)

    def patch_logits(self, maps: Tensor) -> Tensor:
        """Patch maps (B, K, h, w) pooled to logits (B, K)."""
        if self.config.version == "plus":
            return ranked_pool(maps, self.config.pool_decay)
        return maps.mean(dim=(2, 3))

    def classify(self, images: Tensor) -> Tensor:
        """Class logits (B, K); "plus" averages those of class tokens and patches."""
        found = self.outputs(images)
        if self.config.version != "plus" or found.patch_maps is None:
            return found.class_logits
        return (found.class_logits + self.patch_logits(found.patch_maps)) / 2

    def forward(self, batch: Batch, step: int) -> StepResult:
        """Classification by class tokens, by patches, and (plus) the contrast of class tokens."""
        settings, depth = self.config, self.backbone.depth
        contrasted = settings.version == "plus" and settings.contrast_weight > 0
        blocks = range(max(depth - settings.contrast_blocks, 0), depth) if contrasted else ()
        found = self.outputs(batch.images, blocks)
        losses = {"class": multilabel_soft_margin(found.class_logits, batch.tags)}
        if found.patch_maps is not None:
            losses["patch"] = multilabel_soft_margin(self.patch_logits(found.patch_maps), batch.tags)
        if contrasted:
            stacked = torch.cat(found.class_tokens)
            contrast = class_token_contrast(stacked, 1.0, batch.tags.repeat(len(blocks), 1))
            losses["contrast"] = settings.contrast_weight * contrast
        return StepResult(
            torch.stack(list(losses.values())).sum(), {name: value.detach() for name, value in losses.items()}
        )

    @torch.no_grad()
    def view_maps(self, images: Tensor, kinds: Sequence[str]) -> dict[str, Tensor]:
        """Class maps on the patch grid, spread along patch attention."""
        maps, patches = self.attention_maps(images)
        if self.config.patch_refine:
            maps = (maps.flatten(2) @ patches.transpose(1, 2)).view_as(maps)
        return {"cam": maps}

    def attention_maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Maps before they are spread, (B, K, h, w), and all blocks' summed patch attention, (B, N, N)."""
        settings, depth, count = self.config, self.backbone.depth, self.num_classes
        last = min(settings.attention_blocks or _LAST_BLOCKS[settings.version], depth)
        # "plus" takes the mean over the blocks, the earlier versions the sum.
        share = 1 / last if settings.version == "plus" else 1.0
        sums = AttentionSums(
            patches=Part([1.0] * depth, lambda mean: mean[:, count:, count:]),
            classes=Part([0.0] * (depth - last) + [share] * last, lambda mean: mean[:, :count, count:]),
        )
        found = self.backbone(images, norm=False, visit=sums.visit)
        attended = sums.totals["classes"].reshape(-1, count, *found.grid)
        if self.head is None or settings.cam == "mct":
            return attended, sums.totals["patches"]
        maps = self.head(found.patches).relu()
        if settings.cam == "fused":
            maps = attended * maps
            maps = maps.sqrt() if settings.version == "plus" else maps
        return maps, sums.totals["patches"]

    @torch.no_grad()
    def layer_entropy(self, images: Tensor, tags: Tensor) -> Tensor:
        """Entropy in bits of the maps after each block's attention, (B, L); see `ops.entropy`.

        Raises:
            ConfigError: Version 1 has no patch maps to follow.
        """
        if self.head is None:
            raise ConfigError("the layer-wise analysis follows patch maps, which MCTformer V1 does not have")
        count, blocks = self.num_classes, range(self.backbone.depth)
        found = self.backbone(
            images, norm=False, scores=blocks, reduce=lambda s: s.softmax(-1).mean(1)[:, count:, count:]
        )
        maps = self.head(found.patches).relu()
        return torch.stack([refined_entropy(maps, tags, found.scores[block]) for block in blocks], dim=1)

    def view_plan(self, kind: str) -> ViewPlan:
        """Sum over scales and mirror images; maps are positive as they are."""
        scales = self.config.scales or _SCALES[self.config.version]
        return ViewPlan(scales, flip="sum", relu="none", epsilon=1e-8, rounding="nearest", resample="pillow")

    def optim_plan(self, iterations: int) -> OptimPlan:
        """AdamW with DeiT's schedule."""
        settings = self.config
        base, _ = self.batch_rule(settings)
        epochs = settings.epochs or _EPOCHS[settings.version]
        spared = {"backbone.cls_token"}
        if settings.version != "plus":  # "plus" renamed its position tables and so lost their exemption
            spared.add("backbone.pos_embed")
        plain: list[nn.Parameter] = []
        decayed: list[nn.Parameter] = []
        for name, param in self.named_parameters():
            exempt = param.ndim <= 1 or name.endswith(".bias") or name in spared
            (plain if exempt else decayed).append(param)
        groups = [
            ParamGroup("no decay", plain, base, 0.0),
            ParamGroup("decay", decayed, base, settings.weight_decay),
        ]
        warmup = (settings.warmup_epochs, settings.warmup_lr, settings.min_lr)
        return OptimPlan(
            "adamw", groups, lambda step: cosine_by_epoch(step, iterations, epochs, base, *warmup)
        )

    @classmethod
    def batch_rule(cls, config: MCTformerConfig) -> tuple[float, int]:  # type: ignore[override]
        """See `Method.batch_rule`: DeiT's rule, with the batches of the papers."""
        rate = _RATES[config.version] if config.lr is None else config.lr
        return rate, 32 if config.version == "plus" else 64

    def size_problem(self, size: int) -> str | None:
        """A view must hold a patch."""
        patch = self.backbone.patch_size
        return f"it holds no patch of {patch}" if size < patch else None

    def initialise(self, weights: str) -> None:
        """Load a pretrained ViT; every class token starts as a copy of its class token."""
        self.backbone.initialise(weights)

    @classmethod
    def convert_weights(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A published file of any version under this module's names; what no version uses is dropped."""
        state = super().convert_weights(state)
        if "pos_embed_pat" in state:
            tables = [state.pop("pos_embed_cls"), state.pop("pos_embed_pat")]
            state["pos_embed"] = torch.cat(tables, dim=1)
        if state["head.weight"].ndim == 2:  # version 1 carries DeiT's classifier without using it
            del state["head.weight"], state["head.bias"]
        return {(key if key.startswith("head.") else f"backbone.{key}"): v for key, v in state.items()}

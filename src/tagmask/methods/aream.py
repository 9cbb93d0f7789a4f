"""AReAM: maps refined by shallow attention supervise deep attention, which otherwise over-smooths.

"Mitigating Undisciplined Over-Smoothing in Transformer for Weakly Supervised Semantic Segmentation",
arXiv 2305.03112; on MCTformer (a ViT with a token per class) and on Conformer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from tagmask.backbones.attention_sums import AttentionSums, Part
from tagmask.backbones.conformer import Conformer, is_conformer
from tagmask.backbones.vit import ViT
from tagmask.config import Count, Rate, Scales, Share, Weight
from tagmask.errors import ConfigError
from tagmask.losses.affinity import pair_loss
from tagmask.losses.tags import multilabel_soft_margin
from tagmask.methods.base import Method, MethodConfig, in_mode, ordered
from tagmask.ops.affinity import affinity_labels
from tagmask.ops.entropy import entropy_weights, refined_entropy
from tagmask.ops.labels import refine_labels
from tagmask.ops.maps import keep_present
from tagmask.ops.multiscale import multi_scale
from tagmask.ops.pixel_refinement import par
from tagmask.ops.schedules import cosine_by_epoch, cosine_warmup
from tagmask.types import Batch, OptimPlan, ParamGroup, StepResult, ViewPlan

__all__ = ["AReAM", "AReAMConfig"]

_EPSILON = 1e-6


class AReAMConfig(MethodConfig):
    """Settings of AReAM; None means the value published for the kind of backbone."""

    backbone: str = "deit_small_patch16_224.fb_in1k"
    """A plain ViT (AReAM on MCTformer), or conformer_small and its variants."""
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    """Largest rate of dropped residual branches, at the last block."""
    shallow_blocks: int | None = Field(default=None, ge=1)
    """How many first blocks refine the maps; the others are supervised. Of 12: 7, Conformer 9."""
    entropy: tuple[Weight, ...] | None = None
    """Mean entropy of every block in bits, from the layer-wise analysis; equal weights if not given."""
    affinity_from: Count | None = None
    """Update from which deep attention is supervised: after 10 of 60 epochs, Conformer 2 of 12."""
    affinity_weight: Weight = 0.1
    """Of the affinity loss."""
    low: Share = 0.35
    """Background plane that decides background in the pseudo labels."""
    high: Share = 0.55
    """Background plane that decides foreground."""
    train_scales: Scales | None = None
    """Views for the pseudo labels: 1; Conformer 0.5, 1 and 1.5."""
    cam_mode: Literal["train", "eval"] = "train"
    """Mode of the network while it makes them; the papers' drops paths and updates running statistics."""
    scales: Scales | None = None
    """Views of an image afterwards: 1; Conformer 0.5, 1 and 1.5."""
    lr: Rate | None = None
    """Base rate: 6.25e-5 (batch 64); Conformer 5e-5 (batch 8)."""
    head_factor: Weight = 10.0
    """Rate of Conformer's heads relative to the rest."""
    warmup_epochs: Count | None = None
    """Epochs of linear warm-up: 5; Conformer 1."""
    warmup_lr: Rate = 1e-6
    """Rate that the warm-up starts at."""
    min_lr: Rate | None = None
    """Rate that the cosine ends at: 1e-5; Conformer 1e-6."""
    weight_decay: Weight | None = None
    """Of matrices: 0.05; Conformer 0.01."""
    epochs: int | None = Field(default=None, ge=1)
    """Number of epochs that the learning-rate schedule assumes: 60; Conformer 12."""

    updates: ClassVar[tuple[str, ...]] = ("affinity_from",)

    @model_validator(mode="after")
    def _ordered(self) -> AReAMConfig:
        ordered(self, ("low", "high"))
        return self


class Published(NamedTuple):
    """What the two published set-ups differ in.

    Attributes:
        shallow: First blocks, of 12, that refine the maps.
        affinity_from: Update from which the affinity loss runs.
        scales: Views.
        lr: Base rate.
        weight_decay: Of matrices.
        epochs: Of the published run.
        warmup: Epochs of warm-up.
        floor: Rate that the cosine ends at.
    """

    shallow: int
    affinity_from: int
    scales: Scales
    lr: float
    weight_decay: float
    epochs: int
    warmup: int
    floor: float


ON_VIT = Published(7, 1650, (1.0,), 6.25e-5, 0.05, 60, 5, 1e-5)
ON_CONFORMER = Published(9, 2644, (0.5, 1.0, 1.5), 5e-5, 0.01, 12, 1, 1e-6)


class Passed(NamedTuple):
    """One forward pass.

    Attributes:
        logits: Of both classifiers, (B, K) each: class tokens and patches, or CNN and transformer.
        maps: Class maps without gradient, (B, K, h, w); signed on Conformer.
        scores: What `reduce` made of the attention scores of each chosen block.
    """

    logits: tuple[Tensor, Tensor]
    maps: Tensor
    scores: dict[int, Tensor]


class AReAM(Method):
    """MCTformer version 2 or Conformer (class token not doubled) with supervised deep attention."""

    config_class = AReAMConfig
    map_kinds = ("cam",)

    def __init__(self, config: AReAMConfig, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.config = config
        self.on_conformer = is_conformer(config.backbone)
        if self.on_conformer:
            self._build_on_conformer(config, num_classes)
        else:
            self._build_on_vit(config, num_classes)
        self.depth = self.backbone.depth
        self.shallow = config.shallow_blocks or round(self.published.shallow * self.depth / 12)
        # Deep blocks count by e, shallow ones by 1 - e; without an analysis all count fully.
        self._entropy = None if config.entropy is None else entropy_weights(config.entropy)
        self._check_blocks()

    def _build_on_conformer(self, config: AReAMConfig, num_classes: int) -> None:
        conformer = Conformer(config.backbone, double_class_token=False, drop_path=config.drop_path)
        self.published = ON_CONFORMER
        self.backbone: Conformer | ViT = conformer
        self.num_prefix, self.cell, self.side_multiple = 1, conformer.stride, conformer.stride
        self.analysis_size = 384
        self.cnn_head = nn.Conv2d(conformer.channels, num_classes, 1)
        self.att_head = nn.Linear(conformer.dim, num_classes)
        nn.init.kaiming_normal_(self.cnn_head.weight, mode="fan_out", nonlinearity="relu")
        nn.init.trunc_normal_(self.att_head.weight, std=0.02)
        nn.init.zeros_(self.att_head.bias)

    def _build_on_vit(self, config: AReAMConfig, num_classes: int) -> None:
        self.published = ON_VIT
        self.backbone = vit = ViT(
            config.backbone,
            num_class_tokens=num_classes,
            num_extra_tokens=0,
            normalisation="imagenet",
            position_offset=0.1,
            drop_path=config.drop_path,
        )
        self.num_prefix, self.cell = num_classes, vit.patch_size
        self.side_multiple = self.backbone.patch_size
        self.head = nn.Conv2d(vit.dim, num_classes, 3, padding=1)

    def _check_blocks(self) -> None:
        if not 0 < self.shallow < self.depth:
            raise ConfigError(f"shallow_blocks must be 1 to {self.depth - 1}, got {self.shallow}")
        if self._entropy is not None and len(self._entropy) != self.depth:
            raise ConfigError(
                f"entropy needs one value for each of {self.depth} blocks, got {len(self._entropy)}"
            )

    def run(
        self,
        images: Tensor,
        scores: Collection[int] = (),
        reduce: Callable[[Tensor], Tensor] | None = None,
    ) -> Passed:
        """Both classifiers, the class maps, and attention of chosen blocks.

        Args:
            images: RGB in [0, 1], (B, 3, H, W).
            scores: Blocks whose attention scores are wanted, with gradient.
            reduce: Applied to the scores of each before they are kept.
        """
        if isinstance(self.backbone, Conformer):
            found = self.backbone(images, scores=scores, reduce=reduce)
            raw = self.cnn_head(found.map)
            logits = (raw.mean(dim=(2, 3)), self.att_head(found.tokens[:, 0]))
            return Passed(logits, raw.detach(), found.scores)
        tokens = self.backbone(images, scores=scores, reduce=reduce, norm=False)
        raw = self.head(tokens.patches)
        return Passed((tokens.class_tokens.mean(2), raw.mean(dim=(2, 3))), raw.detach().relu(), tokens.scores)

    def size_problem(self, size: int) -> str | None:
        """Views and, on Conformer, their scaled copies must be whole patches, which labels are read at."""
        scales = (self.config.train_scales or self.published.scales) if self.on_conformer else (1.0,)
        sides = [size, *(int(size * scale) for scale in scales)]
        broken = [side for side in sides if side % self.cell or side < self.cell]
        if not broken:
            return None
        return f"views of {broken[0]} pixels are no multiple of {self.cell} (scales {list(scales)})"

    def classify(self, images: Tensor) -> Tensor:
        """Class logits (B, K), the mean of both classifiers."""
        first, second = self.run(images).logits
        return (first + second) / 2

    def forward(self, batch: Batch, step: int) -> StepResult:
        """Classification and, in the affinity phase, supervision of deep attention."""
        config, begin = self.config, self.config.affinity_from
        begin = self.published.affinity_from if begin is None else begin
        supervised = step >= begin and config.affinity_weight > 0
        deep = range(self.shallow, self.depth) if supervised else ()

        # Forward.
        found = self.run(batch.images, deep, self._patch_scores)

        # Losses: both classifiers, and deep attention against what the shallow blocks' maps say.
        losses = [multilabel_soft_margin(logits, batch.tags) for logits in found.logits]
        loss = losses[0] + losses[1]
        logs = {"first": losses[0].detach(), "second": losses[1].detach()}
        if supervised:
            labels = self.pseudo_labels(batch)
            pairs = affinity_labels(labels[:, :: self.cell, :: self.cell])
            affinity, _ = self.affinity_loss([found.scores[block] for block in deep], pairs)
            loss = loss + config.affinity_weight * affinity
            logs["affinity"] = affinity.detach()
        return StepResult(loss, logs)

    def _patch_scores(self, scores: Tensor) -> Tensor:
        return scores[:, :, self.num_prefix :, self.num_prefix :].mean(1)

    def affinity_loss(self, scores: Sequence[Tensor], pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Sigmoid of deep attention scores against pair labels.

        Args:
            scores: Head mean of every deep block's patch scores before softmax, (B, N, N) each.
            pairs: 1 same class, 0 different, 255 does not count, (B, N, N).

        Returns:
            The (weighted) mean over the blocks, and the loss of each, (number of deep blocks,).
        """
        each = torch.stack([pair_loss(score.sigmoid(), pairs) for score in scores])
        if self._entropy is None:
            return each.mean(), each
        return (each * each.new_tensor(self._entropy[self.shallow :])).mean(), each

    @torch.no_grad()
    def pseudo_labels(self, batch: Batch) -> Tensor:
        """Label maps (B, H, W) of the batch from maps refined by shallow attention and by the images."""
        config = self.config
        with in_mode(self, self.training and config.cam_mode == "train"):
            maps = keep_present(self.training_maps(batch.images), batch.tags)
        return refine_labels(batch.images, maps, batch.tags, config.high, config.low, par, batch.boxes)

    @torch.no_grad()
    def training_maps(self, images: Tensor) -> Tensor:
        """Maps in [0, 1), (B, K, H, W), refined by the shallow blocks only, in the network's current mode."""
        shares = [1.0] * self.depth if self._entropy is None else [1 - e for e in self._entropy]
        weights = [share / self.shallow for share in shares[: self.shallow]]
        plan = ViewPlan(
            self.config.train_scales or self.published.scales,
            flip="sum",
            relu="sum",
            epsilon=_EPSILON,
            pad=self.side_multiple,
        )
        return multi_scale(partial(self._refined, weights), images, plan)["cam"]

    @torch.no_grad()
    def view_maps(self, images: Tensor, kinds: Sequence[str]) -> dict[str, Tensor]:
        """Maps refined by all blocks alike, shallow or deep."""
        return self._refined([1 / self.depth] * self.depth, images)

    def _refined(self, weights: Sequence[float], images: Tensor) -> dict[str, Tensor]:
        """Class maps moved along the weighted patch attention of the first blocks."""
        prefix = self.num_prefix
        padded = [*weights, *[0.0] * (self.depth - len(weights))]
        parts = {"patches": Part(padded, lambda mean: mean[:, prefix:, prefix:])}
        blocks = len(weights)
        if not self.on_conformer:
            # Class attention always comes from all blocks.
            parts["classes"] = Part([1 / self.depth] * self.depth, lambda mean: mean[:, :prefix, prefix:])
            blocks = self.depth
        sums = AttentionSums(**parts)
        maps = self.run(images, range(blocks), sums).maps
        flat = maps.flatten(2)
        if not self.on_conformer:
            flat = flat * sums.totals["classes"]
        return {"cam": (flat @ sums.totals["patches"].transpose(1, 2)).view_as(maps)}

    def view_plan(self, kind: str) -> ViewPlan:
        """Sum over scales and mirror images of images padded to whole patches."""
        return ViewPlan(
            self.config.scales or self.published.scales,
            flip="sum",
            relu="sum",
            epsilon=_EPSILON,
            rounding="down" if self.on_conformer else "nearest",
            resample="pillow",
            pad=16,
            mirror_padding=self.on_conformer,
        )

    @torch.no_grad()
    def layer_entropy(self, images: Tensor, tags: Tensor) -> Tensor:
        """Entropy in bits of the maps after each block's attention, (B, L); see `ops.entropy`."""
        blocks, prefix = range(self.depth), self.num_prefix
        found = self.run(images, blocks, lambda s: s.softmax(-1).mean(1)[:, prefix:, prefix:])
        epsilon = _EPSILON if self.on_conformer else 0.0
        rows = [refined_entropy(found.maps, tags, found.scores[block], epsilon) for block in blocks]
        return torch.stack(rows, dim=1)

    def optim_plan(self, iterations: int) -> OptimPlan:
        """AdamW: DeiT's schedule, or on Conformer a cosine per update and faster heads."""
        settings, published = self.config, self.published
        base = published.lr if settings.lr is None else settings.lr
        decay = published.weight_decay if settings.weight_decay is None else settings.weight_decay
        epochs = settings.epochs or published.epochs
        spared = "backbone.cls_token" if self.on_conformer else "backbone.pos_embed"
        order = ["backbone", "backbone decay"]
        if self.on_conformer:
            order = ["backbone decay", "backbone", "head decay", "head"]
        members: dict[str, list[nn.Parameter]] = {key: [] for key in order}
        for name, param in self.named_parameters():
            exempt = param.ndim <= 1 or name.endswith(".bias") or name == spared
            part = "head" if self.on_conformer and not name.startswith("backbone.") else "backbone"
            members[part if exempt else f"{part} decay"].append(param)
        groups = [
            ParamGroup(
                name,
                params,
                base * (settings.head_factor if name.startswith("head") else 1),
                decay if name.endswith("decay") else 0.0,
            )
            for name, params in members.items()
        ]
        warmup = published.warmup if settings.warmup_epochs is None else settings.warmup_epochs
        ends = (settings.warmup_lr, published.floor if settings.min_lr is None else settings.min_lr)
        if self.on_conformer:
            updates = iterations * warmup // epochs
            return OptimPlan(
                "adamw", groups, lambda step: cosine_warmup(step, iterations, updates, base, *ends)
            )
        return OptimPlan(
            "adamw", groups, lambda step: cosine_by_epoch(step, iterations, epochs, base, warmup, *ends)
        )

    @classmethod
    def batch_rule(cls, config: AReAMConfig) -> tuple[float, int] | None:  # type: ignore[override]
        """See `Method.batch_rule`: DeiT's rule on a ViT, none on Conformer."""
        rate = ON_VIT.lr if config.lr is None else config.lr
        return None if is_conformer(config.backbone) else (rate, 64)

    def initialise(self, weights: str) -> None:
        """Load the pretrained ViT, or the original Conformer's file without its heads."""
        self.backbone.initialise(weights)

    @classmethod
    def convert_weights(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The authors' checkpoint (either backbone, or MCTformer version 2) under this module's names."""
        return {
            (key if key.split(".")[0].endswith("head") else f"backbone.{key}"): value
            for key, value in super().convert_weights(state).items()
        }

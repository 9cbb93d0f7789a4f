"""AFA: a pair affinity learned from attention corrects the labels of the network that attends.

"Learning Affinity from Attention", Ru et al., CVPR 2022. One Mix Transformer carries a classifier, a
segmentation head and a pair affinity. Each step, class maps turn into refined labels; those supervise the
affinity, and a random walk along the affinity gives the labels that supervise the segmentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from tagmask.backbones.mit import MixTransformer, PyramidFeatures
from tagmask.backbones.mit_names import mit_weights
from tagmask.backbones.weights import load_strictly
from tagmask.config import Count, Power, Rate, Scales, Share, Weight
from tagmask.heads.pairs import PairAffinity
from tagmask.heads.segformer import SegFormerHead
from tagmask.losses.affinity import pair_loss
from tagmask.losses.energy import dense_energy_loss
from tagmask.losses.segmentation import balanced_cross_entropy
from tagmask.losses.tags import multilabel_soft_margin
from tagmask.methods.base import Method, MethodConfig, SegmentationViews, in_mode, ordered
from tagmask.ops.affinity import affinity_labels, propagate_with_background, radius_mask, transition
from tagmask.ops.labels import refine_labels, refine_shares
from tagmask.ops.maps import class_maps, present_classes, take_classes
from tagmask.ops.multiscale import each_view, merge_views, view_sizes
from tagmask.ops.pixel_refinement import PAR_DILATIONS, par
from tagmask.ops.resize import resize_bilinear
from tagmask.ops.schedules import poly_warmup
from tagmask.ops.sizes import fit_long_side
from tagmask.types import Batch, OptimPlan, ParamGroup, SegmentationPlan, StepResult, ViewPlan

__all__ = ["AFA", "AFAConfig", "AFAViews"]

_ATTENTION_BLOCKS = (-2, -1)
_SMALLEST = 29


Stride = Annotated[int, Field(ge=1, le=32)]


class AFAConfig(MethodConfig):
    """Settings of AFA; defaults are those of the VOC runs."""

    backbone: Literal["mit_b0", "mit_b1", "mit_b2", "mit_b3", "mit_b4", "mit_b5"] = "mit_b1"
    """Mix Transformer; the paper's is B1."""
    strides: tuple[Stride, Stride, Stride, Stride] = (4, 2, 2, 1)
    """Downsampling per stage; SegFormer's last stage has 2, AFA keeps it at 1/16 of the image."""
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    """Stochastic depth of the last block, as in SegFormer's training."""
    head_width: int = Field(default=256, ge=1, le=2**16)
    """Width of the segmentation head."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Channels dropped before the last layer of the segmentation head."""
    pooling: Literal["max", "mean"] = "max"
    """How the classifier sums up the image; the authors' runs take the maximum."""
    scales: Scales = (1.0, 0.5, 1.5)
    """Sizes at which class maps are computed; the walk uses the affinity of the largest."""
    cam_passes: Literal["train", "eval"] = "train"
    """State of the network while it makes class maps. The published runs leave it in training mode, so that
    these passes carry stochastic depth and update the segmentation head's batch statistics; "eval" is
    quieter and skips that head, but gives another model."""
    high: Share = 0.55
    """Background score that decides which pixels are foreground."""
    low: Share = 0.35
    """Background score that decides which pixels are background."""
    radius: Count = 8
    """Pairs farther apart than this many cells of 16 pixels are left out of loss and walk."""
    par_dilations: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = PAR_DILATIONS
    """Neighbour distances of the refinement, in pixels at half size."""
    par_iterations: Count = 10
    """Rounds of refinement; 15 on COCO."""
    tags_until: Count = 2000
    """Up to this update only the image tags supervise: the maps are not good enough yet. COCO 5000."""
    walk_after: Count = 6000
    """After this update the random walk labels the segmentation; before, the affinity is raw. COCO 15000."""
    pair_target: Literal["maps", "segmentation"] = "maps"
    """What supervises the affinity: refined class maps, or (COCO) the segmentation's labels."""
    seg_weight: Weight = 0.1
    """Weight of the segmentation loss."""
    pair_weight: Weight = 0.1
    """Weight of the affinity loss."""
    energy_weight: Weight = 0.0
    """Weight of the dense energy loss; 0.01 where the authors used it, 0 in the released scripts."""
    lr: Rate = 6e-5
    """Rate of the backbone. Its norm layers stay as they are, as in the authors' code."""
    head_lr_factor: Weight = 10.0
    """Rate of the heads relative to the backbone."""
    weight_decay: Weight = 0.01
    """Decoupled decay of everything but norm layers of the backbone."""
    warmup: Count = 1500
    """Updates of linear warm-up."""
    power: Power = 1.0
    """Exponent of the polynomial decay behind it; the released scripts decay in a straight line."""

    updates: ClassVar[tuple[str, ...]] = ("tags_until", "walk_after", "warmup")

    @property
    def learn_from(self) -> int:
        """First update in which more than the tags teaches."""
        return self.tags_until + 1

    @property
    def walk_from(self) -> int:
        """First update whose segmentation is labelled by the random walk."""
        return self.walk_after + 1

    @model_validator(mode="after")
    def _ordered(self) -> AFAConfig:
        ordered(self, ("low", "high"))
        return self


class AFAViews(SegmentationViews):
    """How the authors evaluate: longer side 512, samples at the exact factor, merged before upsampling."""

    long_side: int | None = Field(default=None, ge=16)
    """Images get this longer side first, keeping their shape."""
    sampling: Literal["sizes", "factors"] = "sizes"
    """What sets the distance of samples in a view: ratio of the rounded sizes, or the exact factor."""
    merge_at: Literal["image", "logits"] = "image"
    """At what size scales merge: the image's, or that of the first scale's logits."""

    def plan(self, size: tuple[int, int]) -> SegmentationPlan:
        """The views of an image of (height, width) pixels, and how they merge."""
        first = None if self.long_side is None else fit_long_side(size, self.long_side)
        return replace(
            super().plan(first or size),
            first=first,
            at_logits=self.merge_at == "logits",
            factors=self.scales if self.sampling == "factors" else None,
        )


class Walk(NamedTuple):
    """A random walk over the cells of a view.

    Attributes:
        steps: Transition matrix, (B, N, N).
        grid: (h, w) with h * w = N.
    """

    steps: Tensor
    grid: tuple[int, int]


class AFA(Method):
    """Affinity from attention, end to end.

    Map kinds: "cam", and "walk", the class maps after a random walk along the learned affinity; the walk's
    value is the share of a class against the background, so that 0.5 is its natural threshold.
    """

    config_class = AFAConfig
    views_class = AFAViews
    map_kinds = ("cam", "walk")
    segments = True
    sync_norms = True

    def __init__(self, config: AFAConfig, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.config = config
        self.encoder = encoder = MixTransformer(config.backbone, config.strides, config.drop_path)
        self.decoder = SegFormerHead(encoder.widths, num_classes + 1, config.head_width, config.dropout)
        self.attn_proj = PairAffinity(len(_ATTENTION_BLOCKS) * encoder.heads[-1])
        self.classifier = nn.Conv2d(encoder.widths[-1], num_classes, 1, bias=False)

    @property
    def view_kinds(self) -> tuple[str, ...]:
        """The walk follows several views, see `maps`."""
        return ("cam",)

    def initialise(self, weights: str) -> None:
        """Load ImageNet weights of the encoder under SegFormer's or the transformers library's names."""
        if weights != "none":
            load_strictly(self.encoder, mit_weights(self.config.backbone, weights), f"weights '{weights}'")

    def forward(self, batch: Batch, step: int) -> StepResult:
        """One training step: forward, targets, losses, total.

        L = L_cls + seg_weight L_seg + pair_weight L_aff + energy_weight L_energy; up to `tags_until` L_cls
        alone.
        """
        config, size = self.config, _size(batch.images)
        segments = config.seg_weight > 0 or config.energy_weight > 0
        if step < config.learn_from or not (segments or config.pair_weight):
            return self._tags_step(batch)

        # Forward: classifier, segmentation, affinity of pairs.
        features = self._encode(batch.images, _ATTENTION_BLOCKS)
        losses = {"cls": multilabel_soft_margin(self._class_logits(features), batch.tags)}
        logits = resize_bilinear(self.decoder(features.maps), size) if segments else None
        affinity = self.attn_proj(features.attention.values()) if config.pair_weight else None

        # Targets: what the network's own maps say, from update `walk_from` on after a walk along affinities.
        labels, pairs = self.targets(batch, step, _size(features.maps[-1]))

        # Losses and total.
        total = losses["cls"]
        if logits is not None and config.seg_weight:
            losses["seg"] = balanced_cross_entropy(logits, labels)
            total = total + config.seg_weight * losses["seg"]
        if affinity is not None:
            losses["pairs"] = pair_loss(affinity, pairs)
            total = total + config.pair_weight * losses["pairs"]
        if logits is not None and config.energy_weight:
            losses["energy"] = dense_energy_loss(
                logits, batch.images[:, :3], labels, batch.boxes, size_rule="given"
            )
            total = total + config.energy_weight * losses["energy"]
        idle = [*(() if segments else (self.decoder,)), *(() if config.pair_weight else (self.attn_proj,))]
        return StepResult(total + _zero(idle), {name: value.detach() for name, value in losses.items()})

    def _tags_step(self, batch: Batch) -> StepResult:
        features = self._encode(batch.images)
        loss = multilabel_soft_margin(self._class_logits(features), batch.tags)
        return StepResult(loss + self._idle(batch, features), {"cls": loss.detach()})

    @torch.no_grad()
    def targets(self, batch: Batch, step: int, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """What the network's own maps of a batch teach at update `step`.

        Args:
            batch: Images, tags and boxes.
            step: 0-based update.
            grid: (h, w) of the affinity to be taught.

        Returns:
            Labels for the segmentation, int64 (B, H, W), and pair labels, uint8 (B, N, N); 255 = ignore.
        """
        config, size = self.config, _size(batch.images)
        keys, valid = present_classes(batch.tags)
        plan = self.view_plan("cam")
        maps, walk = self._localise(
            batch.images, plan, keys, max(plan.scales) if step >= config.walk_from else None
        )
        refine = partial(par, dilations=config.par_dilations, iterations=config.par_iterations)
        planes = (config.high, config.low)
        if walk is None or config.pair_target == "maps":
            labels = source = refine_labels(batch.images, maps, valid, *planes, refine, batch.boxes, keys)
        if walk is not None:
            walked = propagate_with_background(resize_bilinear(maps, walk.grid), valid, planes, walk.steps)
            shares = torch.stack([resize_bilinear(plane, size) for plane in walked])
            labels = refine_shares(batch.images, shares, keys, refine, batch.boxes)
            source = labels if config.pair_target == "segmentation" else source
        cells = F.interpolate(source.unsqueeze(1).float(), grid).squeeze(1).to(torch.uint8)
        return labels, affinity_labels(cells, radius_mask(*grid, config.radius, cells.device))

    def optim_plan(self, iterations: int) -> OptimPlan:
        """AdamW in the authors' four groups; linear warm-up, then linear decay counted from the start."""
        config = self.config
        named = list(self.encoder.named_parameters())
        heads, decay = config.lr * config.head_lr_factor, config.weight_decay
        tags_heads = [*self.classifier.parameters(), *self.attn_proj.parameters()]
        groups = (
            ParamGroup("backbone", [p for n, p in named if "norm" not in n], config.lr, decay),
            ParamGroup("backbone_norm", [p for n, p in named if "norm" in n], 0.0, 0.0),
            ParamGroup("cls_head", tags_heads, heads, decay),
            ParamGroup("seg_head", list(self.decoder.parameters()), heads, decay),
        )

        def factor(step: int) -> float:
            return poly_warmup(min(step, iterations - 1), iterations, config.warmup, config.power)

        return OptimPlan("adamw", groups, factor)

    def classify(self, images: Tensor) -> Tensor:
        """Class logits (B, K) for images (B, 3, H, W) in [0, 1]."""
        return self._class_logits(self._encode(images))

    def segment(self, images: Tensor) -> Tensor:
        """Segmentation logits (B, K + 1, H / 4, W / 4) for images (B, 3, H, W) in [0, 1]."""
        logits: Tensor = self.decoder(self._encode(images).maps)
        return logits

    @torch.no_grad()
    def view_maps(self, images: Tensor, kinds: Sequence[str]) -> dict[str, Tensor]:
        """Raw class maps of one view, {"cam": (B, K, h, w)}; the walk needs several views, see `maps`."""
        features = self._encode(images)
        if self.training:
            self.decoder.fuse(features.maps)
        return {"cam": class_maps(features.maps[-1], self.classifier.weight)}

    def view_plan(self, kind: str) -> ViewPlan:
        """Three scales, the larger of a view and its twin, rectified and summed."""
        return ViewPlan(self.config.scales, flip="max", relu="view", epsilon=1e-5)

    @torch.no_grad()
    def maps(
        self,
        images: Tensor,
        kinds: Sequence[str] | None = None,
        plan: ViewPlan | None = None,
        tags: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Class maps in [0, 1], as `Method.maps`; "walk" depends on which classes compete.

        Args:
            images: RGB in [0, 1], (B, 3, H, W).
            kinds: "cam", "walk" or both; "cam" if None.
            plan: Overrides the paper's scales and flips.
            tags: Classes that take part in the walk, 0 or 1, (B, K); those the classifier sees if None.

        Returns:
            {kind: (B, K, H, W)}.
        """
        wanted = tuple(kinds or self.map_kinds[:1])
        plan = plan or self.view_plan("cam")
        cam, walk = self._localise(images, plan, None, plan.scales[0] if "walk" in wanted else None)
        found = {"cam": cam}
        if walk is not None:
            tags = self.classify(images) > 0 if tags is None else tags
            small = resize_bilinear(cam, walk.grid)
            shares = propagate_with_background(small, tags, (self.config.low,), walk.steps)[0]
            large = resize_bilinear(shares, _size(images))
            found["walk"] = large[:, 1:] / (large[:, 1:] + large[:, :1])
        return {kind: found[kind] for kind in wanted}

    def _class_logits(self, features: PyramidFeatures) -> Tensor:
        pool = F.adaptive_max_pool2d if self.config.pooling == "max" else F.adaptive_avg_pool2d
        logits: Tensor = self.classifier(pool(features.maps[-1], 1))
        return logits.flatten(1)

    def _encode(
        self, images: Tensor, attention: Sequence[int] = (), attended: int | None = None
    ) -> PyramidFeatures:
        # Half-size views of small images fall below what the encoder's first stage can reduce.
        height, width = _size(images)
        if height < _SMALLEST or width < _SMALLEST:
            factor = _SMALLEST / min(height, width)
            images = resize_bilinear(images, (round(height * factor), round(width * factor)))
        features: PyramidFeatures = self.encoder(images, attention, attended)
        return features

    def _localise(
        self, images: Tensor, plan: ViewPlan, keys: Tensor | None, walk_scale: float | None
    ) -> tuple[Tensor, Walk | None]:
        """Maps at image size of the classes `keys` (all if None), and the walk at one of the scales."""
        count, found, walk = images.shape[0], [], None
        walk_size = view_sizes(*_size(images), (walk_scale,))[0] if walk_scale else None
        with in_mode(self, self.training and self.config.cam_passes == "train"):
            for size, views in each_view(images, plan):
                features = self._encode(views, _ATTENTION_BLOCKS if size == walk_size else (), count)
                if self.training:
                    self.decoder.fuse(features.maps)
                if size == walk_size:
                    walk = self._walk(features)
                maps = class_maps(features.maps[-1], self.classifier.weight)
                if keys is not None:
                    maps = take_classes(maps, keys.repeat(len(views) // count, 1))
                found.append((size, {"cam": maps}))
        return merge_views(found, _size(images), plan)["cam"], walk

    def _walk(self, features: PyramidFeatures) -> Walk:
        grid = _size(features.maps[-1])
        affinity = self.attn_proj(features.attention.values())
        return Walk(transition(affinity, radius_mask(*grid, self.config.radius, affinity.device)), grid)

    def _idle(self, batch: Batch, features: PyramidFeatures) -> Tensor | float:
        """Zero, for updates in which the other heads learn nothing; keeps statistics and decay going."""
        with torch.no_grad():
            self.decoder.fuse(features.maps)
            if self.config.cam_passes == "train":
                self._localise(batch.images, self.view_plan("cam"), present_classes(batch.tags)[0], None)
        return _zero([self.decoder, self.attn_proj])


def _zero(idle: Sequence[nn.Module]) -> Tensor | float:
    """Zero with a gradient of zero for parts without a loss: AdamW decays only what has a gradient."""
    params = [param for part in idle for param in part.parameters()]
    return 0.0 * torch.stack([param.sum() for param in params]).sum() if params else 0.0


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]

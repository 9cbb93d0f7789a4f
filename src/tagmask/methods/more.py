"""MoRe: class tokens, graph category representation and localization-informed regularisation.

Yang et al., "MoRe: Class Patch Attention Needs Regularization for Weakly Supervised Semantic Segmentation",
AAAI 2025. One stage: a ViT with a token per class learns to classify; its refined maps supervise a decoder
in the same step. Defaults reproduce the released code; where the paper reads differently an option names it.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from tagmask.backbones.attention_sums import AttentionSums, Part
from tagmask.backbones.base import TokenFeatures
from tagmask.backbones.vit import Normalisation, ViT
from tagmask.backbones.vit_weights import freeze
from tagmask.config import Count, Power, Rate, Scales, Share, Weight
from tagmask.heads.graph import GraphRepresentation, NeighbourWeight
from tagmask.heads.large_fov import LargeFOV
from tagmask.losses.energy import dense_energy_loss
from tagmask.losses.segmentation import balanced_cross_entropy
from tagmask.losses.tags import multilabel_soft_margin
from tagmask.losses.tokens import (
    class_patch_contrast,
    class_token_contrast,
    patch_contrast,
    uncertain_regions,
)
from tagmask.methods.base import Method, MethodConfig, ordered
from tagmask.ops.affinity import affinity_labels
from tagmask.ops.attention import attend_maps, class_patch_similarity, patch_to_patch
from tagmask.ops.image_classes import one_class_scores, tag_weighted_scores
from tagmask.ops.images import truncated_levels
from tagmask.ops.labels import labels_with_ignore, refine_labels
from tagmask.ops.maps import class_maps, min_max, present_classes, take_classes
from tagmask.ops.multiscale import in_small_calls, multi_scale
from tagmask.ops.pixel_refinement import PAR_DILATIONS, par
from tagmask.ops.pooling import SoftPooling, soft_pool
from tagmask.ops.resize import resize_bilinear
from tagmask.ops.schedules import poly_warmup
from tagmask.ops.uncertain import pick_uncertain
from tagmask.types import Batch, OptimPlan, ParamGroup, StepResult, ViewPlan

__all__ = ["MoRe", "MoReConfig"]


class MoReConfig(MethodConfig):
    """Settings of MoRe; the defaults are those of its PASCAL VOC script."""

    backbone: str = "vit_base_patch16_224.orig_in21k_ft_in1k"
    """Any plain ViT of timm; the tag names the weights of the paper (the bare name now means others)."""
    normalisation: Normalisation = "imagenet"
    """MoRe feeds ImageNet's mean and deviation although its weights were trained with 0.5 ("weights")."""
    train_blocks: int | None = Field(default=None, ge=0)
    """How many of the last blocks learn; the others, the patch embedding and the tokens keep their pretrained
    weights, which saves their backward pass. Every block learns if not given, as released."""
    num_registers: int = Field(default=4, ge=0, le=1024)
    """Extra tokens in front of the class tokens; they take part in attention only."""
    register_noise: float = Field(default=1.0, ge=0, le=100)
    """Deviation of their first position rows. It upsets small pretrained backbones; 0 leaves it out."""
    aux_block: int = -3
    """Block whose patches feed the auxiliary classifier; deeper ones over-smooth."""
    aux_norm: bool = False
    """Whether these patches are normed first; without it the raw residual stream is read."""
    pooling: Literal["max"] | SoftPooling = "max"
    """From patches to class logits: "max" of the features as released, or "mean", "top" (strongest fifth),
    "tenth" or "lse" of the class map, which let more of an object learn."""
    aux_pooling: Literal["max"] | SoftPooling = "max"
    """The same for the auxiliary classifier."""
    graph: bool = True
    """Whether class tokens pass through the graph category representation."""
    graph_weight: NeighbourWeight = "sum_product"
    """"sum_product" as released; "dot" is what the formula in the paper suggests."""
    scales: Scales = (1.0, 0.5, 0.75, 1.5)
    """Image scales of the class maps that supervise the step; COCO adds 1.25."""
    flip: bool = True
    """Whether each of these scales has a mirror image while training."""
    border: Literal["pad", "stretch"] = "pad"
    """Training views for maps whose sides are no multiple of the patch: padded and cut back, or, as in the
    released code, cut off and stretched. At the published sizes and scales both are the same."""
    map_relu: Literal["view", "none"] = "view"
    """Whether class maps lose their negatives before they are scaled to [0, 1]."""
    high: Share = 0.7
    """Background plane of the pseudo label's foreground, and upper threshold of the token masks."""
    low: Share = 0.25
    """Background plane of the pseudo label's background, and lower threshold of the token masks."""
    early_cre_high: Share = 0.5
    """Upper threshold of the token mask of the class-patch contrast before `late_from`."""
    late_high: Share = 0.6
    """Upper threshold of the token masks of L_cre and L_ure from `late_from` on."""
    late_low: Share = 0.35
    """Lower threshold of the token masks of L_cre and L_ure from `late_from` on."""
    late_from: Count = 10001
    """First step whose L_cre and L_ure trust the main classifier's maps instead of the auxiliary ones."""
    mct_from: Count = 0
    """First step with class-token contrast. Alone it tells tokens apart at random, so a run that begins with
    classification only had better wait for the other terms."""
    ptc_from: Count = 0
    """First step with patch-token contrast; without any map-based term no extra passes run."""
    lir_from: Count = 0
    """First step with the localization-informed losses L_cre and L_ure."""
    seg_from: Count = 2001
    """First step in which the decoder learns; before, its gradients are zero."""
    w_mct: Weight = 1.0
    """Weight of the class-token contrast."""
    w_ptc: Weight = 0.3
    """Weight of the patch-token contrast."""
    w_cre: Weight = 0.2
    """Weight of the class-patch contrast."""
    w_ure: Weight = 0.1
    """Weight of the uncertain-region loss."""
    w_seg: Weight = 0.12
    """Weight of the balanced cross entropy of the decoder."""
    w_energy: Weight = 0.05
    """Weight of the dense energy loss of the decoder."""
    temperature: float = Field(default=0.5, gt=0, le=1000)
    """Of the class-patch contrast; 0.1 on COCO."""
    mct: Literal["contrast", "mixed"] = "contrast"
    """"mixed" averages the contrast with a classification by token means, as the published COCO log did."""
    pseudo_label_source: Literal["cam", "lam", "attention_cam"] = "cam"
    """Maps behind the decoder's labels: "cam" as released, "lam" as the paper describes, "attention_cam" for
    auxiliary maps times class attention, spread along patch attention."""
    attend: Literal["class", "none"] = "class"
    """Whether "attention_cam" weights the auxiliary maps by class attention before spreading them along patch
    attention. A backbone whose class tokens have not learned the classes does better without."""
    ure_position: Literal["corner", "centre"] = "corner"
    """"corner" of the window as released; "centre" takes the uncertain token itself."""
    token_boxes: Literal["pixels", "patches"] = "pixels"
    """Crop boxes on the token grid: in "pixels" as released (which ignores most tokens of padded crops), or
    divided by the patch size."""
    refine_steps: Count = 10
    """Iterations of pixel-adaptive refinement."""
    refine_shrink: int = Field(default=2, ge=1)
    """Refinement runs at this fraction of the view's size."""
    decoder_width: int = Field(default=512, ge=1, le=2**16)
    """Channels of the decoder."""
    tag_weight: Weight = 0.0
    """Power of the classifier's chance for a class that its probability in masks is multiplied by: 0 as
    released; 1 reads the decoder as "where, if anywhere"."""
    classes_per_image: Literal["any", "one", "at_most_one"] = "any"
    """How many classes an image can show. If not "any", a mask shows one: the most likely of the image, or
    with "at_most_one" perhaps none. Tiles of a large picture decide for themselves."""
    match_area: bool = False
    """After a training on labels, where masks cover half as much again as these, shift the background's logit
    half of the way. The balanced cross entropy makes small objects larger than their labels."""
    lr: Rate = 6e-5
    """Learning rate of the backbone."""
    lr_heads: Rate = 6e-4
    """Learning rate of the classifiers and the graph."""
    lr_decoder: Rate = 6e-4
    """Learning rate of the decoder."""
    weight_decay: Weight = 0.01
    """Of every parameter, norms and biases included."""
    warmup: Count = 1500
    """Updates of linear warm-up."""
    power: Power = 0.9
    """Of the polynomial decay."""

    updates: ClassVar = ("late_from", "mct_from", "ptc_from", "lir_from", "seg_from", "warmup")

    @model_validator(mode="after")
    def _ordered(self) -> MoReConfig:
        ordered(self, ("low", "high"), ("low", "early_cre_high"), ("late_low", "late_high"))
        return self


class Outputs(NamedTuple):
    """What one pass gives.

    Attributes:
        features: Of the encoder.
        aux: Patch map of the auxiliary block, (B, D, h, w), residual stream or normed.
        class_tokens: (B, K, D), behind the graph.
        attention: Sums over blocks, "seen" class to patch (B, K, N) and "affinity" patch to patch (B, N, N);
            empty unless a kind of maps needs them.
    """

    features: TokenFeatures
    aux: Tensor
    class_tokens: Tensor
    attention: Mapping[str, Tensor]


class Terms(NamedTuple):
    """Weights of the loss terms in one update; a term of weight 0 is off and costs nothing."""

    mct: float
    cre: float
    ptc: float
    ure: float
    seg: float
    energy: float

    @property
    def graph(self) -> bool:
        """Whether any term reads the class tokens behind the graph."""
        return bool(self.mct or self.cre or self.ure)

    @property
    def decoder(self) -> bool:
        """Whether the decoder learns."""
        return bool(self.seg or self.energy)


class Seeds(NamedTuple):
    """Multi-scale maps of the classes that a batch's images show.

    Attributes:
        maps: {kind: (B, M, H, W)} in [0, 1).
        keys: Class index of each map, int64, (B, M).
        valid: Which of the M maps of an image count, (B, M).
    """

    maps: Mapping[str, Tensor]
    keys: Tensor
    valid: Tensor


class MoRe(Method):
    """Encoder, classifiers, graph and decoder, with their training step; see the module's description.

    Args:
        config: Settings.
        num_classes: K, the number of foreground classes.
    """

    config_class: ClassVar[type[MethodConfig]] = MoReConfig
    map_kinds: ClassVar[tuple[str, ...]] = ("cam", "aux_cam", "lam", "attention_cam")
    segments: ClassVar[bool] = True
    has_class_tokens: ClassVar[bool] = True
    config: MoReConfig

    def __init__(self, config: MoReConfig, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.config = config
        self.encoder = ViT(
            config.backbone,
            num_classes,
            config.num_registers,
            normalisation=config.normalisation,
            position_offset=0.1,
            extra_token_noise=config.register_noise,
        )
        if config.train_blocks is not None:
            freeze(self.encoder, list(self.encoder.blocks), config.train_blocks)
        self.side_multiple = self.encoder.patch_size
        self.aux_block = self.encoder.block_index(config.aux_block)
        dim = self.encoder.dim
        self.classifier = nn.Conv2d(dim, num_classes, 1, bias=False)
        self.aux_classifier = nn.Conv2d(dim, num_classes, 1, bias=False)
        self.aux_norm = nn.LayerNorm(dim, eps=1e-6) if config.aux_norm else nn.Identity()
        self.decoder = LargeFOV(dim, num_classes + 1, config.decoder_width)
        if config.match_area:
            self.background_shift = torch.zeros(1)
            self.register_load_state_dict_pre_hook(_unshifted)  # type: ignore[no-untyped-call]
        self.graph_layer = GraphRepresentation(dim, weight=config.graph_weight) if config.graph else None

    def size_problem(self, size: int) -> str | None:
        """Every view that a term reads must hold a patch."""
        patch, small = self.encoder.patch_size, int(size * min(1.0, *self.config.scales))
        return f"its view of {small} pixels holds no patch of {patch}" if small < patch else None

    def initialise(self, weights: str) -> None:
        """Load the pretrained backbone; see `ViT.initialise`."""
        self.encoder.initialise(weights)

    @classmethod
    def convert_weights(cls, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """Published checkpoints, VOC's bare state dict and COCO's dict of several, under our names.

        Two modules exist in them that the network never uses (`encoder.head`, `graph_layer._fc1`): dropped.
        """
        plain = super().convert_weights(state.get("model_state_dict", state))
        return {k: v for k, v in plain.items() if not k.startswith(("encoder.head.", "graph_layer._fc1."))}

    def forward(self, batch: Batch, step: int) -> StepResult:
        """One training step: forward, maps, losses, total.

        L = L_cls + L_cls_aux + w_mct L_mct + w_cre L_cre + w_ptc L_ptc + w_ure L_ure
        + w_seg L_seg + w_energy L_energy, each from its first update on.
        """
        config, terms, tags = self.config, self.terms(step), batch.tags
        late, source = step >= config.late_from, config.pseudo_label_source
        # Which classifier's maps L_cre and L_ure trust depends on the update, what L_ptc reads never does.
        trusted = "cam" if late else "aux_cam"
        reads = ((trusted, terms.cre), (trusted, terms.ure), ("aux_cam", terms.ptc))
        kinds = [kind for kind, weight in reads if weight]
        if terms.decoder and batch.labels is None:
            kinds.append(source)

        # Forward.
        out = self.run(batch.images, graph=terms.graph or "lam" in kinds)
        patches, tokens, grid = out.features.patches, out.class_tokens, out.features.grid

        # Maps.
        seeds = self.seeds(batch, out, sorted(set(kinds)))

        # Losses.
        losses = {
            "cls": multilabel_soft_margin(self.logits(patches), tags),
            "cls_aux": multilabel_soft_margin(self.logits(out.aux, aux=True), tags),
        }
        if terms.mct:
            losses["mct"] = self.class_token_loss(tokens, tags)
        low = config.late_low if late else config.low
        if terms.cre:
            high = config.late_high if late else config.early_cre_high
            labels = self.token_labels(seeds, trusted, high, low, grid, batch.boxes)
            losses["cre"] = class_patch_contrast(tokens, patches, labels, tags, config.temperature)
        if terms.ptc:
            labels = self.token_labels(seeds, "aux_cam", config.high, config.low, grid, batch.boxes)
            losses["ptc"] = patch_contrast(patches, affinity_labels(labels, diagonal=False))
        if terms.ure:
            high = config.late_high if late else config.high
            labels = self.token_labels(seeds, trusted, high, low, grid, batch.boxes)
            picked = pick_uncertain(labels, config.ure_position)
            losses["ure"] = uncertain_regions(tokens, patches, tags, picked)
        if terms.decoder:
            target = batch.labels
            if target is None:
                target = self.pseudo_labels(
                    batch.images, seeds.maps[source], seeds.valid, seeds.keys, batch.boxes
                )
            logits = resize_bilinear(self.decoder(patches).float(), (target.shape[1], target.shape[2]))
            if terms.seg:
                losses["seg"] = balanced_cross_entropy(logits, target)
            if terms.energy:
                losses["energy"] = dense_energy_loss(logits, batch.images[:, :3], target, batch.boxes)

        # Total.
        weights = {"cls": 1.0, "cls_aux": 1.0, **terms._asdict()}
        total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
        # AdamW decays and counts parameters with zero gradients, but skips those without any.
        for param in self._idle_parameters(terms):
            total = total + 0.0 * param.sum()
        return StepResult(total, {"loss": total.detach()} | {k: v.detach() for k, v in losses.items()})

    def terms(self, step: int) -> Terms:
        """Weights of the loss terms in the 0-based update `step`."""
        config = self.config
        informed, decoding = step >= config.lir_from, step >= config.seg_from
        return Terms(
            mct=config.w_mct if step >= config.mct_from else 0.0,
            cre=config.w_cre if informed else 0.0,
            ptc=config.w_ptc if step >= config.ptc_from else 0.0,
            ure=config.w_ure if informed else 0.0,
            seg=config.w_seg if decoding else 0.0,
            energy=config.w_energy if decoding else 0.0,
        )

    def _idle_parameters(self, terms: Terms) -> Iterator[nn.Parameter]:
        if not terms.decoder:
            yield from self.decoder.parameters()
        # L_ure reads the class tokens without a gradient.
        if self.graph_layer is not None and not (terms.mct or terms.cre):
            yield from self.graph_layer.parameters()

    def class_token_loss(self, class_tokens: Tensor, tags: Tensor) -> Tensor:
        """L_mct of class tokens (B, K, D): their contrast, or its mean with a classification (`mct`)."""
        contrast = class_token_contrast(class_tokens)
        if self.config.mct == "contrast":
            return contrast
        # The means are taken after the normalisation, so these logits stay tiny and this half near ln 2.
        means = F.normalize(class_tokens.float(), dim=2).mean(2)
        return 0.5 * multilabel_soft_margin(means, tags) + 0.5 * contrast

    @torch.no_grad()
    def seeds(self, batch: Batch, out: Outputs, kinds: Sequence[str]) -> Seeds:
        """Multi-scale maps of the present classes; the training pass serves as the unscaled view.

        Args:
            batch: Images and tags.
            out: What the network gave for these images.
            kinds: Which maps; without any nothing is computed.
        """
        if not kinds:
            return Seeds({}, batch.tags.new_empty(0), batch.tags.new_empty(0))
        keys, valid = present_classes(batch.tags)
        maps: dict[str, Tensor] = {}
        plans: dict[ViewPlan, list[str]] = {}
        for kind in kinds:
            plan = self.view_plan(kind)
            pad = self.side_multiple if self.config.border == "pad" else plan.pad
            plan = replace(plan, pad=pad, flip=plan.flip if self.config.flip else "none")
            plans.setdefault(plan, []).append(kind)
        for plan, names in plans.items():

            def view(images: Tensor, names: Sequence[str] = names) -> dict[str, Tensor]:
                repeated = keys.repeat(len(images) // len(keys), 1)
                found = in_small_calls(partial(self.view_maps, kinds=names), images)
                return {k: take_classes(m, repeated) for k, m in found.items()}

            # The training pass runs fused attention, so maps made of attention need a pass of their own.
            passed = {} if "attention_cam" in names else self.kind_maps(out, names)
            known = {k: take_classes(m, keys) for k, m in passed.items()}
            maps |= multi_scale(view, batch.images, plan, known or None)
        return Seeds(maps, keys, valid)

    def token_labels(
        self,
        seeds: Seeds,
        kind: str,
        high: float,
        low: float,
        grid: tuple[int, int],
        boxes: Tensor | None = None,
    ) -> Tensor:
        """Label of every patch token from maps of one kind, int64, (B, h, w): 255 between `low` and `high`.

        Args:
            seeds: Maps of the present classes.
            kind: Which of them.
            high: Only above it is a token of a class.
            low: Up to it a token is background.
            grid: (h, w).
            boxes: Valid content in pixels, (B, 4).
        """
        if boxes is not None and self.config.token_boxes == "patches":
            side = self.encoder.patch_size
            first = torch.tensor([side - 1, 0, side - 1, 0], device=boxes.device)
            boxes = torch.div(boxes + first, side, rounding_mode="floor")
        elif boxes is not None:
            warnings.warn(_BOX_WARNING, stacklevel=2)
        maps = resize_bilinear(seeds.maps[kind], grid)
        return labels_with_ignore(maps, seeds.valid, high, low, boxes, seeds.keys)

    def pseudo_labels(
        self, images: Tensor, maps: Tensor, valid: Tensor, keys: Tensor, boxes: Tensor | None = None
    ) -> Tensor:
        """Refined labels from class maps.

        Args:
            images: RGB in [0, 1], (B, 3, H, W).
            maps: Maps of chosen classes, (B, M, H, W).
            valid: Which of them count, (B, M).
            keys: Class index of each map, int64, (B, M).
            boxes: Valid content in pixels, (B, 4).

        Returns:
            Labels, int64, (B, H, W).
        """
        mean, std = self.encoder.normalisation
        colours = truncated_levels(self.encoder.normalise(images), mean, std)
        refine = partial(par, dilations=PAR_DILATIONS, iterations=self.config.refine_steps)
        config = self.config
        return refine_labels(
            colours, maps, valid, config.high, config.low, refine, boxes, keys, config.refine_shrink
        )

    def optim_plan(self, iterations: int) -> OptimPlan:
        """AdamW in five groups; warm-up, then polynomial decay counted from the first update."""
        config = self.config
        named = [(name, p) for name, p in self.encoder.named_parameters() if p.requires_grad]
        graph = [] if self.graph_layer is None else list(self.graph_layer.parameters())
        groups: list[tuple[str, list[nn.Parameter], float]] = [
            ("backbone", [p for name, p in named if "norm" not in name], config.lr),
            ("backbone_norm", [p for name, p in named if "norm" in name], config.lr),
            (
                "classifiers",
                [p for m in (self.classifier, self.aux_classifier, self.aux_norm) for p in m.parameters()],
                config.lr_heads,
            ),
            ("graph", graph, config.lr_heads),
            ("decoder", list(self.decoder.parameters()), config.lr_decoder),
        ]
        return OptimPlan(
            "adamw",
            [ParamGroup(name, params, lr, config.weight_decay) for name, params, lr in groups if params],
            lambda step: poly_warmup(step, iterations, config.warmup, config.power),
        )

    def run(self, images: Tensor, kinds: Collection[str] = ("cam",), graph: bool | None = None) -> Outputs:
        """The network on images, as far as the given kinds of maps need it.

        Args:
            images: RGB in [0, 1], (B, 3, H, W).
            kinds: Kinds of maps that will be read from the outputs.
            graph: Whether class tokens pass the graph; if a kind needs it if None.
        """
        last = self.aux_block if set(kinds) == {"aux_cam"} else None
        sums, prefix = None, self.encoder.num_prefix_tokens
        if "attention_cam" in kinds:
            every = [1.0] * self.encoder.depth
            sums = AttentionSums(
                seen=Part(every, lambda mean: mean[:, prefix - self.num_classes : prefix, prefix:]),
                affinity=Part(every, lambda mean: patch_to_patch(mean, prefix)),
            )
        visit = None if sums is None else sums.visit
        features = self.encoder(images, hidden=(self.aux_block,), visit=visit, last_block=last)
        aux = self.encoder.to_map(self.aux_norm(features.hidden[self.aux_block]), features.grid)
        tokens = features.class_tokens
        if self.graph_layer is not None and ("lam" in kinds if graph is None else graph):
            tokens = self.graph_layer(tokens, features.patches.flatten(2).transpose(1, 2))
        return Outputs(features, aux, tokens, {} if sums is None else sums.totals)

    def kind_maps(self, out: Outputs, kinds: Sequence[str]) -> dict[str, Tensor]:
        """Raw maps {kind: (B, K, h, w)} from what the network gave, detached."""
        patches = out.features.patches
        makers = {
            "cam": lambda: class_maps(patches, self.classifier.weight),
            "aux_cam": lambda: class_maps(out.aux, self.aux_classifier.weight),
            "lam": lambda: class_patch_similarity(out.class_tokens, patches),
            "attention_cam": lambda: self._attention_cam(out),
        }
        return {kind: makers[kind]().detach() for kind in kinds}

    def _attention_cam(self, out: Outputs) -> Tensor:
        maps = min_max(class_maps(out.aux, self.aux_classifier.weight).float())
        seen = out.attention["seen"].reshape(maps.shape)
        if self.config.attend == "none":
            seen = torch.ones_like(maps)
        return attend_maps(maps, seen, out.attention["affinity"])

    def logits(self, features: Tensor, aux: bool = False) -> Tensor:
        """Class logits (B, K) of the main or auxiliary classifier from its patch map (B, D, h, w)."""
        classifier = self.aux_classifier if aux else self.classifier
        pooling = self.config.aux_pooling if aux else self.config.pooling
        if pooling != "max":
            return soft_pool(class_maps(features, classifier.weight), pooling)
        logits: Tensor = classifier(F.adaptive_max_pool2d(features, 1)).flatten(1)
        return logits

    def classify(self, images: Tensor) -> Tensor:
        """Class logits (B, K) of the main classifier for images (B, 3, H, W) in [0, 1]."""
        return self.logits(self.encoder(images).patches)

    def head_tokens(self, images: Tensor) -> dict[str, Tensor]:
        """Tokens of both classifiers, those of the auxiliary one normalised; none if the backbone learns."""
        config = self.config
        if config.train_blocks != 0 or not config.aux_norm or "max" in (config.pooling, config.aux_pooling):
            return {}
        out = self.encoder(images, hidden=(self.aux_block,))
        hidden = self.encoder.to_map(out.hidden[self.aux_block], out.grid).flatten(2).transpose(1, 2)
        tokens = F.layer_norm(hidden.float(), hidden.shape[2:], eps=1e-6)
        return {"classifier": out.patches.flatten(2).transpose(1, 2), "aux_classifier": tokens}

    def head_reading(self, head: str) -> tuple[SoftPooling, bool]:
        """Only the auxiliary classifier has a bias: the one of the norm in front of it."""
        aux = head == "aux_classifier"
        return cast(SoftPooling, self.config.aux_pooling if aux else self.config.pooling), aux

    @torch.no_grad()
    def set_head(self, head: str, weight: Tensor, bias: Tensor) -> None:
        """Weights (K, D) and bias (K,) of a classifier; the auxiliary one keeps its bias in its norm."""
        self.get_submodule(head).weight.copy_(weight[:, :, None, None])  # type: ignore[operator]
        if head == "aux_classifier":
            self.aux_norm.weight.fill_(1.0)  # type: ignore[operator]
            shift = torch.linalg.pinv(weight.double()) @ bias.double()
            self.aux_norm.bias.copy_(shift)  # type: ignore[operator]

    def class_tokens(self, images: Tensor) -> Tensor:
        """Class tokens (B, K, D) behind the graph for images (B, 3, H, W) in [0, 1]."""
        return self.run(images, graph=True).class_tokens

    def segment(self, images: Tensor) -> Tensor:
        """Decoder logits (B, K + 1, h, w) on the patch grid for images (B, 3, H, W) in [0, 1]."""
        patches = self.encoder(images).patches
        scores: Tensor = self.decoder(patches)
        power, most = self.config.tag_weight, self.config.classes_per_image
        if self.background_shift is not None:
            scores = torch.cat([scores[:, :1] + self.background_shift, scores[:, 1:]], 1)
        if most != "any":
            return one_class_scores(scores, self.logits(patches), power, most == "at_most_one")
        return tag_weighted_scores(scores, self.logits(patches), power) if power else scores

    def view_maps(self, images: Tensor, kinds: Sequence[str]) -> dict[str, Tensor]:
        """Raw maps of one view: CAMs of both classifiers, LAM from class-patch similarity, attended CAM."""
        with torch.no_grad():
            return self.kind_maps(self.run(images, kinds), kinds)

    def view_plan(self, kind: str) -> ViewPlan:
        """CAMs: all scales, rectified; LAM: one scale, with its negatives."""
        if kind == "lam":
            return ViewPlan(scales=(1.0,), flip="max", relu="none")
        if kind == "attention_cam" or self.config.map_relu == "none":
            return ViewPlan(scales=self.config.scales, flip="sum", relu="none")
        return ViewPlan(scales=self.config.scales, flip="max", relu="view")


def _unshifted(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """A model that was trained without `match_area` begins at 0."""
    state.setdefault(f"{prefix}background_shift", torch.zeros(1))


_BOX_WARNING = (
    "MoRe's released code applies crop boxes in pixels to the token grid, which ignores most tokens of "
    "padded crops; token_boxes=patches scales them"
)

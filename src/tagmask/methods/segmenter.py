"""A segmentation network trained on pseudo labels, the last step of every multi-stage system.

The network is a choice: ResNet-38 with two dilated convolutions as in PSA, MCTformer and AReAM; a plain ViT
with the mask-transformer decoder and WeakTr's clipped loss (its phase 2, arXiv 2304.01184); a plain ViT with
the LargeFOV decoder; or any model of segmentation_models_pytorch.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from tagmask.backbones.base import IMAGENET_MEAN, IMAGENET_STD
from tagmask.backbones.resnet38 import ResNet38, resnet38_keys
from tagmask.backbones.vit import ViT
from tagmask.backbones.vit_resampled import ResampledViT
from tagmask.backbones.weights import read_weights
from tagmask.config import Power, Rate, Share, Weight
from tagmask.errors import CheckpointError, ConfigError, one_line
from tagmask.heads.large_fov import LargeFOV
from tagmask.heads.mask_transformer import MaskTransformer
from tagmask.losses.clipped import clip_pixel_loss, pixel_cross_entropy
from tagmask.losses.segmentation import mean_cross_entropy
from tagmask.methods.base import Method, MethodConfig, SegmentationViews
from tagmask.ops.resize import on_whole_patches, pad_to_multiple, resize_bilinear
from tagmask.ops.schedules import poly_warmup
from tagmask.ops.sizes import fit_short_side
from tagmask.types import IGNORE, Batch, OptimPlan, ParamGroup, SegmentationPlan, StepResult

__all__ = ["SegmentNetwork", "Segmenter", "SegmenterConfig", "SegmenterViews"]


class SegmenterConfig(MethodConfig):
    """Settings of the segmentation stage.

    What is not given is as the network was published: resnet38 (and vit:, smp:) as in PSA, MCTformer and
    AReAM, mask:NAME as in WeakTr's second phase.
    """

    backbone: str = "resnet38"
    """The network: resnet38; mask:NAME, a plain ViT or EVA-02 of timm with the mask-transformer decoder
    (mask:deit_small_patch16_224.fb_in1k, WeakTr); vit:NAME, a plain ViT with the LargeFOV decoder; or
    smp:ARCHITECTURE:ENCODER such as smp:unet:resnet34 (needs tagmask[smp])."""
    width: int = Field(default=64, ge=1, le=1024)
    """Channels of ResNet-38's stem; 64 is the published network."""
    optimiser: Literal["sgd", "adamw"] = "sgd"
    """SGD as published; AdamW with a rate near 1e-4 suits most networks of segmentation_models_pytorch."""
    lr: Rate | None = None
    """Base rate of the pretrained part: 7e-4; mask:NAME 1e-5."""
    head_factor: Weight = 10.0
    """How much faster the new layers learn."""
    weight_decay: Weight = 0.0
    """The published runs had none: theirs was passed as the momentum."""
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Of SGD: 1e-5, see `weight_decay`; mask:NAME 0.9."""
    nesterov: bool | None = None
    """SGD with look-ahead: no; mask:NAME yes."""
    power: Power = 0.9
    """Exponent of the polynomial decay."""
    lr_floor: Share | None = None
    """Share of the base rate at which the decay ends: 0; mask:NAME a tenth."""
    clip_start: Annotated[float, Field(gt=0)] | Literal["network"] | None = "network"
    """Mean loss below which pixels with an unusually large loss lose their gradient; null clips nothing,
    "network" is as published: null; mask:NAME 1.2. A clipped loss is a mean over all pixels, ignored ones
    included."""
    clip_patch: int = Field(default=120, ge=1, le=2**16)
    """Side in pixels of the patches in which "unusual" is judged; must divide the training view."""
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    """Largest stochastic-depth rate of a mask: network's encoder."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout of a mask: network's decoder."""
    position_size: int = Field(default=480, ge=16, le=2**16)
    """Image side in pixels that a mask: network's position table is made for: the training view's."""
    patch: int | None = Field(default=None, ge=4, le=256)
    """Patch side of a mask: network. If not given, its own, but 16 in place of 14 (DINOv2, EVA-02)."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> SegmenterConfig:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class SegmenterViews(SegmentationViews):
    """How the published networks evaluate: ResNet-38 as in PSA, mask:NAME as in WeakTr's second phase."""

    short_side: int | None = Field(default=None, ge=16)
    """Views get this shorter side times their scale, whatever the image's, as WeakTr does; the longer one
    has at most eight times as much."""
    sampling: Literal["sizes", "corners", "opencv"] = "sizes"
    """How views are sampled: at the ratio of the rounded sizes, with corner pixels that stay in place
    (ResNet-38), or in OpenCV's arithmetic on 8 bits (WeakTr)."""
    window: int | None = Field(default=None, ge=16)
    """Views are cut into overlapping squares of this side, whose logits are averaged; whole if not given."""
    window_stride: int | None = Field(default=None, ge=1)
    """Pixels from one square to the next; two thirds of `window` if not given."""
    window_batch: int = Field(default=4, ge=1)
    """Squares that go through the network at once."""
    exits: tuple[float, ...] = ()
    """Weights of the decoder's last exits, the earliest first: (0.8, 1) as WeakTr evaluates; the last exit
    alone if not given."""

    @model_validator(mode="after")
    def _windows_overlap(self) -> SegmenterViews:
        if self.window is not None and (self.window_stride or 0) > self.window:
            raise ValueError(
                f"window_stride {self.window_stride} leaves gaps; at most {self.window}, the window"
            )
        return self

    def plan(self, size: tuple[int, int]) -> SegmentationPlan:
        """The views of an image of (height, width) pixels, and how they merge."""
        common = super().plan(size)
        short, side = self.short_side, self.window
        scaled = tuple(
            fit_short_side(size, int(short * scale), int(8 * short * scale)) for scale in self.scales if short
        )
        stride = self.window_stride or max(1, (side or 0) * 2 // 3)
        return replace(
            common,
            sizes=scaled or common.sizes,
            sampling="bilinear" if self.sampling == "sizes" else self.sampling,
            exits=self.exits,
            window=None if side is None else (side, stride, self.window_batch),
        )


class LayerGroup(NamedTuple):
    """Parameters that are trained alike.

    Attributes:
        name: Shown in logs.
        params: The parameters.
        new: Whether they start from random values.
        decay: Whether weight decay applies.
    """

    name: str
    params: list[nn.Parameter]
    new: bool
    decay: bool = True


class Published(NamedTuple):
    """How a network was trained where it was published; see the settings of the same names."""

    lr: float
    momentum: float
    nesterov: bool
    lr_floor: float
    clip_start: float | None


class SegmentNetwork(nn.Module):
    """What the segmenter needs of a network.

    Images in [0, 1], (B, 3, H, W), give logits (B, C, h', w') of any smaller size.
    """

    heads: tuple[str, ...] = ()
    """Parts of parameter names that mark new layers."""
    published = Published(lr=7e-4, momentum=1e-5, nesterov=False, lr_floor=0.0, clip_start=None)
    """As PSA, MCTformer and AReAM trained ResNet-38; their weight decay was passed as the momentum."""

    def initialise(self, weights: str) -> None:
        """Load pretrained weights from "hub", "none" or a local file."""
        raise AttributeError(f"{type(self).__name__} has no pretrained weights")

    def exits(self, images: Tensor, count: int) -> Tensor:
        """Logits (B, count, C, h', w') of the decoder's last `count` exits, the earliest first.

        Raises:
            ConfigError: The decoder has fewer exits.
        """
        if count != 1:
            raise ConfigError(f"exits: this network's decoder has one exit, not {count}; mask:NAME has two")
        logits: Tensor = self(images)
        return logits.unsqueeze(1)

    def layer_groups(self) -> list[LayerGroup]:
        """Groups of all trainable parameters: what is pretrained, then what is new."""
        named = [(name, param) for name, param in self.named_parameters() if param.requires_grad]
        new = [p for name, p in named if any(head in name for head in self.heads)]
        marked = {id(p) for p in new}
        old = [p for _, p in named if id(p) not in marked]
        return [LayerGroup("pretrained", old, new=False), LayerGroup("new", new, new=True)]


class _ResNet38LargeFOV(SegmentNetwork):
    """ResNet-38 with two convolutions of dilation 12; logits at 1/8."""

    heads = ("fc8",)

    def __init__(self, config: SegmenterConfig, num_outputs: int) -> None:
        super().__init__()
        width = config.width
        self.backbone = ResNet38(width)
        self.fc8_seg_conv1 = nn.Conv2d(self.backbone.channels[2], 8 * width, 3, padding=12, dilation=12)
        self.fc8_seg_conv2 = nn.Conv2d(8 * width, num_outputs, 3, padding=12, dilation=12)
        for layer in (self.fc8_seg_conv1, self.fc8_seg_conv2):
            nn.init.xavier_uniform_(layer.weight)

    def initialise(self, weights: str) -> None:
        self.backbone.initialise(weights)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.fc8_seg_conv1(self.backbone(images).conv6))
        logits: Tensor = self.fc8_seg_conv2(hidden)
        return logits


class _ViTLargeFOV(SegmentNetwork):
    """A plain ViT with the LargeFOV decoder; logits on the patch grid."""

    heads = ("decoder",)

    def __init__(self, name: str, num_outputs: int) -> None:
        super().__init__()
        self.backbone = ViT(name, drop_path=0.1)
        self.decoder = LargeFOV(self.backbone.dim, num_outputs, min(512, 2 * self.backbone.dim))

    def initialise(self, weights: str) -> None:
        self.backbone.initialise(weights)

    def forward(self, images: Tensor) -> Tensor:
        # Padding is zero behind the normalisation, so it must have the network's mean colour.
        return on_whole_patches(self._logits, self.backbone.patch_size, self.backbone.mean)(images)

    def _logits(self, images: Tensor) -> Tensor:
        logits: Tensor = self.decoder(self.backbone(images).patches)
        return logits


class _ViTMaskTransformer(SegmentNetwork):
    """Segmenter (Strudel et al., 2021) as WeakTr retrains it; logits at the size of the image."""

    heads = ("decoder",)
    published = Published(lr=1e-5, momentum=0.9, nesterov=True, lr_floor=0.1, clip_start=1.2)
    """As WeakTr's second phase: the encoder learns at a tenth of 1e-4."""

    def __init__(self, name: str, config: SegmenterConfig, num_outputs: int) -> None:
        super().__init__()
        self.encoder = ResampledViT(name, config.position_size, config.patch, config.drop_path)
        first: Any = self.encoder.blocks[0]
        dim = self.encoder.dim
        self.decoder = MaskTransformer(dim, num_outputs, dim, 2, int(first.attn.num_heads), config.dropout)

    def initialise(self, weights: str) -> None:
        self.encoder.initialise(weights)

    def forward(self, images: Tensor) -> Tensor:
        return self.exits(images, 1)[:, 0]

    def exits(self, images: Tensor, count: int) -> Tensor:
        if not 1 <= count <= len(self.decoder.blocks):
            raise ConfigError(f"exits: the mask transformer has {len(self.decoder.blocks)}, not {count}")
        # Padding is zero behind the normalisation, so it must have the network's mean colour.
        padded = pad_to_multiple(images, self.encoder.patch_size, self.encoder.mean)
        features = self.encoder(padded)
        masks = self.decoder(features.patches.flatten(2).transpose(1, 2), features.grid, count)
        masks = masks.reshape(-1, masks.shape[-3], *features.grid)
        logits = resize_bilinear(masks, (padded.shape[2], padded.shape[3]))
        logits = logits[..., : images.shape[2], : images.shape[3]]
        return logits.reshape(images.shape[0], count, *logits.shape[1:])

    def layer_groups(self) -> list[LayerGroup]:
        """Patch embedding, every block, last norm and decoder, each without and with weight decay."""
        order = ["embedding", *(f"block {i}" for i in range(len(self.encoder.blocks))), "norm", "decoder"]
        found: dict[tuple[str, bool], list[nn.Parameter]] = {}
        for name, param in self.named_parameters():
            kept = param.ndim == 1 or name.endswith((".bias", "cls_token", "pos_embed", "cls_emb"))
            found.setdefault((_layer(name), not kept), []).append(param)
        return [
            LayerGroup(
                f"{layer}{' weights' if decay else ''}", found[layer, decay], layer == "decoder", decay
            )
            for layer in order
            for decay in (False, True)
            if (layer, decay) in found
        ]


def _layer(name: str) -> str:
    part, _, rest = name.partition(".")
    if part == "decoder":
        return "decoder"
    if rest.startswith("blocks."):
        return f"block {rest.split('.')[1]}"
    return "norm" if rest.startswith("norm.") else "embedding"


class _SMP(SegmentNetwork):
    """A model of segmentation_models_pytorch; its output has the size of the image."""

    heads = ("decoder", "segmentation_head")
    mean: Tensor
    std: Tensor
    # The deepest encoders halve the image five times.
    multiple = 32

    def __init__(self, name: str, num_outputs: int) -> None:
        super().__init__()
        self.architecture, _, self.encoder = name.removeprefix("smp:").partition(":")
        self.num_outputs = num_outputs
        if not self.architecture or not self.encoder:
            raise ConfigError(f"network '{name}': write smp:ARCHITECTURE:ENCODER, such as smp:unet:resnet34")
        try:
            self.model = self._create(None)
        except ImportError:
            raise ConfigError(f"network '{name}' needs: pip install 'tagmask[smp]'") from None
        except (KeyError, RuntimeError, ValueError) as error:
            raise ConfigError(f"network '{name}': {one_line(error)}") from None
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def initialise(self, weights: str) -> None:
        if weights == "none":
            return
        encoder: Any = self.model.get_submodule("encoder")
        try:
            if weights == "hub":
                encoder.load_state_dict(self._create("imagenet").get_submodule("encoder").state_dict())
            else:
                encoder.load_state_dict(read_weights(weights))
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"weights '{weights}' for the encoder {self.encoder}: {one_line(error)}"
            ) from None

    def _create(self, weights: str | None) -> nn.Module:
        smp: Any = importlib.import_module("segmentation_models_pytorch")
        model: nn.Module = smp.create_model(
            self.architecture, encoder_name=self.encoder, encoder_weights=weights, classes=self.num_outputs
        )
        return model

    def forward(self, images: Tensor) -> Tensor:
        padded = pad_to_multiple((images - self.mean) / self.std, self.multiple)
        logits: Tensor = self.model(padded)
        return logits[:, :, : images.shape[2], : images.shape[3]]


def build_network(config: SegmenterConfig, num_outputs: int) -> SegmentNetwork:
    """A segmentation network with random weights.

    Args:
        config: Its name is `SegmenterConfig.backbone`.
        num_outputs: C, background included.

    Raises:
        ConfigError: The name is unknown.
    """
    name = config.backbone
    kind, _, inner = name.partition(":")
    if name == "resnet38":
        return _ResNet38LargeFOV(config, num_outputs)
    if kind == "vit" and inner:
        # A custom shape is written vit:patch=8,..., which is its whole name.
        return _ViTLargeFOV(name if "=" in inner else inner, num_outputs)
    if kind == "mask" and inner:
        return _ViTMaskTransformer(inner, config, num_outputs)
    if kind == "smp":
        return _SMP(name, num_outputs)
    raise ConfigError(
        f"unknown segmentation network '{name}'. Known: resnet38, mask:NAME, vit:NAME, "
        "smp:ARCHITECTURE:ENCODER"
    )


class Segmenter(Method):
    """Cross entropy on label maps; unlabelled pixels (255) take no part."""

    config_class = SegmenterConfig
    views_class = SegmenterViews
    segments = True

    def __init__(self, config: SegmenterConfig, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.network = build_network(config, num_classes + 1)
        self.config = _as_published(config, self.network.published)

    def size_problem(self, size: int) -> str | None:
        """The clipped loss compares whole patches of pixels."""
        patch = self.config.clip_patch
        if self.config.clip_start is None or size % patch == 0:
            return None
        return f"model.clip_patch {patch} must divide the view, as the clipped loss compares whole patches"

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
        if isinstance(self.config.clip_start, float):
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
            settings.optimiser, groups, factor, momentum=settings.momentum, nesterov=bool(settings.nesterov)
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


def _as_published(config: SegmenterConfig, published: Published) -> SegmenterConfig:
    """The settings with what was not given filled in, so that a saved model says how it was trained."""
    filled = {key: value for key, value in published._asdict().items() if getattr(config, key) is None}
    filled.pop("clip_start", None)
    if config.clip_start == "network":
        filled["clip_start"] = published.clip_start
    if config.momentum == 0:
        filled.pop("nesterov", None)
    return config.model_copy(update=filled)


def _weaktr_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # The encoder's classifier is stored but never used; rotary angles are computed.
    skipped = ("encoder.head.", "encoder.mask_token")
    renamed = {}
    for key, value in state.items():
        if not key.startswith(skipped) and "freqs_" not in key:
            key = key.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.")
            renamed[f"network.{key}"] = value
    return renamed

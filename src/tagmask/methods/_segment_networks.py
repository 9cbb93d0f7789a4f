"""The networks a segmenter can train: ResNet-38, plain ViTs with one of two decoders, any model of smp."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagmask.backbones.base import IMAGENET_MEAN, IMAGENET_STD
from tagmask.backbones.resnet38 import ResNet38
from tagmask.backbones.vit import ViT
from tagmask.backbones.vit_resampled import refitted
from tagmask.backbones.weights import read_weights
from tagmask.errors import CheckpointError, ConfigError, one_line
from tagmask.heads.large_fov import LargeFOV
from tagmask.heads.mask_transformer import MaskTransformer
from tagmask.ops.resize import pad_to_multiple, resize_bilinear

__all__ = ["LayerGroup", "SegmentNetwork", "Shape", "build_network"]


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


class Shape(NamedTuple):
    """What decides about a network beside its name; see `SegmenterConfig`."""

    width: int
    drop_path: float
    dropout: float
    position_size: int
    patch: int | None


class SegmentNetwork(nn.Module):
    """What the segmenter needs of a network.

    Images in [0, 1], (B, 3, H, W), give logits (B, C, h', w') of any smaller size.
    """

    heads: tuple[str, ...] = ()
    """Parts of parameter names that mark new layers."""

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

    def __init__(self, width: int, num_outputs: int) -> None:
        super().__init__()
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
        # Sides that are no multiple of a patch would lose their rest; stretching by less than one does not.
        size = self.backbone.patch_size
        # (Whole patches without a negative number: ONNX rounds quotients towards zero.)
        whole = tuple((side + size - 1) // size * size for side in images.shape[2:])
        logits: Tensor = self.decoder(self.backbone(resize_bilinear(images, (whole[0], whole[1]))).patches)
        return logits


class _ViTMaskTransformer(SegmentNetwork):
    """Segmenter (Strudel et al., 2021) as WeakTr retrains it; logits at the size of the image."""

    heads = ("decoder",)

    def __init__(self, name: str, num_outputs: int, shape: Shape) -> None:
        super().__init__()
        self.encoder = refitted(name, shape.position_size, shape.patch, shape.drop_path)
        first: Any = self.encoder.blocks[0]
        dim = self.encoder.dim
        self.decoder = MaskTransformer(dim, num_outputs, dim, 2, int(first.attn.num_heads), shape.dropout)

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


def build_network(name: str, num_outputs: int, shape: Shape) -> SegmentNetwork:
    """A segmentation network with random weights.

    Args:
        name: See `SegmenterConfig.backbone`.
        num_outputs: C, background included.
        shape: What else decides about it.

    Raises:
        ConfigError: The name is unknown.
    """
    if name == "resnet38":
        return _ResNet38LargeFOV(shape.width, num_outputs)
    kind, _, inner = name.partition(":")
    if kind == "vit" and inner:
        # A custom shape is written vit:patch=8,..., which is its whole name.
        return _ViTLargeFOV(name if "=" in inner else inner, num_outputs)
    if kind == "mask" and inner:
        return _ViTMaskTransformer(inner, num_outputs, shape)
    if kind == "smp":
        return _SMP(name, num_outputs)
    raise ConfigError(
        f"unknown segmentation network '{name}'. Known: resnet38, mask:NAME, vit:NAME, "
        "smp:ARCHITECTURE:ENCODER"
    )

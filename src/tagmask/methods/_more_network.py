"""MoRe's network: what it holds, and what it says about one view of an image."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagmask.backbones.attention_sums import AttentionSums, Part
from tagmask.backbones.base import TokenFeatures
from tagmask.backbones.vit import ViT
from tagmask.heads.graph import GraphRepresentation
from tagmask.heads.large_fov import LargeFOV
from tagmask.methods._more_config import MoReConfig
from tagmask.methods.base import Method, MethodConfig
from tagmask.ops.attention import attend_maps, class_patch_similarity, patch_to_patch
from tagmask.ops.maps import class_maps, min_max
from tagmask.ops.pooling import soft_pool
from tagmask.types import ViewPlan

__all__ = ["MoReNetwork", "Outputs"]


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


class MoReNetwork(Method):
    """Encoder, classifiers, graph and decoder.

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
        self.aux_block = self.encoder.block_index(config.aux_block)
        dim = self.encoder.dim
        self.classifier = nn.Conv2d(dim, num_classes, 1, bias=False)
        self.aux_classifier = nn.Conv2d(dim, num_classes, 1, bias=False)
        self.aux_norm = nn.LayerNorm(dim, eps=1e-6) if config.aux_norm else nn.Identity()
        self.decoder = LargeFOV(dim, num_classes + 1, config.decoder_width)
        self.graph_layer = GraphRepresentation(dim, weight=config.graph_weight) if config.graph else None

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

    def run(self, images: Tensor, kinds: Collection[str] = ("cam", "lam")) -> Outputs:
        """The network on images (B, 3, H, W) in [0, 1], as far as the given kinds of maps need it."""
        last = self.aux_block if set(kinds) == {"aux_cam"} else None
        sums, prefix = None, self.encoder.num_prefix_tokens
        if "attention_cam" in kinds:
            every = [1.0] * self.encoder.depth
            sums = AttentionSums(
                seen=Part(every, lambda mean: mean[:, prefix - self.num_classes : prefix, prefix:]),
                affinity=Part(every, lambda mean: patch_to_patch(mean, prefix)),
            )
        tapped = range(self.encoder.depth) if sums is not None else ()
        features = self.encoder(images, hidden=(self.aux_block,), scores=tapped, reduce=sums, last_block=last)
        aux = self.encoder.to_map(self.aux_norm(features.hidden[self.aux_block]), features.grid)
        tokens = features.class_tokens
        if self.graph_layer is not None and "lam" in kinds:
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
        return attend_maps(maps, out.attention["seen"].reshape(maps.shape), out.attention["affinity"])

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

    def class_tokens(self, images: Tensor) -> Tensor:
        """Class tokens (B, K, D) behind the graph for images (B, 3, H, W) in [0, 1]."""
        return self.run(images).class_tokens

    def segment(self, images: Tensor) -> Tensor:
        """Decoder logits (B, K + 1, h, w) on the patch grid for images (B, 3, H, W) in [0, 1]."""
        logits: Tensor = self.decoder(self.encoder(images).patches)
        return logits

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

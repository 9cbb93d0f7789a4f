"""Networks that turn RGB images into tokens or feature pyramids; the names below are the promise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tagmask.names import lazy

if TYPE_CHECKING:
    from tagmask.backbones.base import TokenFeatures
    from tagmask.backbones.conformer import Conformer, ConformerFeatures
    from tagmask.backbones.mit import MixTransformer, PyramidFeatures
    from tagmask.backbones.resnet38 import ResNet38, ResNetFeatures
    from tagmask.backbones.vit import ViT
    from tagmask.backbones.vit_names import register_backbone

__all__ = [
    "Conformer",
    "ConformerFeatures",
    "MixTransformer",
    "PyramidFeatures",
    "ResNet38",
    "ResNetFeatures",
    "TokenFeatures",
    "ViT",
    "register_backbone",
]

_HOMES = {
    "TokenFeatures": ".base",
    "Conformer": ".conformer",
    "ConformerFeatures": ".conformer",
    "MixTransformer": ".mit",
    "PyramidFeatures": ".mit",
    "ResNet38": ".resnet38",
    "ResNetFeatures": ".resnet38",
    "ViT": ".vit",
    "register_backbone": ".vit_names",
}

# Hidden from type checkers, which then find a wrong name.
if not TYPE_CHECKING:
    __getattr__ = lazy(__name__, _HOMES)

"""Small networks on top of a backbone's features; the names below are the promise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tagmask.names import lazy

if TYPE_CHECKING:
    from tagmask.heads.attention_fusion import AttentionFusion
    from tagmask.heads.graph import GraphRepresentation
    from tagmask.heads.large_fov import LargeFOV
    from tagmask.heads.mask_transformer import MaskTransformer
    from tagmask.heads.pairs import PairAffinity
    from tagmask.heads.segformer import SegFormerHead

__all__ = [
    "AttentionFusion",
    "GraphRepresentation",
    "LargeFOV",
    "MaskTransformer",
    "PairAffinity",
    "SegFormerHead",
]

_HOMES = {
    "AttentionFusion": ".attention_fusion",
    "GraphRepresentation": ".graph",
    "LargeFOV": ".large_fov",
    "MaskTransformer": ".mask_transformer",
    "PairAffinity": ".pairs",
    "SegFormerHead": ".segformer",
}

# Hidden from type checkers, which then find a wrong name.
if not TYPE_CHECKING:
    __getattr__ = lazy(__name__, _HOMES)

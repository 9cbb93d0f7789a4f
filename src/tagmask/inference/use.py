"""How a model wants to be used: what its header remembers of the recipe that it was trained by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tagmask.config import validate
from tagmask.inference.views import MapConfig, SegmentationConfig

__all__ = ["Use", "remembered_use"]


@dataclass(frozen=True)
class Use:
    """How a model wants to be used.

    Attributes:
        maps: How its maps are made.
        views: How it segments.
        background: Score of the background beside maps.
    """

    maps: MapConfig = field(default_factory=MapConfig)
    views: SegmentationConfig = field(default_factory=SegmentationConfig)
    background: float = 0.5


def remembered_use(meta: Mapping[str, Any]) -> Use:
    """What a model folder's header says about its use; defaults for what it does not say."""
    use = meta.get("extra", {}).get("use", {})
    known = {key: use.get("localize", {}).get(key) for key in MapConfig.model_fields}
    seen = {k: v for k, v in use.get("segment", {}).items() if k in SegmentationConfig.model_fields}
    background = use.get("background")
    return Use(
        validate(MapConfig, {k: v for k, v in known.items() if v is not None}, "model: localize"),
        validate(SegmentationConfig, seen, "model: segment"),
        background if isinstance(background, float) else 0.5,
    )

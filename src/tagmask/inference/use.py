"""How a model wants to be used: what its header remembers of the recipe that it was trained by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tagmask import methods
from tagmask.config import validate
from tagmask.inference.given_views import views_of
from tagmask.inference.views import MapConfig
from tagmask.methods.base import Method, SegmentationViews

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
    views: SegmentationViews = field(default_factory=SegmentationViews)
    background: float = 0.5


def remembered_use(meta: Mapping[str, Any]) -> Use:
    """What a model folder's header says about its use; defaults for what it does not say."""
    use = meta.get("extra", {}).get("use", {})
    known = {key: use.get("localize", {}).get(key) for key in MapConfig.model_fields}
    kind = methods.get(meta["method"]) if "method" in meta else Method
    seen = {k: v for k, v in use.get("segment", {}).items() if k in kind.views_class.model_fields}
    background = use.get("background")
    return Use(
        validate(MapConfig, {k: v for k, v in known.items() if v is not None}, "model: localize"),
        views_of(kind, seen, "model: segment"),
        background if isinstance(background, float) else 0.5,
    )

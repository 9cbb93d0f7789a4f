"""What `ops.multiscale` reads of a plan of views, and a plan for those who have none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["PlainViews", "Views"]


class Views(Protocol):
    """The settings `multi_scale` reads; `tagmask.types.ViewPlan` has them."""

    @property
    def scales(self) -> tuple[float, ...]:
        """Resize factors of the image."""

    @property
    def flip(self) -> str:
        """How a view and its mirror image merge: "max", "sum" or "none"."""

    @property
    def relu(self) -> str:
        """Where negatives are cut: "view", "sum" or "none"."""

    @property
    def epsilon(self) -> float:
        """Added to the range when maps are scaled to [0, 1)."""

    @property
    def scaling(self) -> str:
        """How the merged maps are scaled, see `ops.maps.scale_maps`."""

    @property
    def base(self) -> int | None:
        """Side of a square that replaces the image's size, or None."""

    @property
    def rounding(self) -> str:
        """How view sizes are rounded: "down" or "nearest"."""

    @property
    def resample(self) -> str:
        """How views are made: "bilinear" or "pillow"."""

    @property
    def pad(self) -> int:
        """Views are padded to multiples of this."""

    @property
    def pad_colour(self) -> tuple[float, ...]:
        """What they are padded with."""

    @property
    def mirror_padding(self) -> bool:
        """Whether the twin mirrors the padded view."""


@dataclass(frozen=True)
class PlainViews:
    """Views of the papers' most common kind, for those who have no `tagmask.types.ViewPlan`."""

    scales: tuple[float, ...] = (1.0,)
    flip: str = "max"
    relu: str = "view"
    epsilon: float = 1e-5
    scaling: str = "min_max"
    base: int | None = None
    rounding: str = "down"
    resample: str = "bilinear"
    pad: int = 1
    pad_colour: tuple[float, ...] = (0.485, 0.456, 0.406)
    mirror_padding: bool = False

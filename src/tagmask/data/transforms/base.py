"""Training views: what is drawn at random is one step, applying it is another.

Geometry moves image, labels and the box of valid content together. Pixels are computed by Pillow, as in
the papers' code, so that given draws give their pixels.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from PIL import Image

from tagmask.data.transforms.augment import (
    Augment,
    Jitter,
    Label,
    Picture,
    Rng,
    View,
    coloured,
    mirrored,
    to_label,
    to_picture,
    to_tensor,
)
from tagmask.errors import ConfigError, nearest
from tagmask.types import IGNORE

__all__ = [
    "CropDraw",
    "Jitter",
    "PadCrop",
    "PadCropDraw",
    "ResizedCrop",
    "View",
    "make_view",
    "register_view",
]


@dataclass(frozen=True)
class CropDraw:
    """Drawn parameters of `ResizedCrop`: the cut [top, left, height, width), mirror and colour."""

    top: int
    left: int
    height: int
    width: int
    flip: bool = False
    jitter: Jitter | None = None


@dataclass(frozen=True)
class PadCropDraw:
    """Drawn parameters of `PadCrop`.

    Attributes:
        scale: Factor of both sides.
        flip: Mirrored or not.
        pad: (top, left) of the picture on its canvas.
        crop: (top, left) of the view on the canvas.
        jitter: Colour change of the whole picture.
    """

    scale: float
    flip: bool
    pad: tuple[int, int]
    crop: tuple[int, int]
    jitter: Jitter | None = None


@dataclass(frozen=True)
class ResizedCrop(Augment):
    """Cut a random part of random shape and resize it to a square (bicubic) as MoRe does on VOC.

    Attributes:
        ratio: Smallest and largest width / height of the cut.
    """

    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def draw(self, size: tuple[int, int], rng: Rng) -> CropDraw:
        """Random parameters for a picture of (height, width); like torchvision's RandomResizedCrop."""
        height, width = size
        top, left, h, w = self._central(height, width)
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            aspect = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            tall, wide = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
            if 0 < tall <= height and 0 < wide <= width:
                top, left = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
                h, w = tall, wide
                break
        return CropDraw(top, left, h, w, bool(rng.random() < self.flip), self.draw_jitter(rng))

    def _central(self, height: int, width: int) -> tuple[int, int, int, int]:
        low, high = self.ratio
        h, w = min(height, max(1, round(width / low))), min(width, max(1, round(height * high)))
        return (height - h) // 2, (width - w) // 2, h, w

    def cut(self, picture: Image.Image, draw: CropDraw) -> Image.Image:
        """The picture's part for given parameters, as 8-bit RGB of the view's size."""
        corner = (draw.left, draw.top, draw.left + draw.width, draw.top + draw.height)
        part = picture.crop(corner).resize((self.size, self.size), Image.Resampling.BICUBIC)
        return coloured(mirrored(part, draw.flip), draw.jitter)

    def apply(self, image: Picture, draw: CropDraw, label: Label | None = None) -> View:
        """The view for given parameters."""
        corner = (draw.left, draw.top, draw.left + draw.width, draw.top + draw.height)
        size = (self.size, self.size)
        pixels = to_tensor(self.cut(to_picture(image), draw))
        box = torch.tensor([0, self.size, 0, self.size])
        if label is None:
            return View(pixels, box)
        part = Image.fromarray(label).crop(corner).resize(size, Image.Resampling.NEAREST)
        return View(pixels, box, to_label(np.array(mirrored(part, draw.flip))))

    def __call__(self, image: Picture, rng: Rng, label: Label | None = None) -> View:
        """A random view."""
        picture = to_picture(image)
        return self.apply(picture, self.draw((picture.height, picture.width), rng), label)


@dataclass(frozen=True)
class PadCrop(Augment):
    """Scale the picture (bilinear), put it on a black canvas, cut a square: AFA, and MoRe on COCO.

    Sizes are truncated to whole pixels. The picture is at a random place of the canvas, which matters
    only where it is smaller than the view.

    Attributes:
        resample: How the picture is scaled; AReAM's is bicubic.
    """

    resample: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resample not in ("bilinear", "bicubic"):
            raise ConfigError(f"view setting resample must be bilinear or bicubic, got {self.resample!r}")

    def draw(self, size: tuple[int, int], rng: Rng) -> PadCropDraw:
        """Random parameters for a picture of (height, width)."""
        scale, flip = float(rng.uniform(*self.scale)), bool(rng.random() < self.flip)
        scaled = _scaled(size, scale)
        canvas = [max(self.size, side) for side in scaled]
        pad = [int(rng.integers(c - s + 1)) for c, s in zip(canvas, scaled, strict=True)]
        crop = [int(rng.integers(c - self.size + 1)) for c in canvas]
        return PadCropDraw(scale, flip, (pad[0], pad[1]), (crop[0], crop[1]), self.draw_jitter(rng))

    def apply(self, image: Picture, draw: PadCropDraw, label: Label | None = None) -> View:
        """The view for given parameters."""
        picture = coloured(to_picture(image), draw.jitter)
        height, width = _scaled((picture.height, picture.width), draw.scale)
        if (width, height) != picture.size:
            picture = picture.resize((width, height), Image.Resampling[self.resample.upper()])
        # Only the part of the picture inside the view is ever copied; the canvas itself is never made.
        top, left = draw.pad[0] - draw.crop[0], draw.pad[1] - draw.crop[1]
        view = Image.new("RGB", (self.size, self.size))
        view.paste(mirrored(picture, draw.flip), (left, top))
        box = [max(top, 0), min(top + height, self.size), max(left, 0), min(left + width, self.size)]
        if label is None:
            return View(to_tensor(view), torch.tensor(box))
        part = Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST)
        canvas = Image.new("L", (self.size, self.size), IGNORE)
        canvas.paste(mirrored(part, draw.flip), (left, top))
        return View(to_tensor(view), torch.tensor(box), to_label(np.array(canvas)))

    def __call__(self, image: Picture, rng: Rng, label: Label | None = None) -> View:
        """A random view."""
        picture = to_picture(image)
        return self.apply(picture, self.draw((picture.height, picture.width), rng), label)


# Where each view's class is, imported when asked for, and its settings in the paper.
_VIEWS: dict[str, tuple[str, dict[str, Any]]] = {
    "resized_crop": ("base.ResizedCrop", {}),
    "scale_pad_crop": ("base.PadCrop", {"jitter": 0.8}),
    "scale_crop": ("base.PadCrop", {"jitter": 0.0, "scale": (0.5, 2.0)}),
    "long_side_crop": ("long_side_crop.LongSideCrop", {}),
    "affinity_crop": ("affinity_crop.AffinityCrop", {}),
    "batch_scale_crop": ("batch_scale_crop.BatchScaleCrop", {}),
    "short_side_crop": ("short_side_crop.ShortSideCrop", {}),
    "imagenet": ("imagenet.ImageNet", {}),
}


_REGISTERED: dict[str, type] = {}
_C = TypeVar("_C", bound=type)


def register_view(name: str) -> Callable[[_C], _C]:
    """Class decorator that makes a training view of one's own known by name in this process.

    The class is a dataclass whose first field is `size`, the side of the view; the others are its settings.
    An instance is called with an image, (H, W, 3) uint8, a NumPy random generator and labels, (H, W) or
    None, and gives a `View`.

    Args:
        name: What the setting `train.view` calls it.

    Raises:
        ConfigError: The name is taken, or the class is no such dataclass.
    """
    if name in _VIEWS:
        raise ConfigError(f"there is a view '{name}' already; choose another name")

    def decorate(kind: _C) -> _C:
        fields = [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []
        if fields[:1] != ["size"] or "__call__" not in dir(kind):
            raise ConfigError(f"a view is a dataclass with the field size first and a __call__, got {kind!r}")
        _REGISTERED[name] = kind
        return kind

    return decorate


def make_view(name: str, size: int, /, **settings: Any) -> Callable[[Picture, Rng, Label | None], View]:
    """A random training view by name.

    Args:
        name: "resized_crop" (MoRe on VOC), "scale_pad_crop" (MoRe on COCO), "scale_crop" (AFA, AReAM on
            Conformer), "long_side_crop" (TransCAM, PSA), "affinity_crop" (AffinityNet), "batch_scale_crop"
            (segmentation stage), "short_side_crop" (WeakTr's second phase) or "imagenet" (MCTformer, AReAM).
        size: S, side of the view in pixels.
        **settings: Fields of the view's class that differ from the paper's.

    Returns:
        A callable (image, random generator, label or None) -> `View`; the view's class itself.

    Raises:
        ConfigError: The name or a setting is unknown, or a value is out of range.
    """
    kind, preset = _kind(name)
    known = {field.name for field in dataclasses.fields(kind)} - {"size"}
    for key in settings:
        if key not in known:
            raise ConfigError(f"view {name} has no setting '{key}'. {nearest(key, known)}")
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in (preset | settings).items()
    }
    try:
        made: Callable[[Picture, Rng, Label | None], View] = kind(size, **values)
        return made
    except (TypeError, ValueError) as error:
        raise ConfigError(f"view {name}: {error}") from None


def _kind(name: str) -> tuple[Any, dict[str, Any]]:
    """A view's class and the paper's settings of it."""
    if name in _REGISTERED:
        return _REGISTERED[name], {}
    if name not in _VIEWS:
        raise ConfigError(f"unknown view '{name}'. {nearest(name, [*_VIEWS, *_REGISTERED])}")
    place, preset = _VIEWS[name]
    module, _, kind_name = place.rpartition(".")
    return getattr(importlib.import_module(f"tagmask.data.transforms.{module}"), kind_name), preset


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, int(scale * size[0])), max(1, int(scale * size[1]))

"""Training views: what is drawn at random is one step, applying it is another.

Geometry moves image, labels and the box of valid content together. Pixels are computed by Pillow, as in
the papers' code, so that given draws give their pixels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from tagmask.errors import ConfigError, nearest
from tagmask.types import IGNORE

__all__ = ["CropDraw", "Jitter", "PadCrop", "PadCropDraw", "ResizedCrop", "View", "make_view"]

Picture = Image.Image | NDArray[np.uint8]
Rng = np.random.Generator
Label = NDArray[np.uint8]


@dataclass(frozen=True)
class View:
    """One training view.

    Attributes:
        image: RGB, uint8, (3, S, S).
        box: Content as [top, bottom, left, right) in pixels of the view, int64, (4,); the rest is padding.
        label: int64, (S, S), 255 in the padding; None if none was given.
    """

    image: Tensor
    box: Tensor
    label: Tensor | None = None


@dataclass(frozen=True)
class Jitter:
    """Drawn colour change.

    Attributes:
        order: Sequence of the four changes; 0 brightness, 1 contrast, 2 saturation, 3 hue.
        brightness: Factor, 1 changes nothing.
        contrast: Factor.
        saturation: Factor.
        hue: Shift in turns of the colour circle, -0.5 to 0.5.
    """

    order: tuple[int, ...]
    brightness: float
    contrast: float
    saturation: float
    hue: float


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
class _Augment:
    """Settings every view has.

    Attributes:
        size: S, side of the view in pixels.
        scale: Smallest and largest scale; of the area for `ResizedCrop`, of the sides for `PadCrop`.
        flip: Probability of mirroring.
        jitter: Probability of the colour change.
        brightness: Factors are drawn from 1 - b to 1 + b; the same for contrast and saturation.
        contrast: See brightness.
        saturation: See brightness.
        hue: Shifts are drawn from -h to h, in turns.
    """

    size: int
    scale: tuple[float, float] = (0.32, 1.0)
    flip: float = 0.5
    jitter: float = 0.5
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1

    def __post_init__(self) -> None:
        low, high = self.scale
        if self.size < 1 or not 0 < low <= high:
            raise ConfigError(
                f"a view needs a size of at least 1 and 0 < smallest scale <= largest, got size {self.size} "
                f"and scale {low} to {high}"
            )
        for name in ("flip", "jitter", "hue", "brightness", "contrast", "saturation"):
            limit = 0.5 if name == "hue" else 1.0
            if not 0 <= getattr(self, name) <= limit:
                raise ConfigError(f"view setting {name} must be 0 to {limit}, got {getattr(self, name)}")

    def _draw_jitter(self, rng: Rng) -> Jitter | None:
        if rng.random() >= self.jitter:
            return None
        spread = (self.brightness, self.contrast, self.saturation)
        light, contrast, colour = (float(rng.uniform(1 - s, 1 + s)) for s in spread)
        order = tuple(int(i) for i in rng.permutation(4))
        return Jitter(order, light, contrast, colour, float(rng.uniform(-self.hue, self.hue)))


@dataclass(frozen=True)
class ResizedCrop(_Augment):
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
        return CropDraw(top, left, h, w, bool(rng.random() < self.flip), self._draw_jitter(rng))

    def _central(self, height: int, width: int) -> tuple[int, int, int, int]:
        low, high = self.ratio
        h, w = min(height, max(1, round(width / low))), min(width, max(1, round(height * high)))
        return (height - h) // 2, (width - w) // 2, h, w

    def apply(self, image: Picture, draw: CropDraw, label: Label | None = None) -> View:
        """The view for given parameters."""
        corner = (draw.left, draw.top, draw.left + draw.width, draw.top + draw.height)
        size = (self.size, self.size)
        cut = _pil(image).crop(corner).resize(size, Image.Resampling.BICUBIC)
        pixels = _to_tensor(_coloured(_mirrored(cut, draw.flip), draw.jitter))
        box = torch.tensor([0, self.size, 0, self.size])
        if label is None:
            return View(pixels, box)
        part = Image.fromarray(label).crop(corner).resize(size, Image.Resampling.NEAREST)
        return View(pixels, box, _to_label(np.array(_mirrored(part, draw.flip))))

    def __call__(self, image: Picture, rng: Rng, label: Label | None = None) -> View:
        """A random view."""
        picture = _pil(image)
        return self.apply(picture, self.draw((picture.height, picture.width), rng), label)


@dataclass(frozen=True)
class PadCrop(_Augment):
    """Scale the picture (bilinear), put it on a black canvas, cut a square: AFA, and MoRe on COCO.

    Sizes are truncated to whole pixels. The picture lies at a random place of the canvas, which matters
    only where it is smaller than the view.
    """

    def draw(self, size: tuple[int, int], rng: Rng) -> PadCropDraw:
        """Random parameters for a picture of (height, width)."""
        scale, flip = float(rng.uniform(*self.scale)), bool(rng.random() < self.flip)
        scaled = _scaled(size, scale)
        canvas = [max(self.size, side) for side in scaled]
        pad = [int(rng.integers(c - s + 1)) for c, s in zip(canvas, scaled, strict=True)]
        crop = [int(rng.integers(c - self.size + 1)) for c in canvas]
        return PadCropDraw(scale, flip, (pad[0], pad[1]), (crop[0], crop[1]), self._draw_jitter(rng))

    def apply(self, image: Picture, draw: PadCropDraw, label: Label | None = None) -> View:
        """The view for given parameters."""
        picture = _coloured(_pil(image), draw.jitter)
        height, width = _scaled((picture.height, picture.width), draw.scale)
        if (width, height) != picture.size:
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        # Only the part of the picture inside the view is ever copied; the canvas itself is never made.
        top, left = draw.pad[0] - draw.crop[0], draw.pad[1] - draw.crop[1]
        view = Image.new("RGB", (self.size, self.size))
        view.paste(_mirrored(picture, draw.flip), (left, top))
        box = [max(top, 0), min(top + height, self.size), max(left, 0), min(left + width, self.size)]
        if label is None:
            return View(_to_tensor(view), torch.tensor(box))
        part = Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST)
        canvas = Image.new("L", (self.size, self.size), IGNORE)
        canvas.paste(_mirrored(part, draw.flip), (left, top))
        return View(_to_tensor(view), torch.tensor(box), _to_label(np.array(canvas)))

    def __call__(self, image: Picture, rng: Rng, label: Label | None = None) -> View:
        """A random view."""
        picture = _pil(image)
        return self.apply(picture, self.draw((picture.height, picture.width), rng), label)


_VIEWS: dict[str, tuple[type[ResizedCrop] | type[PadCrop], dict[str, Any]]] = {
    "resized_crop": (ResizedCrop, {}),
    "scale_pad_crop": (PadCrop, {"jitter": 0.8}),
    "scale_crop": (PadCrop, {"jitter": 0.0, "scale": (0.5, 2.0)}),
}


def make_view(name: str, size: int, /, **settings: Any) -> Callable[[Picture, Rng, Label | None], View]:
    """A random training view by name.

    Args:
        name: "resized_crop" (MoRe on VOC), "scale_pad_crop" (MoRe on COCO) or "scale_crop" (AFA).
        size: S, side of the view in pixels.
        **settings: Fields of `ResizedCrop` or `PadCrop` that differ from the paper's.

    Returns:
        A callable (image, random generator, label or None) -> `View`; the `ResizedCrop` or `PadCrop` itself.

    Raises:
        ConfigError: The name or a setting is unknown, or a value is out of range.
    """
    if name not in _VIEWS:
        raise ConfigError(f"unknown view '{name}'. {nearest(name, _VIEWS)}")
    kind, preset = _VIEWS[name]
    known = {field.name for field in dataclasses.fields(kind)} - {"size"}
    for key in settings:
        if key not in known:
            raise ConfigError(f"view {name} has no setting '{key}'. {nearest(key, known)}")
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in (preset | settings).items()
    }
    try:
        return kind(size, **values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"view {name}: {error}") from None


def _pil(image: Picture) -> Image.Image:
    return image if isinstance(image, Image.Image) else Image.fromarray(image)


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, int(scale * size[0])), max(1, int(scale * size[1]))


def _mirrored(image: Image.Image, flip: bool) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image


def _coloured(image: Image.Image, jitter: Jitter | None) -> Image.Image:
    if jitter is None:
        return image
    steps = (
        lambda x: F.adjust_brightness(x, jitter.brightness),
        lambda x: F.adjust_contrast(x, jitter.contrast),
        lambda x: F.adjust_saturation(x, jitter.saturation),
        lambda x: F.adjust_hue(x, jitter.hue),
    )
    for index in jitter.order:
        image = steps[index](image)
    return image


def _to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _to_label(label: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(label).long()

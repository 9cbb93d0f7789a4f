"""The view DeiT's descendants train on (MCTformer, AReAM, WeakTr): crop, RandAugment, random erasing.

RandAugment (Cubuk et al., 2020) in the variant those papers name "rand-m9-mstd0.5-inc1": two operations of
fifteen, each done with probability 1/2, at a strength drawn around 9 of 10; every operation's effect grows
with its strength.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from tagmask.data.transforms.augment import Label, Picture, Rng, View, to_picture, to_tensor
from tagmask.data.transforms.base import CropDraw, ResizedCrop
from tagmask.errors import ConfigError
from tagmask.types import MEAN_COLOUR

__all__ = ["Change", "Erasure", "ImageNet", "ImageNetDraw"]

_DEVIATION = (0.229, 0.224, 0.225)
_FILL = tuple(round(255 * value) for value in MEAN_COLOUR)


@dataclass(frozen=True)
class Change:
    """One drawn operation.

    Attributes:
        name: Its name.
        strength: 0 to 10.
        sign: 1 or -1, for operations that go either way.
        bicubic: How geometry is sampled; bilinear if not.
    """

    name: str
    strength: float
    sign: int = 1
    bicubic: bool = False


@dataclass(frozen=True)
class Erasure:
    """A drawn rectangle that is filled with noise: [top, left, height, width) and the noise's seed."""

    top: int
    left: int
    height: int
    width: int
    seed: int


@dataclass(frozen=True)
class ImageNetDraw:
    """Drawn parameters of `ImageNet`: the cut, the operations, the rectangle."""

    crop: CropDraw
    changes: tuple[Change, ...] = ()
    erasure: Erasure | None = None


@dataclass(frozen=True)
class ImageNet(ResizedCrop):
    """Cut, resize, mirror, change colour and shape, erase. Tags are kept even if an object is cut away.

    Attributes:
        operations: How many operations may be done.
        strength: Mean strength of an operation, 0 to 10.
        spread: Standard deviation of the strength.
        erase: Probability of an erased rectangle (2 to 33 % of the area), filled with noise.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    jitter: float = 0.0
    operations: int = 2
    strength: float = 9.0
    spread: float = 0.5
    erase: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.operations < 0 or not 0 <= self.strength <= 10 or self.spread < 0 or not 0 <= self.erase <= 1:
            raise ConfigError(
                f"view imagenet needs operations >= 0, strength 0 to 10, spread >= 0 and erase 0 to 1, got "
                f"{self.operations}, {self.strength}, {self.spread} and {self.erase}"
            )

    def draw_all(self, size: tuple[int, int], rng: Rng) -> ImageNetDraw:
        """Random parameters for a picture of (height, width)."""
        crop = self.draw(size, rng)
        names = rng.choice(list(_OPERATIONS), self.operations)
        changes = [
            Change(
                str(name),
                float(np.clip(rng.normal(self.strength, self.spread), 0, 10)),
                1 if rng.random() < 0.5 else -1,
                bool(rng.random() < 0.5),
            )
            for name in names
            if rng.random() < 0.5
        ]
        return ImageNetDraw(crop, tuple(changes), self._draw_erasure(rng))

    def _draw_erasure(self, rng: Rng) -> Erasure | None:
        if rng.random() >= self.erase:
            return None
        for _ in range(10):
            area = self.size * self.size * rng.uniform(0.02, 1 / 3)
            aspect = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < height < self.size and 0 < width < self.size:
                top, left = (int(rng.integers(self.size - side + 1)) for side in (height, width))
                return Erasure(top, left, height, width, int(rng.integers(2**31)))
        return None

    def apply_all(self, image: Picture, draw: ImageNetDraw, label: Label | None = None) -> View:
        """The view for given parameters.

        Raises:
            ConfigError: A label was given: the operations move the image only.
        """
        if label is not None:
            raise ConfigError("view imagenet is for classification; learn from labels with resized_crop")
        picture = self.cut(to_picture(image), draw.crop)
        for change in draw.changes:
            picture = _OPERATIONS[change.name](picture, change)
        pixels = to_tensor(picture)
        box = torch.tensor([0, self.size, 0, self.size])
        return View(pixels if draw.erasure is None else _erased(pixels, draw.erasure), box)

    def __call__(self, image: Picture, rng: Rng, label: Label | None = None) -> View:
        """A random view."""
        picture = to_picture(image)
        return self.apply_all(picture, self.draw_all((picture.height, picture.width), rng), label)


def _erased(pixels: Tensor, erasure: Erasure) -> Tensor:
    noise = torch.empty(3, erasure.height, erasure.width)
    noise.normal_(generator=torch.Generator().manual_seed(erasure.seed))
    # Unit noise in normalised space, as the network sees it.
    noise = noise * torch.tensor(_DEVIATION).view(3, 1, 1) + torch.tensor(MEAN_COLOUR).view(3, 1, 1)
    rows = slice(erasure.top, erasure.top + erasure.height)
    pixels[:, rows, erasure.left : erasure.left + erasure.width] = noise
    return pixels


def _affine(image: Image.Image, change: Change, matrix: tuple[float, ...]) -> Image.Image:
    resample = Image.Resampling.BICUBIC if change.bicubic else Image.Resampling.BILINEAR
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=_FILL)


def _rotate(image: Image.Image, change: Change) -> Image.Image:
    resample = Image.Resampling.BICUBIC if change.bicubic else Image.Resampling.BILINEAR
    return image.rotate(change.sign * 3 * change.strength, resample, fillcolor=_FILL)


def _shear(vertical: bool) -> Callable[[Image.Image, Change], Image.Image]:
    def shear(image: Image.Image, change: Change) -> Image.Image:
        amount = change.sign * 0.03 * change.strength
        return _affine(image, change, (1, 0, 0, amount, 1, 0) if vertical else (1, amount, 0, 0, 1, 0))

    return shear


def _translate(vertical: bool) -> Callable[[Image.Image, Change], Image.Image]:
    def translate(image: Image.Image, change: Change) -> Image.Image:
        amount = change.sign * 0.045 * change.strength * image.size[vertical]
        return _affine(image, change, (1, 0, 0, 0, 1, amount) if vertical else (1, 0, amount, 0, 1, 0))

    return translate


def _enhance(
    kind: Callable[[Image.Image], ImageEnhance._Enhance],
) -> Callable[[Image.Image, Change], Image.Image]:
    return lambda image, change: kind(image).enhance(max(0.1, 1 + change.sign * 0.09 * change.strength))


def _solarize_add(image: Image.Image, change: Change) -> Image.Image:
    added = min(128, int(11 * change.strength))
    table = [min(255, level + added) if level < 128 else level for level in range(256)]
    return image.point(table * 3)


_OPERATIONS: Mapping[str, Callable[[Image.Image, Change], Image.Image]] = {
    "auto_contrast": lambda image, change: ImageOps.autocontrast(image),
    "equalize": lambda image, change: ImageOps.equalize(image),
    "invert": lambda image, change: ImageOps.invert(image),
    "rotate": _rotate,
    "posterize": lambda image, change: ImageOps.posterize(image, max(1, 4 - int(0.4 * change.strength))),
    "solarize": lambda image, change: ImageOps.solarize(image, 256 - min(256, int(25.6 * change.strength))),
    "solarize_add": _solarize_add,
    "colour": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "shear_x": _shear(vertical=False),
    "shear_y": _shear(vertical=True),
    "translate_x": _translate(vertical=False),
    "translate_y": _translate(vertical=True),
}

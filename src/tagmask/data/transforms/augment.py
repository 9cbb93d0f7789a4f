"""What every training view is made of: drawn parameters, colour, mirroring, and the view itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tagmask.data.readers.images import rgb_tensor
from tagmask.errors import ConfigError

__all__ = ["Augment", "Jitter", "View", "coloured", "mirrored", "to_label", "to_picture", "to_tensor"]

Picture = Image.Image | NDArray[np.uint8]
Rng = np.random.Generator
Label = NDArray[np.uint8]


@dataclass(frozen=True)
class View:
    """One training view.

    Attributes:
        image: RGB in [0, 1], float32, (3, S, S): made by `to_tensor`, or by `unit` where colours lie between
            grey levels. Only noise that a view draws deliberately (random erasing) may leave that range. More
            channels than three with `data.bands`.
        box: Content as [top, bottom, left, right) in pixels of the view, int64, (4,); the rest is padding.
        label: int64, (S, S), 255 in the padding; None if none was given.
    """

    image: Tensor
    box: Tensor
    label: Tensor | None = None

    def __post_init__(self) -> None:
        # Shape and type are known without looking at a pixel, so this costs nothing.
        if self.image.dtype != torch.float32 or self.image.ndim != 3 or self.image.shape[0] < 3:
            raise ValueError(
                f"the image of a view is RGB in [0, 1], float32, (3, S, S); got {self.image.dtype} "
                f"{tuple(self.image.shape)}. Make it with to_tensor or unit"
            )


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
class Augment:
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

    def draw_jitter(self, rng: Rng) -> Jitter | None:
        """A random colour change, or None."""
        if rng.random() >= self.jitter:
            return None
        spread = (self.brightness, self.contrast, self.saturation)
        light, contrast, colour = (float(rng.uniform(1 - s, 1 + s)) for s in spread)
        order = tuple(int(i) for i in rng.permutation(4))
        return Jitter(order, light, contrast, colour, float(rng.uniform(-self.hue, self.hue)))


def to_picture(image: Picture) -> Image.Image:
    """The image as Pillow has it."""
    return image if isinstance(image, Image.Image) else Image.fromarray(image)


def mirrored(image: Image.Image, flip: bool) -> Image.Image:
    """The image, left and right exchanged if `flip`."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image


def coloured(image: Image.Image, jitter: Jitter | None) -> Image.Image:
    """The image after a drawn colour change; None changes nothing."""
    if jitter is None:
        return image
    # Loads all of torchvision, half as long as PyTorch itself; nothing but training changes colours.
    from torchvision.transforms.v2 import functional as F

    steps = (
        lambda x: F.adjust_brightness(x, jitter.brightness),
        lambda x: F.adjust_contrast(x, jitter.contrast),
        lambda x: F.adjust_saturation(x, jitter.saturation),
        lambda x: F.adjust_hue(x, jitter.hue),
    )
    for index in jitter.order:
        image = steps[index](image)
    return image


def to_tensor(image: Image.Image) -> Tensor:
    """RGB image in [0, 1], float32, (3, H, W)."""
    return rgb_tensor(np.array(image))


def to_label(label: NDArray[np.uint8]) -> Tensor:
    """Label map as int64 (H, W)."""
    return torch.from_numpy(label).long()

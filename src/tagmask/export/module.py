"""A trained method as one plain module: pixels in, tags, maps, scores and labels out, any size, any batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
from torch import Tensor, nn

from tagmask.errors import ConfigError, nearest
from tagmask.export.once import Once
from tagmask.inference import views
from tagmask.methods.base import Method
from tagmask.ops.images import unit
from tagmask.ops.labels import labels_from_maps, strongest
from tagmask.ops.maps import scale_maps
from tagmask.ops.resize import extended, pad_to_multiple, resize_bilinear
from tagmask.ops.steps import steps
from tagmask.types import MEAN_COLOUR

__all__ = ["SMALLEST", "TakeAway"]

SMALLEST = 64
"""Shortest side in pixels an exported model takes."""


class Levels(nn.Module):
    """Numbers of files to what networks see, exactly as `tagmask.data.levels.Reading.levels` makes them.

    Args:
        ends: (black, white) of every band, or one for all.
    """

    def __init__(self, ends: Sequence[Sequence[float]]) -> None:
        super().__init__()
        low, high = torch.tensor(ends, dtype=torch.float32).T[:, None, :, None, None]
        self.register_buffer("low", low)
        self.register_buffer("high", high)
        self.register_buffer("steps", 255 / (high - low))

    def forward(self, numbers: Tensor) -> Tensor:
        """(B, C, H, W) float32, NaN where there is no data, to [0, 1]."""
        levels = ((numbers - self.get_buffer("low")) * self.get_buffer("steps")).round().clamp(0, 255)
        return unit(torch.where(levels.isnan(), torch.zeros_like(levels), levels))

    def sample(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Random numbers a little beyond both ends."""
        low, high = self.get_buffer("low"), self.get_buffer("high")
        return low + (torch.rand(tuple(shape), generator=generator) * 1.1 - 0.05) * (high - low)


class TakeAway(nn.Module):
    """What `segment` and `localize` do with one view of an image at its own size, as one graph.

    Normalisation, padding to whole patches, resizing to the image and the thresholds are inside, so that
    nothing but pixels comes in and nothing has to be done to what goes out.

    Args:
        method: In eval mode.
        kinds: Kinds of maps to give; the method's first if None, none if empty.
        background: Labels of methods that do not segment: background is what no map exceeds this at.
        channels: C of the images.
        ends: (black, white) of every band, or one for all: then the numbers of files come in. None: levels
            do, in [0, 1].

    Raises:
        ConfigError: The method has nothing to export, or makes no such maps of a single view.
    """

    def __init__(
        self,
        method: Method,
        kinds: Sequence[str] | None,
        background: float,
        channels: int = 3,
        ends: Sequence[Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        self.method = method
        self.channels = channels
        self.levels = None if ends is None else Levels(ends)
        self.background = background
        self.kinds = tuple(method.map_kinds[:1] if kinds is None else kinds)
        if not method.segments and not method.map_kinds:
            raise ConfigError(
                f"{type(method).__name__} makes neither masks nor maps of an image alone; there is nothing "
                "to export (its random walk is 'tagmask walk')"
            )
        for kind in self.kinds:
            if kind not in method.view_kinds:
                raise ConfigError(
                    f"'{kind}' maps are not made from one view of an image. "
                    f"{nearest(kind, method.view_kinds)}"
                )
        if not method.segments and not self.kinds:
            raise ConfigError(f"{type(method).__name__} does not segment; it needs one kind of maps at least")

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what `forward` returns."""
        tags = ("tag_logits",) if self.method.map_kinds else ()
        scores = ("scores",) if self.method.segments else ()
        return (*tags, *self.kinds, *scores, "labels")

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """One view of every image.

        Args:
            images: Float32, (B, C, H, W), sides of `SMALLEST` or more: RGB or levels in [0, 1]; or numbers as
                they are in the files, NaN where there is no data.

        Returns:
            As `outputs` names them: "tag_logits" (B, K), above 0 means present; every kind of maps
            (B, K, H, W), scaled to [0, 1]; "scores" (B, K + 1, H, W), logits of background and classes;
            "labels" (B, H, W) uint8, 0 background, k + 1 class k.
        """
        if not torch.compiler.is_exporting():
            return self._forward(images)
        # Methods that do nothing but maps make them from attention: their other passes take the same steps.
        with Once(), steps(not self.method.segments):
            return self._forward(images)

    def _forward(self, images: Tensor) -> tuple[Tensor, ...]:
        height, width = images.shape[2:]
        if self.levels is not None:
            images = self.levels(images)
        images = extended(images, views.SMALLEST)
        size = (images.shape[2], images.shape[3])
        padded = cache(partial(pad_to_multiple, images))
        multiple = self.method.side_multiple
        logits = None
        if self.method.map_kinds:
            logits = self.method.classify(padded(multiple, MEAN_COLOUR)).float()
        planes = [self._maps(kind, padded, size) for kind in self.kinds]
        if self.method.segments:
            view = padded(multiple, MEAN_COLOUR)
            scores = _at_the_size_of(view, self.method.segment(view).float())[..., : size[0], : size[1]]
            planes.append(scores)
            labels = strongest(scores)
        else:
            assert logits is not None
            labels = labels_from_maps(planes[0], (logits > 0).float(), self.background)
        planes.append(labels.to(torch.uint8))
        tags = () if logits is None else (logits,)
        return (*tags, *(values[..., :height, :width] for values in planes))

    def sample(self, batch: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Random images, as `forward` takes them."""
        shape = (batch, self.channels, height, width)
        if self.levels is None:
            return torch.rand(shape, generator=generator)
        return self.levels.sample(shape, generator)

    def _maps(self, kind: str, padded: Callable[..., Tensor], size: tuple[int, int]) -> Tensor:
        plan = self.method.view_plan(kind)
        view = padded(max(plan.pad, self.method.side_multiple), plan.pad_colour)
        maps = self.method.view_maps(view, (kind,))[kind].float()
        maps = _at_the_size_of(view, maps)[..., : size[0], : size[1]]
        if plan.relu != "none":
            maps = maps.relu()
        # Below 0 is what "shifted" leaves of the smallest values; rounding decides between -0 and -100 there.
        return scale_maps(maps, plan.scaling, plan.epsilon).clamp_min(0)


def _at_the_size_of(view: Tensor, planes: Tensor) -> Tensor:
    return resize_bilinear(planes, (view.shape[2], view.shape[3]))

"""Training views of more bands than three: three at a time, all with the same draws."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tagmask.data.transforms.augment import Rng, View

__all__ = ["Banded", "for_bands"]

MakeView = Callable[[NDArray[np.uint8], Rng, Any], View]
_OF_COLOUR = {"saturation": 0.0, "hue": 0.0}


@dataclasses.dataclass(frozen=True)
class Banded:
    """A view of three bands, applied to all bands of an image.

    Every three bands go through the view with the same random draws, so they stay in register; the last
    three are filled up with the last band. Hue and saturation, which mean nothing there, stay as they are.

    Attributes:
        view: The view of three bands.
    """

    view: Any

    def for_batch(self, rng: Rng) -> Banded:
        """The view with what is drawn for a whole batch."""
        return Banded(self.view.for_batch(rng)) if hasattr(self.view, "for_batch") else self

    def __call__(self, image: NDArray[np.uint8], rng: Rng, label: Any = None) -> View:
        """A random view of an image (H, W, C)."""
        start = copy.deepcopy(rng)
        # The caller's generator moves on once, as with three bands.
        drawn = (rng if first == 0 else copy.deepcopy(start) for first in range(0, image.shape[2], 3))
        return self._joined(image, lambda three: self.view(three, next(drawn), label))

    def draw(self, size: tuple[int, int], rng: Rng) -> Any:
        """Random parameters for a picture of (height, width), see the view of three bands."""
        return self.view.draw(size, rng)

    def apply(self, image: NDArray[np.uint8], draw: Any, label: Any = None) -> View:
        """The view of an image (H, W, C) for given parameters."""
        return self._joined(image, lambda three: self.view.apply(three, draw, label))

    def _joined(self, image: NDArray[np.uint8], make: Callable[[NDArray[np.uint8]], View]) -> View:
        bands, found = image.shape[2], []
        for first in range(0, bands, 3):
            chosen = [min(band, bands - 1) for band in range(first, first + 3)]
            found.append(make(np.ascontiguousarray(image[..., chosen])))
        images = torch.cat([view.image for view in found])[:bands]
        return View(images, found[0].box, found[0].label)


def for_bands(view: MakeView, bands: int) -> MakeView:
    """A view for images of so many bands; with three it is the view itself."""
    if bands == 3:
        return view
    fields = {f.name for f in dataclasses.fields(view)} if dataclasses.is_dataclass(view) else set()
    calm = {name: value for name, value in _OF_COLOUR.items() if name in fields}
    return Banded(dataclasses.replace(view, **calm) if calm else view)  # type: ignore[type-var]

"""What the model says about one image, under the tags and thresholds a person chose."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tagmask.data.levels import for_people
from tagmask.data.readers.images import rgb_tensor
from tagmask.data.readers.regular import read_bytes
from tagmask.data.readers.stack import as_picture, shrunk
from tagmask.errors import ConfigError, DataError
from tagmask.inference.reading import read_by
from tagmask.model import Model
from tagmask.steps.refine import RefineConfig, image_labels
from tagmask.store.labels import read_mask

__all__ = ["Controls", "Lab", "View"]

Labels = NDArray[np.uint8]
_WAITING = 32
_USUAL_SIDE = 384
"""Longer side of the first, quick look."""


@dataclass(frozen=True)
class Controls:
    """How maps become a pseudo label.

    Attributes:
        maps: Kind of maps.
        background: Map values up to this are background, 0 to 1.
        band: Width of the ignore band around `background`; 0 decides every pixel.
        method: How labels follow the image.
        iterations: Steps of pixel-adaptive refinement.
    """

    maps: str
    background: float = 0.45
    band: float = 0.0
    method: Literal["none", "par", "crf"] = "none"
    iterations: int = 10

    def config(self) -> RefineConfig:
        """The same as settings of the step refine."""
        high = min(1.0, self.background + self.band / 2)
        low = max(0.0, self.background - self.band / 2)
        single = self.background if self.band == 0 else None
        return RefineConfig(
            method=self.method, background=single, high=high, low=low, iterations=self.iterations
        )


@dataclass(frozen=True)
class View:
    """One open image.

    Attributes:
        name: Of the image.
        pixels: RGB, (h, w, 3) uint8, its longer side at most the lab's.
        levels: The same with all bands that the model sees, (h, w, C) uint8.
        size: (height, width) of the image itself.
        tags: 0-based classes that may appear.
        keys: 0-based class of every map.
        maps: {kind: (n, h, w) float16 in [0, 1]}.
        mask: Labels (h, w), or (height, width) if they are the run's own.
        stored: Whether the mask is the run's own.
        label: Pseudo label (h, w); None if the method makes no maps.
    """

    name: str
    pixels: NDArray[np.uint8]
    levels: NDArray[np.uint8]
    size: tuple[int, int]
    tags: tuple[int, ...]
    keys: tuple[int, ...]
    maps: Mapping[str, NDArray[np.float16]]
    mask: Labels
    stored: bool
    label: Labels | None = None


class Lab:
    """A model that answers one question at a time, whoever asks.

    Args:
        model: Makes the maps.
        segmenter: Makes the masks; the model itself if None.
        max_side: Images are shrunk to at most this longer side for the model.
    """

    def __init__(self, model: Model, segmenter: Model | None = None, max_side: int = 768) -> None:
        self.model, self.segmenter, self.max_side = model, segmenter or model, max_side
        self.classes = model.classes
        self.kinds = model.kinds
        self.side = _USUAL_SIDE
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(_WAITING)

    def take(self, model: Model) -> None:
        """Look with another model of the same classes from now on."""
        with self._lock:
            self.model = self.segmenter = model

    def open(
        self, name: str, path: Path, tags: Sequence[int] | None, mask: Path | None, controls: Controls
    ) -> View:
        """Look at an image.

        Args:
            name: How messages call it.
            path: Its file.
            tags: 0-based classes in it; the classifier decides if None.
            mask: The run's own mask of it, shown instead of a new one.
            controls: How the pseudo label is made.

        Raises:
            DataError: The image or its mask cannot be read, they differ in size, or too many are waiting.
        """
        levels, size = self._levels(name, path, self.max_side)
        stored = None
        if mask is not None:
            stored = read_mask(mask)
            if stored.shape != size:
                raise DataError(f"the mask of '{name}' is {stored.shape}, the image {size}; make it again")
        return self.relabel(self._seen(name, levels, size, tags, stored), controls)

    def _levels(self, name: str, path: Path, side: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """What the model sees of a file, shrunk to `side`, and the picture's own (height, width)."""
        try:
            content = read_bytes(path)
        except OSError as error:
            raise DataError(f"'{name}' cannot be read ({error.strerror}); open it again") from None
        picture = read_by(self.model.reading, name, content=content)
        size = (picture.height, picture.width)
        if isinstance(picture, Image.Image):
            picture.thumbnail((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
        else:
            picture = shrunk(picture, side)
        return np.array(picture), size

    def look(self, name: str, path: Path, tags: Sequence[int] | None, quick: bool) -> View:
        """What the model says of a picture now: from one view of the model's own size, or from all its views.

        Args:
            name: How messages call it.
            path: Its file.
            tags: 0-based classes that may appear; the classifier decides if None.
            quick: One view.

        Raises:
            DataError: It cannot be read, or too many are waiting.
        """
        side = min(self.max_side, self.side) if quick else self.max_side
        levels, size = self._levels(name, path, side)
        options = {"scales": (1.0,), "flip": "none"} if quick else {}
        return self._seen(name, levels, size, tags, None, options)

    def retag(self, view: View, tags: Sequence[int], controls: Controls) -> View:
        """The same image with other tags; the mask is the model's."""
        return self.relabel(self._seen(view.name, view.levels, view.size, tags, None), controls)

    def _seen(
        self,
        name: str,
        levels: NDArray[np.uint8],
        size: tuple[int, int],
        tags: Sequence[int] | None,
        stored: Labels | None,
        options: Mapping[str, Any] = MappingProxyType({}),
    ) -> View:
        words = None if tags is None else [self.classes[key] for key in tags]
        picture = as_picture(levels)
        with self._turn():
            result = self.model.predict(picture, words, **options)
            mask = result.mask
            if stored is not None:
                mask = stored
            elif self.segmenter is not self.model:
                mask = self.segmenter.predict(picture, words, maps=False, **options).mask
        maps = {kind: values.astype(np.float16) for kind, values in result.maps.items()}
        chosen = result.keys if tags is None else tuple(tags)
        seen = stored is not None
        return View(name, for_people(levels), levels, size, chosen, result.keys, maps, mask, seen)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """The model for oneself, once those before are done."""
        if not self._places.acquire(blocking=False):
            raise DataError(f"{_WAITING} others are waiting for the model; try again in a moment")
        try:
            with self._lock:
                yield
        finally:
            self._places.release()

    def relabel(self, view: View, controls: Controls) -> View:
        """The same view with the pseudo label of other controls.

        Raises:
            ConfigError: There are no such maps.
        """
        if not view.maps:
            return view
        if controls.maps not in view.maps:
            raise ConfigError(f"there are no '{controls.maps}' maps; choose one of {', '.join(view.maps)}")
        label = np.zeros(view.pixels.shape[:2], np.uint8)
        if view.keys:
            images = rgb_tensor(view.levels)[None]
            maps = torch.from_numpy(view.maps[controls.maps].astype(np.float32))[None]
            keys = torch.tensor([view.keys])
            with torch.inference_mode():
                label = image_labels(images, maps, keys, controls.config())[0].numpy().astype(np.uint8)
        return dataclasses.replace(view, label=label)

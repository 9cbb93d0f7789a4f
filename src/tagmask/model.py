"""A trained model to predict with, and what it says about an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from tagmask.data import ClassTable
from tagmask.data.images import read_image
from tagmask.engine.runtime import Runtime
from tagmask.errors import DataError
from tagmask.ops.labels import labels_from_maps, strongest
from tagmask.ops.maps import present_classes, take_classes
from tagmask.report.figures import side_by_side
from tagmask.report.panels import label_picture, map_picture
from tagmask.stages._infer import image_maps, image_scores, image_tags
from tagmask.stages._methods import Trained, load_trained
from tagmask.stages._probabilities import remembered_use
from tagmask.store.files import atomic_write
from tagmask.store.labels import write_mask
from tagmask.store.maps import save_maps

__all__ = ["Model", "Result", "load"]

Picture = str | Path | Image.Image | NDArray[np.uint8]


def load(path: str | Path, device: str = "auto", precision: str = "fp32") -> Model:
    """A trained model, ready to predict.

    Args:
        path: Run folder, model folder or its weight file.
        device: "auto", "cpu", "mps", "cuda" or "cuda:N".
        precision: fp32, tf32, bf16 or fp16.

    Raises:
        CheckpointError: There is no model, or it is damaged.
        ConfigError: The device is not here.
    """
    return Model(load_trained(Path(path)), Runtime.create(device, precision, seed=None))


class Model:
    """A trained method with its classes.

    Args:
        trained: The method and what its outputs mean.
        runtime: Device and precision.
    """

    def __init__(self, trained: Trained, runtime: Runtime) -> None:
        self._trained, self._runtime = trained, runtime
        self.method = trained.method.to(runtime.device).eval()
        use = remembered_use(trained.meta)
        self._maps, self._views, self._background = use.maps, use.views, use.background

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the foreground classes; label k + 1 of a mask is ``classes[k]``."""
        return self._trained.classes.names

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of maps that results hold."""
        return tuple(self._maps.kinds or self.method.map_kinds)

    def predict(self, image: Picture, tags: Sequence[str] | None = None) -> Result:
        """Mask and class maps of one image.

        Args:
            image: A file, a Pillow image, or RGB pixels (H, W, 3) uint8.
            tags: Names of the classes in the image; only these appear in mask and maps. If None, the
                classifier says which maps are made, and the mask may hold any class.

        Returns:
            The result, at the image's own size.

        Raises:
            DataError: The image cannot be read, or a tag is not a class.
        """
        pixels = _pixels(image)
        images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float().div_(255).to(self._runtime.device)
        shown = self._shown(images, tags)
        keys, valid = present_classes(shown)
        keys = keys[:, valid[0]]
        maps: dict[str, Tensor] = {}
        if self.method.map_kinds:
            every = image_maps(self.method, images, self._runtime, self._maps, shown)
            maps = {kind: take_classes(value, keys) for kind, value in every.items()}
        mask = self._mask(images, maps, keys, shown if tags is not None else None)
        arrays = {kind: value[0].cpu().numpy() for kind, value in maps.items()}
        return Result(pixels, mask, arrays, tuple(keys[0].tolist()), self._trained.classes)

    def _mask(
        self, images: Tensor, maps: Mapping[str, Tensor], keys: Tensor, allowed: Tensor | None
    ) -> NDArray[np.uint8]:
        if self.method.segments:
            labels = strongest(image_scores(self.method, images, self._runtime, self._views, allowed))
        elif maps and keys.numel():
            first = next(iter(maps.values()))
            labels = labels_from_maps(first, torch.ones_like(keys), self._background, keys=keys)
        else:
            labels = torch.zeros(1, *images.shape[2:])
        return labels[0].cpu().numpy().astype(np.uint8)

    def _shown(self, images: Tensor, tags: Sequence[str] | None) -> Tensor:
        table = self._trained.classes
        if tags is None:
            if not self.method.map_kinds:
                return torch.ones(1, table.num_classes, device=images.device)
            return image_tags(self.method, images, self._runtime, "classifier")
        if isinstance(tags, str):
            raise DataError(f"tags must be a list of class names, got the text '{tags}'")
        shown = torch.zeros(1, table.num_classes, device=images.device)
        shown[0, [table.index(name) for name in tags]] = 1
        return shown


@dataclass(frozen=True)
class Result:
    """What a model says about one image.

    Attributes:
        image: RGB pixels, (H, W, 3) uint8.
        mask: (H, W) uint8, 0 background, k + 1 for class k.
        maps: {kind: (n, H, W) float32 in [0, 1]}, one map per entry of `keys`.
        keys: 0-based classes of the maps.
        table: Names and colours.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    maps: Mapping[str, NDArray[np.float32]]
    keys: tuple[int, ...]
    table: ClassTable

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the mask."""
        return tuple(self.table.labels[label] for label in np.unique(self.mask) if label)

    @property
    def map_classes(self) -> tuple[str, ...]:
        """Names of the classes that have maps, in the maps' order."""
        return tuple(self.table.names[key] for key in self.keys)

    def overlay(self) -> NDArray[np.uint8]:
        """The mask in colour over the grey image, (H, W, 3) uint8."""
        return label_picture(self.image, self.mask)

    def plot(self) -> Any:
        """Image, maps and mask side by side, as a matplotlib Figure (savefig writes it)."""
        panels = [("image", self.image)]
        panels += [(kind, map_picture(self.image, maps, self.keys)) for kind, maps in self.maps.items()]
        panels.append(("mask", self.overlay()))
        shown = sorted({*self.keys, *(int(v) - 1 for v in np.unique(self.mask) if v)})
        return side_by_side(panels, self.table.names, shown)

    def save(self, path: str | Path) -> Path:
        """Write the mask as an indexed PNG, or everything into a folder.

        Args:
            path: Ends in ``.png`` for the mask alone; else a folder that gets ``mask.png``,
                ``overlay.png`` and ``<kind>.npz``.

        Returns:
            The path.

        Raises:
            DataError: It cannot be written.
        """
        target = Path(path)
        if target.suffix.lower() == ".png":
            write_mask(target, self.mask, self.table.palette)
            return target
        write_mask(target / "mask.png", self.mask, self.table.palette)
        with atomic_write(target / "overlay.png") as file:
            Image.fromarray(self.overlay()).save(file, format="PNG")
        height, width = self.mask.shape
        for kind, maps in self.maps.items():
            save_maps(target / f"{kind}.npz", maps, np.asarray(self.keys, np.int64), (height, width))
        return target


def _pixels(image: Picture) -> NDArray[np.uint8]:
    if isinstance(image, (str, Path)):
        return read_image(image)
    if isinstance(image, Image.Image):
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise DataError(f"an image is RGB (H, W, 3) uint8, got {image.shape} {image.dtype}")
    return np.ascontiguousarray(image)

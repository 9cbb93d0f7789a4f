"""What a model says about an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tagmask.data import ClassTable
from tagmask.report.figures import side_by_side
from tagmask.report.panels import label_picture, map_picture
from tagmask.store.files import atomic_write
from tagmask.store.labels import write_mask
from tagmask.store.maps import save_maps

__all__ = ["Result"]


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

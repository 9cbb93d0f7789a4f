"""What a model says about an image."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tagmask.data import ClassTable
from tagmask.errors import ConfigError, DataError
from tagmask.report.panels import label_picture, map_picture, picture_uri
from tagmask.store.files import atomic_write
from tagmask.store.labels import write_mask
from tagmask.store.maps import save_maps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Result"]

_SUFFIXES = (".png", ".json", ".npz")


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """What a model says about one image.

    Attributes:
        image: RGB pixels, (H, W, 3) uint8.
        mask: (H, W) uint8, 0 background, k + 1 the k-th of `classes`.
        maps: {kind: (n, H, W) float32 in [0, 1]}, one map per entry of `keys`.
        keys: 0-based classes of the maps.
        table: Names and colours.
        confidence: Probability of every pixel's label, (H, W) float32 in [0, 1]; None if nobody asked.
        tag_scores: {class: probability that it is in the image} by the classifier; empty if there is none.
        path: Where the image came from, if it was a file.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    maps: Mapping[str, NDArray[np.float32]]
    keys: tuple[int, ...]
    table: ClassTable
    confidence: NDArray[np.float32] | None = None
    tag_scores: Mapping[str, float] = field(default_factory=dict)
    path: Path | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of all classes of the model; label k + 1 of the mask is ``classes[k]``."""
        return self.table.names

    @property
    def present(self) -> tuple[str, ...]:
        """Names of the classes in the mask."""
        return tuple(self.classes[label - 1] for label in np.unique(self.mask) if label)

    @property
    def map_classes(self) -> tuple[str, ...]:
        """Names of the classes that have maps, in the maps' order."""
        return tuple(self.table.names[key] for key in self.keys)

    def __repr__(self) -> str:
        height, width = self.mask.shape
        source = "" if self.path is None else f"{str(self.path)!r}, "
        shown = ", ".join(self.present) or "background only"
        return f"Result({source}{width} x {height} px, {shown})"

    def _repr_html_(self) -> str:
        """The mask over the image, with a legend, for notebooks."""
        return (
            f'<figure style="margin:0"><img src="{picture_uri(self.overlay(), 480)}" alt="mask">'
            f"<figcaption>{escape(repr(self))}</figcaption></figure>"
        )

    def overlay(self) -> NDArray[np.uint8]:
        """The mask in colour over the grey image, (H, W, 3) uint8."""
        return label_picture(self.image, self.mask)

    def plot(self) -> Figure:
        """Image, maps and mask side by side, as a matplotlib Figure, which notebooks show."""
        from tagmask.report.figures import side_by_side

        panels = [("image", self.image)]
        panels += [(kind, map_picture(self.image, maps, self.keys)) for kind, maps in self.maps.items()]
        panels.append(("mask", self.overlay()))
        shown = sorted({*self.keys, *(int(v) - 1 for v in np.unique(self.mask) if v)})
        return side_by_side(panels, self.table.names, shown)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them; of the pixels their shares."""
        labels, counts = np.unique(self.mask, return_counts=True)
        return {
            "path": None if self.path is None else str(self.path),
            "height": int(self.mask.shape[0]),
            "width": int(self.mask.shape[1]),
            "classes": list(self.classes),
            "present": list(self.present),
            "shares": {
                self.table.labels[label]: round(count / self.mask.size, 6)
                for label, count in zip(labels.tolist(), counts.tolist(), strict=True)
            },
            "confidence": None if self.confidence is None else round(float(self.confidence.mean()), 6),
            "tag_scores": {name: round(value, 6) for name, value in self.tag_scores.items()},
        }

    def polygons(self) -> dict[str, list[list[NDArray[np.float64]]]]:
        """Outlines of every class in the mask.

        Returns:
            {class: regions}, a region being its outer ring and then its holes, each (n, 2) with x and y in
            pixels; (0, 0) is the upper left corner of the image.
        """
        import contourpy

        found = {}
        for name in self.present:
            inside = np.pad(self.mask == self.classes.index(name) + 1, 1).astype(np.float64)
            lines = contourpy.contour_generator(z=inside, fill_type="OuterOffset").filled(0.5, 2.0)
            regions = []
            for points, offsets in zip(*lines, strict=True):
                # Centre of the first pixel is (0.5, 0.5); one pixel was added around.
                rings = np.split(np.asarray(points, np.float64) - 0.5, np.asarray(offsets[1:-1], np.int64))
                regions.append(rings)
            found[name] = regions
        return found

    def to_supervision(self) -> Any:
        """The classes in the mask as `supervision.Detections`, one for each.

        Raises:
            ConfigError: The package is not installed.
        """
        try:
            supervision: Any = importlib.import_module("supervision")
        except ImportError:
            raise ConfigError("to_supervision needs: pip install 'tagmask[supervision]'") from None
        keys = np.array([self.classes.index(name) for name in self.present], np.int64)
        masks = self.mask[None] == (keys + 1)[:, None, None]
        boxes = [
            (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            for rows, columns in ((np.flatnonzero(m.any(1)), np.flatnonzero(m.any(0))) for m in masks)
        ]
        scores = None
        if self.confidence is not None:
            scores = np.array([self.confidence[mask].mean() for mask in masks], np.float32)
        return supervision.Detections(
            xyxy=np.array(boxes, np.float32).reshape(-1, 4),
            mask=masks,
            confidence=scores,
            class_id=keys,
            data={"class_name": np.array(self.present)},
        )

    def save(self, path: str | Path) -> Path:
        """Write the result, in the form that the path's ending names.

        Args:
            path: ``.png`` for the mask as an indexed PNG, ``.json`` for what `to_dict` says, ``.npz`` for
                mask, confidence and maps as arrays; without an ending a folder, which gets ``mask.png``,
                ``overlay.png`` and ``<kind>.npz``.

        Returns:
            The path.

        Raises:
            DataError: The ending is another one, or the file cannot be written.
        """
        target = Path(path).expanduser()
        suffix = target.suffix.lower()
        if suffix == ".png":
            write_mask(target, self.mask, self.table.palette)
        elif suffix == ".json":
            with atomic_write(target) as file:
                file.write_text(json.dumps(self.to_dict(), ensure_ascii=False, indent=1), encoding="utf-8")
        elif suffix == ".npz":
            arrays: dict[str, Any] = {"mask": self.mask, "keys": np.asarray(self.keys, np.int64), **self.maps}
            if self.confidence is not None:
                arrays["confidence"] = self.confidence
            with atomic_write(target) as file, file.open("wb") as stream:
                np.savez_compressed(stream, **arrays)
        elif suffix and not target.is_dir():
            raise DataError(
                f"a result cannot be saved as {target.name}: its ending is one of {', '.join(_SUFFIXES)}, or "
                "none for a folder; the picture with its mask is Image.fromarray(result.overlay())"
            )
        else:
            self._save_folder(target)
        return target

    def _save_folder(self, folder: Path) -> None:
        write_mask(folder / "mask.png", self.mask, self.table.palette)
        with atomic_write(folder / "overlay.png") as file:
            Image.fromarray(self.overlay()).save(file, format="PNG")
        height, width = self.mask.shape
        for kind, maps in self.maps.items():
            save_maps(folder / f"{kind}.npz", maps, np.asarray(self.keys, np.int64), (height, width))

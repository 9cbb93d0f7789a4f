"""A folder of pictures, masks for it, and the ways through the exchange with annotation tools."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from tagmask.annotations.exchange import export_masks, import_masks
from tagmask.annotations.read import find_subjects
from tagmask.data.classes import ClassTable
from tagmask.engine.log import Display
from tagmask.store.files import file_for
from tagmask.store.labels import read_mask, write_mask

BOX = [10, 10, 30, 10, 30, 30, 10, 30]
MASK = np.zeros((40, 60), np.uint8)
MASK[5:20, 10:40] = 1
MASK[22:30, 10:40] = 2
"""450 pixels of dog, 240 of cat."""


@dataclass
class Desk:
    """Pictures, classes and what is imported for them."""

    root: Path
    classes: tuple[str, ...] = ("dog", "cat")
    display: Display = field(default_factory=Display)

    def pictures(self, *files: str, size: tuple[int, int] = (40, 60)) -> Desk:
        for file in files:
            path = self.root / "images" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(path, "PNG")
        return self

    @property
    def subjects(self):
        return find_subjects(self.root / "images", ClassTable(self.classes))

    def write(self, name: str, content: object) -> Path:
        path = self.root / "given" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, np.ndarray):
            Image.fromarray(content).save(path)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    def mask(self, name: str, mask: np.ndarray) -> None:
        write_mask(file_for(self.root / "masks", name, ".png"), mask)

    def export(self, kind: str, out: str | None = None, shapes: str | None = None) -> Path:
        path = self.root / (out or f"as_{kind}")
        export_masks(self.root / "masks", self.subjects, kind, path, shapes, self.display)
        return path

    def take(
        self, source: Path | None = None, kind: str | None = None, empty=()
    ) -> dict[str, dict[int, int]]:
        """Import; name to {label: pixels}."""
        out = self.root / f"out{len(list(self.root.glob('out*')))}"
        self.figures = import_masks(
            source or self.root / "given", self.subjects, kind, out, self.display, empty
        )
        self.masks = {
            name: read_mask(path)
            for name in self.subjects.files
            if (path := file_for(out, name, ".png")).is_file()
        }
        return {
            name: dict(zip(*(part.tolist() for part in np.unique(m, return_counts=True)), strict=True))
            for name, m in self.masks.items()
        }


def coco(images, annotations, cats=((1, "dog"), (2, "cat"))):
    """A COCO document: images (file, width, height), annotations (image, category, segmentation)."""
    return {
        "images": [
            {"id": k, "file_name": f, "width": w, "height": h} for k, (f, w, h) in enumerate(images, 1)
        ],
        "categories": [{"id": i, "name": n} for i, n in cats],
        "annotations": [
            {"id": k, "image_id": i, "category_id": c, "segmentation": s, "bbox": [10, 10, 20, 20]}
            for k, (i, c, s) in enumerate(annotations, 1)
        ],
    }


def labelme(shapes, size=(40, 60), path="im0.png"):
    """A LabelMe document: shapes (label, corners)."""
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": [
            {"label": n, "points": np.reshape(p, (-1, 2)).tolist(), "shape_type": "polygon"}
            for n, p in shapes
        ],
        "imagePath": path,
        "imageData": None,
        "imageHeight": size[0],
        "imageWidth": size[1],
    }


def polygon(label, size=(40, 60)):
    """A Label Studio result of 480 pixels."""
    points = [[10, 10], [50, 10], [50, 60], [10, 60]]
    return {
        "type": "polygonlabels",
        "original_width": size[1],
        "original_height": size[0],
        "value": {"points": points, "polygonlabels": [label]},
    }


def task(annotations=None, image="/data/upload/1/abcdef12-im0.png", **more):
    """A Label Studio task."""
    return {
        "data": {"image": image},
        **({} if annotations is None else {"annotations": annotations}),
        **more,
    }

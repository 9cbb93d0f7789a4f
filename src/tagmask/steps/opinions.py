"""The opinions about single images, from which the review ranks them: mask, maps, labels and tags."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tagmask.data import TagDataset
from tagmask.data.readers.regular import read_text
from tagmask.errors import DataError
from tagmask.inference.predictor import Predictor, Use, remembered_use
from tagmask.inference.views import MapConfig, image_maps, image_tags, tag_logits
from tagmask.models.trained import Trained
from tagmask.review.signals import Evidence, expected_shares, shares, signals
from tagmask.steps.base import Context
from tagmask.steps.scoring import read_maps
from tagmask.store.files import file_for, write_json
from tagmask.store.labels import read_mask
from tagmask.types import Batch

__all__ = ["Looks", "Opinions"]


class Looks(Protocol):
    """How closely images are looked at; see `tagmask.steps.review.ReviewConfig`."""

    @property
    def max_side(self) -> int:
        """Longer side at which signals are computed."""

    @property
    def kinds(self) -> tuple[str, ...] | None:
        """Maps compared with the mask."""

    @property
    def background(self) -> float:
        """Map values up to this are background."""


class Opinions:
    """What model, maps and labels say about single images.

    Args:
        config: How closely images are looked at.
        context: The run; signals are written below its `out`.
        trained: Who segments and makes the maps that are not on disk.
        dataset: The images.

    Attributes:
        known: Folder of signals that still hold; those are copied.
    """

    def __init__(self, config: Looks, context: Context, trained: Trained, dataset: TagDataset) -> None:
        self.config, self.folder, self.dataset = config, context.folder, dataset
        self.out = context.out / "review" / "signals"
        self.runtime = context.runtime
        self.method = trained.method.to(context.runtime.device).eval()
        use = remembered_use(trained.meta)
        # One plain view: how sure the network is matters here, not the last point of IoU.
        views = use.views.model_copy(update={"scales": (1.0,), "flip": "none"})
        self.use = Use(use.maps, views, use.background)
        self.predictor = Predictor(self.method, self.runtime, self.use)
        on_disk = tuple(sorted(p.name for p in (self.folder / "maps").glob("*") if p.is_dir()))
        usual = tuple(kind for kind in ("cam", "lam") if kind in self.method.map_kinds)
        self.kinds = config.kinds or on_disk or usual or self.method.map_kinds[:1]
        self.known: Path | None = None

    def look(self, index: int, batch: Batch) -> None:
        """Write the signals of one image."""
        record = self._known(batch.names[0]) or self._record(index, batch)
        write_json(file_for(self.out, batch.names[0], ".json"), record)

    def _known(self, name: str) -> dict[str, Any] | None:
        path = None if self.known is None else file_for(self.known, name, ".json")
        if path is None or not path.is_file():
            return None
        found: dict[str, Any] = json.loads(read_text(path))
        return found

    def _record(self, index: int, batch: Batch) -> dict[str, Any]:
        images = self._shrunk(batch.images)
        size = (images.shape[2], images.shape[3])
        tags = self.dataset.items[index].tags
        known = batch.tags if tags is not None else None
        probabilities = None
        if self.method.segments:
            probabilities = self.predictor.probabilities(images, None)[0].cpu().numpy()
        mask = self.mask(index)
        if mask is None and probabilities is not None:
            mask = probabilities.argmax(0).astype(np.uint8)
        opinions = self._opinions(images, batch.names[0], known, size)
        if mask is None:
            if not opinions:
                raise DataError(
                    f"'{batch.names[0]}' has neither mask nor maps; run segment or localize first"
                )
            mask = next(iter(opinions.values()))
        evidence = Evidence(_nearest(mask, size), opinions, probabilities, tags)
        record: dict[str, Any] = {
            "name": batch.names[0],
            "signals": {key: round(value, 5) for key, value in signals(evidence).items()},
            "areas": {str(key): round(area, 6) for key, area in shares(mask).items()},
            "tags": None if tags is None else list(tags),
            "chances": [round(value, 5) for value in self._chances(images)],
        }
        if probabilities is not None:
            said = expected_shares(evidence.mask, probabilities)
            record["expected"] = {str(key): [round(v, 6) for v in pair] for key, pair in said.items()}
        return record

    def mask(self, index: int) -> NDArray[np.uint8] | None:
        """The mask on disk, at the image's own size."""
        path = file_for(self.folder / "masks", self.dataset.names[index], ".png")
        return read_mask(path) if path.is_file() else None

    def _shrunk(self, images: Tensor) -> Tensor:
        factor = self.config.max_side / max(images.shape[2:])
        if factor >= 1:
            return images
        size = tuple(max(1, round(side * factor)) for side in images.shape[2:])
        return torch.nn.functional.interpolate(images, size=size, mode="bilinear", antialias=True)

    def _opinions(
        self, images: Tensor, name: str, tags: Tensor | None, size: tuple[int, int]
    ) -> dict[str, NDArray[np.uint8]]:
        found: dict[str, NDArray[np.uint8]] = {}
        missing = []
        for kind in self.kinds:
            if file_for(self.folder / "maps" / kind, name, ".npz").is_file():
                loaded = read_maps(self.folder / "maps", kind, name, self.dataset.num_classes)
                found[kind] = _nearest(self._cut(loaded.maps, loaded.keys), size)
            else:
                missing.append(kind)
        if missing and self.method.map_kinds:
            shown = tags if tags is not None else image_tags(self.method, images, self.runtime, "classifier")
            config = MapConfig(kinds=tuple(missing), size=self.use.maps.size, scales=(1.0,), flip="none")
            made = image_maps(self.method, images, self.runtime, config, shown)
            keys = np.flatnonzero(shown[0].cpu().numpy())
            for kind, maps in made.items():
                found[kind] = self._cut(maps[0].cpu().numpy()[keys], keys)
        label = file_for(self.folder / "labels", name, ".png")
        if label.is_file():
            found["label"] = _nearest(read_mask(label), size)
        return found

    def _cut(self, maps: NDArray[np.floating], keys: NDArray[np.integer]) -> NDArray[np.uint8]:
        if not len(keys):
            return np.zeros(maps.shape[1:], np.uint8)
        labels = np.asarray(keys)[maps.argmax(0)] + 1
        return np.where(maps.max(0) > self.config.background, labels, 0).astype(np.uint8)

    def _chances(self, images: Tensor) -> list[float]:
        with torch.inference_mode(), self.runtime.autocast():
            try:
                logits = tag_logits(self.method, images)
            except AttributeError:
                return []  # a pure segmenter has no classifier
            return [float(value) for value in logits[0].sigmoid().cpu()]


def _nearest(labels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    if labels.shape == size:
        return labels
    return np.array(Image.fromarray(labels).resize((size[1], size[0]), Image.Resampling.NEAREST))

"""From images to class probabilities per pixel, whatever a method makes, whole or in tiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tagmask.config import validate
from tagmask.data.readers.images import rgb_tensor
from tagmask.engine.runtime import Runtime
from tagmask.inference.crf import segment_by_crf
from tagmask.inference.views import MapConfig, SegmentationConfig, image_maps, image_scores, image_tags
from tagmask.methods.base import Method
from tagmask.ops.crf_presets import CRFParams
from tagmask.ops.resize import resize_bilinear
from tagmask.ops.tiles import join_tiles, tile_spans

__all__ = ["Predictor", "Use", "remembered_use"]

_SMALLEST = 32


@dataclass(frozen=True)
class Use:
    """How a model wants to be used.

    Attributes:
        maps: How its maps are made.
        views: How it segments.
        background: Score of the background beside maps.
    """

    maps: MapConfig
    views: SegmentationConfig
    background: float


def remembered_use(meta: Mapping[str, Any]) -> Use:
    """What a model folder's header says about its use; defaults for what it does not say."""
    use = meta.get("extra", {}).get("use", {})
    known = {key: use.get("localize", {}).get(key) for key in MapConfig.model_fields}
    seen = {k: v for k, v in use.get("segment", {}).items() if k in SegmentationConfig.model_fields}
    background = use.get("background")
    return Use(
        validate(MapConfig, known, "model: localize"),
        validate(SegmentationConfig, seen, "model: segment"),
        background if isinstance(background, float) else 0.5,
    )


@dataclass(frozen=True)
class Predictor:
    """Labels and confidence of pictures of any size.

    Attributes:
        method: In eval mode, on the device.
        runtime: Device and precision.
        use: Views and thresholds.
        crf: Cleans the masks, tile by tile; None leaves them.
        tile: Pictures with a longer side are cut into tiles of this side.
        overlap: Pixels that tiles share.
        max_side: Pictures are shrunk to this longer side, and their masks enlarged; None keeps them.
        batch_size: Tiles that go through the network together.
    """

    method: Method
    runtime: Runtime
    use: Use
    crf: CRFParams | None = None
    tile: int = 1024
    overlap: int = 128
    max_side: int | None = None
    batch_size: int = 2

    def probabilities(self, images: Tensor, tags: Tensor | None) -> Tensor:
        """Probability of every label at every pixel.

        Args:
            images: RGB in [0, 1], (B, 3, H, W), on the device.
            tags: Classes that may appear, 0 or 1, (B, K); any if None.

        Returns:
            (B, K + 1, H, W) float32, adding up to 1. Of methods that do not segment: the shares of the maps
            and a constant background.
        """
        height, width = images.shape[2:]
        # A patch grid needs a few patches; the smallest pictures get more of their border.
        below, right = max(_SMALLEST - height, 0), max(_SMALLEST - width, 0)
        if below or right:
            images = torch.nn.functional.pad(images, (0, right, 0, below), mode="replicate")
        with torch.inference_mode():
            if self.method.segments:
                scores = image_scores(self.method, images, self.runtime, self.use.views, tags)
                result = _shares(scores, self.use.views)
            else:
                result = self._from_maps(images, tags)
            if self.crf is not None:
                labels = [
                    segment_by_crf(images[i : i + 1], result[i : i + 1], self.crf, True)
                    for i in range(len(images))
                ]
                result = torch.nn.functional.one_hot(torch.cat(labels), result.shape[1])
                result = result.permute(0, 3, 1, 2).float()
            return result[:, :, :height, :width]

    def _from_maps(self, images: Tensor, tags: Tensor | None) -> Tensor:
        if tags is None:
            tags = image_tags(self.method, images, self.runtime, "classifier")
        kinds = (self.use.maps.kinds or self.method.map_kinds)[:1]
        config = self.use.maps.model_copy(update={"kinds": kinds})
        maps = image_maps(self.method, images, self.runtime, config, tags)[kinds[0]]
        background = torch.full_like(maps[:, :1], self.use.background)
        scores = torch.cat([background, maps * tags[:, :, None, None]], 1).clamp_min(1e-6)
        return scores / scores.sum(1, keepdim=True)

    def batch(
        self, pictures: list[Image.Image], tags: Tensor | None
    ) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        """Labels and confidence of pictures of one size, none longer than a tile.

        Returns:
            For each, labels (H, W) uint8 and the winner's probability (H, W) uint8, 255 being 1.
        """
        images = torch.stack([rgb_tensor(np.array(picture)) for picture in pictures]).to(self.runtime.device)
        probabilities = self.probabilities(images, tags)
        return [_winner(one) for one in probabilities]

    def large(
        self, picture: Image.Image, tags: Tensor | None
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], int]:
        """Labels and confidence of one picture of any size; the third value is the number of tiles."""
        size = (picture.height, picture.width)
        side = self.max_side
        if not self.method.segments:
            # Maps are scaled over the whole picture; in tiles every tile would have its own scale.
            side = min(side or self.tile, self.tile)
        if side is not None and max(size) > side:
            factor = side / max(size)
            small = (max(1, round(size[1] * factor)), max(1, round(size[0] * factor)))
            picture = picture.resize(small, Image.Resampling.BILINEAR, reducing_gap=2.0)
        if max(picture.size) <= self.tile:
            images = rgb_tensor(np.array(picture))[None].to(self.runtime.device)
            probabilities = self.probabilities(images, tags)
            if probabilities.shape[1] * size[0] * size[1] <= 1 << 28:
                return *_winner(resize_bilinear(probabilities, size)[0]), 1
            mask, confidence, tiles = *_winner(probabilities[0]), 1
        else:
            mask, confidence, tiles = self._tiled(picture, tags)
        if mask.shape != size:
            mask, confidence = (
                np.array(Image.fromarray(plane).resize((size[1], size[0]), Image.Resampling.NEAREST))
                for plane in (mask, confidence)
            )
        return mask, confidence, tiles

    def _tiled(
        self, picture: Image.Image, tags: Tensor | None
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], int]:
        mask = np.zeros((picture.height, picture.width), np.uint8)
        confidence = np.zeros_like(mask)
        rows, columns = (tile_spans(side, self.tile, self.overlap) for side in mask.shape)

        def cut(top: int, left: int, height: int, width: int) -> Tensor:
            return rgb_tensor(np.array(picture.crop((left, top, left + width, top + height))))

        def run(images: Tensor) -> Tensor:
            images = images.to(self.runtime.device)
            return self.probabilities(images, None if tags is None else tags.expand(len(images), -1))

        def emit(top: int, left: int, values: Tensor) -> None:
            label, certain = _winner(values)
            place = slice(top, top + label.shape[0]), slice(left, left + label.shape[1])
            mask[place], confidence[place] = label, certain

        join_tiles(run, cut, emit, rows, columns, self.batch_size)
        return mask, confidence, len(rows.starts) * len(columns.starts)


def _shares(scores: Tensor, views: SegmentationConfig) -> Tensor:
    """Scores of merged views as probabilities; the strongest label stays the strongest."""
    if views.probabilities:
        scores = scores.clamp_min(0)
        return scores / scores.sum(1, keepdim=True).clamp_min(1e-12)
    count = (2 if views.flip == "sum" else 1) * (len(views.scales) if views.merge == "sum" else 1)
    return (scores / count).softmax(1)


def _winner(probabilities: Tensor) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    value, label = probabilities.max(0)
    certain = (value.clamp(0, 1) * 255).round()
    return label.to(torch.uint8).cpu().numpy(), certain.to(torch.uint8).cpu().numpy()

"""The one way from a picture to its tags, maps and mask, whole or in tiles, whatever a method makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tagmask.data.readers.images import rgb_tensor
from tagmask.data.readers.stack import AnyPicture, as_picture, shrunk
from tagmask.engine.compute import Compute
from tagmask.errors import ConfigError
from tagmask.inference.crf import segment_by_crf
from tagmask.inference.use import Use, remembered_use
from tagmask.inference.views import image_maps, image_scores, image_tags, tag_chances
from tagmask.methods.base import Method, SegmentationViews
from tagmask.models.trained import Trained
from tagmask.ops.crf_presets import CRFParams
from tagmask.ops.resize import resize_bilinear
from tagmask.ops.tiles import Emit, Wanted, join_tiles, skipping, tile_spans

__all__ = ["Prediction", "Predictor", "Use", "picture_of", "remembered_use", "winner"]

_LARGEST = 1 << 28


@dataclass(frozen=True)
class Prediction:
    """What is said about one picture, at its own size.

    Attributes:
        mask: (H, W) uint8, 0 background, k + 1 class k.
        confidence: The winner's probability, (H, W) uint8, 255 being 1.
        tiles: Into how many tiles it was cut.
        tags: Classes whose maps were made, 0 or 1, (1, K); None if nobody asked for maps.
        maps: {kind: (1, K, H, W)} float32 in [0, 1], those that were asked for.
    """

    mask: NDArray[np.uint8]
    confidence: NDArray[np.uint8]
    tiles: int = 1
    tags: Tensor | None = None
    maps: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Predictor:
    """Tags, maps, labels and confidence of pictures of any size.

    Attributes:
        method: In eval mode, on the device.
        compute: Device and precision.
        use: Views and thresholds.
        crf: Cleans the masks, tile by tile; None leaves them.
        tile: Pictures with a longer side are cut into tiles of this side; class maps, which are scaled over
            the whole picture, are made of the picture shrunk to it.
        overlap: Pixels that tiles share.
        max_side: Pictures are shrunk to this longer side, and their masks enlarged; None keeps them.
        batch_size: Tiles that go through the network together.
    """

    method: Method
    compute: Compute
    use: Use = field(default_factory=Use)
    crf: CRFParams | None = None
    tile: int = 1024
    overlap: int = 128
    max_side: int | None = None
    batch_size: int = 2

    def __post_init__(self) -> None:
        if self.overlap < 0 or 2 * self.overlap > self.tile:
            raise ConfigError(
                f"overlap is {self.overlap}; from 0 to half of the tile ({self.tile}) is possible"
            )

    @staticmethod
    def of(trained: Trained, compute: Compute, use: Use | None = None, **options: Any) -> Predictor:
        """A predictor for a trained model, used as its header remembers unless `use` says otherwise.

        Args:
            trained: The model; its method moves to the device.
            compute: Device and precision.
            use: Views and thresholds instead of the remembered ones.
            **options: The other attributes.

        Raises:
            ConfigError: The model makes neither masks nor maps, or an option is impossible.
        """
        method = trained.method.to(compute.device).eval()
        if not method.segments and not method.map_kinds:
            raise ConfigError(f"{trained.name} makes neither masks nor maps; choose another model")
        return Predictor(method, compute, use or remembered_use(trained.meta), **options)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of maps it makes; the first one decides where a method does not segment."""
        return tuple(self.use.maps.kinds or self.method.map_kinds)

    def tags(self, picture: AnyPicture, rule: Literal["classifier", "mask"] = "classifier") -> Tensor:
        """Classes that a picture shows, when nobody tagged it, see `views.image_tags`: 0 or 1, (1, K)."""
        return image_tags(self.method, self._whole(picture), self.compute, rule)

    def chances(self, picture: AnyPicture) -> list[float]:
        """Probability of every class to be in a picture, K numbers; none without a classifier."""
        if not self.method.map_kinds:
            return []
        return tag_chances(self.method, self._whole(picture), self.compute)[0].tolist()

    def maps(self, picture: AnyPicture, tags: Tensor | None) -> dict[str, Tensor]:
        """Class maps at the picture's own size, see `views.image_maps`.

        Args:
            picture: RGB.
            tags: Classes it is known to show, (1, K); the classifier's if None.

        Returns:
            {kind: (1, K, H, W)} float32 in [0, 1] on the device, for all K classes whether tagged or not.
        """
        images = self._whole(picture)
        made = image_maps(self.method, images, self.compute, self.use.maps, tags)
        return {kind: resize_bilinear(maps, (picture.height, picture.width)) for kind, maps in made.items()}

    def predict(
        self, picture: AnyPicture, tags: Tensor | None = None, kinds: Sequence[str] = ()
    ) -> Prediction:
        """Labels and confidence of one picture of any size.

        Args:
            picture: RGB.
            tags: Classes that may appear, 0 or 1, (1, K) on the device; any if None.
            kinds: Maps that are wanted beside the mask.
        """
        shown, maps = None, {}
        if kinds or not self.method.segments:
            images = self._whole(picture)
            shown = tags
            if shown is None:
                shown = image_tags(self.method, images, self.compute, "classifier")
            wanted = tuple(kinds) if self.method.segments else tuple(dict.fromkeys((self.kinds[0], *kinds)))
            config = self.use.maps.model_copy(update={"kinds": wanted})
            maps = image_maps(self.method, images, self.compute, config, shown)
        size = (picture.height, picture.width)
        if self.method.segments:
            mask, confidence, tiles = self._segmented(picture, tags)
        else:
            assert shown is not None
            found = self._cleaned(images, self._shares(maps[self.kinds[0]], shown), probabilities=True)
            mask, confidence, tiles = *_at(found, size), 1
        large = {kind: resize_bilinear(maps[kind], size) for kind in kinds}
        return Prediction(mask, confidence, tiles, shown, large)

    def batch(self, pictures: Sequence[AnyPicture], tags: Tensor | None) -> list[Prediction]:
        """As `predict`, for pictures of one size that go through the network together.

        Args:
            pictures: RGB; if they are longer than a tile they are taken one by one.
            tags: Classes that may appear, (B, K).
        """
        limit = min(self.tile, self.max_side or self.tile)
        if len(pictures) == 1 or max(pictures[0].size) > limit:
            rows = [None if tags is None else tags[i : i + 1] for i in range(len(pictures))]
            return [self.predict(one, row) for one, row in zip(pictures, rows, strict=True)]
        images = torch.stack([rgb_tensor(np.array(picture)) for picture in pictures])
        return [Prediction(*winner(one)) for one in self.probabilities(images, tags)]

    def probabilities(self, images: Tensor, tags: Tensor | None) -> Tensor:
        """Probability of every label at every pixel of whole images.

        Args:
            images: RGB in [0, 1], (B, 3, H, W).
            tags: Classes that may appear, 0 or 1, (B, K); any if None.

        Returns:
            (B, K + 1, H, W) float32, adding up to 1. Of methods that do not segment: the shares of the maps
            and a constant background.
        """
        images = images.to(self.compute.device)
        if self.method.segments:
            scores = image_scores(self.method, images, self.compute, self.use.views, tags)
            return self._cleaned(images, scores, self.use.views.probabilities)
        if tags is None:
            tags = image_tags(self.method, images, self.compute, "classifier")
        config = self.use.maps.model_copy(update={"kinds": self.kinds[:1]})
        maps = image_maps(self.method, images, self.compute, config, tags)[self.kinds[0]]
        return self._cleaned(images, self._shares(maps, tags), probabilities=True)

    def _shares(self, maps: Tensor, tags: Tensor) -> Tensor:
        background = torch.full_like(maps[:, :1], self.use.background)
        scores = torch.cat([background, maps * tags[:, :, None, None]], 1).clamp_min(1e-6)
        return scores / scores.sum(1, keepdim=True)

    def _cleaned(self, images: Tensor, scores: Tensor, probabilities: bool) -> Tensor:
        """Scores as probabilities; after the CRF, if there is one, the label alone has any."""
        if self.crf is None:
            return _as_shares(scores, self.use.views, probabilities)
        with torch.inference_mode():
            labels = [
                segment_by_crf(images[i : i + 1], scores[i : i + 1], self.crf, probabilities)
                for i in range(len(images))
            ]
            planes = torch.nn.functional.one_hot(torch.cat(labels), scores.shape[1])
            return planes.permute(0, 3, 1, 2).float()

    def _whole(self, picture: AnyPicture) -> Tensor:
        """The picture as a tensor (1, 3, h, w) that goes through the network in one piece."""
        small = shrunk(picture, min(self.max_side or self.tile, self.tile))
        return rgb_tensor(np.array(small))[None].to(self.compute.device)

    def _segmented(
        self, picture: AnyPicture, tags: Tensor | None
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], int]:
        size = (picture.height, picture.width)
        small = picture if self.max_side is None else shrunk(picture, self.max_side)
        if max(small.size) <= self.tile:
            return *_at(self.probabilities(rgb_tensor(np.array(small))[None], tags), size), 1
        mask, confidence, tiles = self._tiled(small, tags)
        return _nearest(mask, size), _nearest(confidence, size), tiles

    def _tiled(
        self, picture: AnyPicture, tags: Tensor | None
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], int]:
        mask = np.zeros((picture.height, picture.width), np.uint8)
        confidence = np.zeros_like(mask)

        def emit(top: int, left: int, values: Tensor) -> None:
            label, certain = winner(values)
            place = slice(top, top + label.shape[0]), slice(left, left + label.shape[1])
            mask[place], confidence[place] = label, certain

        return mask, confidence, self.by_tiles(picture, tags, emit)

    def by_tiles(
        self, picture: AnyPicture, tags: Tensor | None, emit: Emit, wanted: Wanted | None = None
    ) -> int:
        """Probabilities of a picture of any size, handed out part by part in bounded memory.

        Args:
            picture: What to look at; only parts of it are asked for.
            tags: Classes that may appear, 0 or 1, (1, K); any if None.
            emit: Takes (top, left, probabilities (K + 1, h, w)); the parts cover every pixel once.
            wanted: Whether a tile (top, left, height, width) is looked at; others are background unseen.

        Returns:
            How many tiles were looked at.
        """
        sides = picture.height, picture.width
        rows, columns = (tile_spans(side, self.tile, self.overlap) for side in sides)

        def cut(top: int, left: int, height: int, width: int) -> Tensor:
            return rgb_tensor(np.array(picture.crop((left, top, left + width, top + height))))

        def run(images: Tensor) -> Tensor:
            return self.probabilities(images, None if tags is None else tags.expand(len(images), -1))

        background = torch.eye(self.method.num_classes + 1, device=self.compute.device)[0]
        fn, look, count = skipping(run, cut, wanted, background)
        join_tiles(fn, look, emit, rows, columns, self.batch_size)
        return count()


def picture_of(images: Tensor) -> AnyPicture:
    """The picture that a reader made an image tensor of: RGB in [0, 1], (1, 3, H, W), or of more bands."""
    return as_picture((images[0] * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy())


def _as_shares(scores: Tensor, views: SegmentationViews, probabilities: bool) -> Tensor:
    """Scores of merged views as probabilities; the strongest label stays the strongest."""
    if probabilities:
        scores = scores.clamp_min(0)
        return scores / scores.sum(1, keepdim=True).clamp_min(1e-12)
    count = (2 if views.flip == "sum" else 1) * (len(views.scales) if views.merge == "sum" else 1)
    return (scores / count).softmax(1)


def _at(probabilities: Tensor, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Labels and confidence at a size, from probabilities (1, C, h, w) of the same or a smaller one."""
    if probabilities.shape[1] * size[0] * size[1] <= _LARGEST:
        return winner(resize_bilinear(probabilities, size)[0])
    mask, confidence = winner(probabilities[0])
    return _nearest(mask, size), _nearest(confidence, size)


def _nearest(plane: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    if plane.shape == size:
        return plane
    return np.array(Image.fromarray(plane).resize((size[1], size[0]), Image.Resampling.NEAREST))


def winner(probabilities: Tensor) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Labels and confidence (H, W) uint8 of probabilities (C, H, W)."""
    value, label = probabilities.max(0)
    certain = (value.clamp(0, 1) * 255).round()
    return label.to(torch.uint8).cpu().numpy(), certain.to(torch.uint8).cpu().numpy()

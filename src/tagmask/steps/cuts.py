"""Which maps, cut where, become labels: found from the images and their tags, without a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from tagmask.data import TagDataset
from tagmask.data.loader import eval_images
from tagmask.errors import ConfigError
from tagmask.ops.boundary import colour_steps, cut_evidence
from tagmask.store.files import file_for
from tagmask.store.maps import load_maps

__all__ = [
    "NO_BACKGROUND",
    "THRESHOLDS",
    "Cut",
    "find_cut",
    "outline_evidence",
    "shrunk",
    "some_tagged",
    "tightest_peak",
]

THRESHOLDS = tuple(round(0.02 * step, 2) for step in range(5, 49))
"""0.10 to 0.96; lower or higher ones would make all or nothing of an image a class."""
NO_BACKGROUND = 0.03
"""Evidence below this says that the maps' outlines follow nothing in the images at any threshold."""
_SIDE = 64
_CLEARLY = 1.5
_NEAR = 3
"""Thresholds to each side that a peak is higher than."""


@dataclass(frozen=True)
class Cut:
    """Where to cut maps.

    Attributes:
        kind: Kind of maps.
        threshold: Values above it belong to the class; 0 if the images show no background.
        evidence: Mean over images and their classes of `cut_evidence` at the threshold.
        images: How many tagged images were looked at.
        found: Best threshold and its evidence for every kind that was looked at.
    """

    kind: str
    threshold: float
    evidence: float
    images: int
    found: dict[str, tuple[float, float]]

    @property
    def background(self) -> bool:
        """Whether there is anything to cut off."""
        return self.threshold > 0

    def reasons(self) -> list[str]:
        """The decision in words, a line each."""
        told = ", ".join(f"{kind} {value:.2f} at {at:.2f}" for kind, (at, value) in self.found.items())
        first = f"maps {self.kind}: edge evidence on {self.images} images: {told}"
        if self.background:
            return [first, f"threshold {self.threshold:.2f}: there the outlines follow edges best"]
        return [first, f"no background: no outline follows edges (all below {NO_BACKGROUND})"]


def find_cut(dataset: TagDataset, folder: Path, kinds: Sequence[str], limit: int = 120) -> Cut:
    """Choose the kind of maps and the threshold whose outlines follow the edges of the images best.

    The first kind wins unless another has half as much evidence again: evidence says well where to cut maps
    of one kind, less well which kind to cut.

    Args:
        dataset: Images whose maps are there.
        folder: ``maps``, with a folder for every kind.
        kinds: Kinds to choose from, the preferred one first.
        limit: How many images with tags to look at, evenly drawn.

    Raises:
        ConfigError: No image has a tag.
        DataError: An image or a map cannot be read.
    """
    images = some_tagged(dataset, limit)
    totals = {kind: torch.zeros(len(THRESHOLDS)) for kind in kinds}
    count = 0
    for _, batch in eval_images(images):
        small = shrunk(batch.images)
        steps = colour_steps(small[0])
        for kind in kinds:
            maps = load_maps(file_for(folder / kind, batch.names[0], ".npz"), dataset.num_classes)
            totals[kind] += _evidence(torch.from_numpy(maps.maps).float(), steps, small.shape[-2:])
        count += int(batch.tags.sum())
    return _decide({kind: total / max(1, count) for kind, total in totals.items()}, len(images))


def some_tagged(dataset: TagDataset, limit: int) -> TagDataset:
    """At most `limit` of the images that have a tag, evenly drawn.

    Raises:
        ConfigError: No image has a tag.
    """
    tagged = [i for i in range(len(dataset)) if dataset.has_tags(i) and bool(dataset.tags(i).any())]
    if not tagged:
        raise ConfigError("no image has a tag, so no threshold can be found; set refine.fit=false")
    count = min(limit, len(tagged))
    return dataset.subset(tagged[i * len(tagged) // count] for i in range(count))


def outline_evidence(cut: Tensor, images: Tensor) -> float:
    """Evidence of one outline, see `cut_evidence`.

    Args:
        cut: 1 inside and 0 outside, (H, W).
        images: The image, (1, C, H, W).
    """
    small = shrunk(images)
    size = (small.shape[2], small.shape[3])
    inside = F.interpolate(cut[None, None].float(), size, mode="area")[0, 0]
    return float(cut_evidence(inside, colour_steps(small[0]), cut.new_tensor([0.5]).float())[0])


def shrunk(images: Tensor, side: int = _SIDE) -> Tensor:
    """Images (B, C, H, W) with a longer side of at most `side`: coarse enough to hide noise and speckle."""
    height, width = images.shape[-2:]
    factor = side / max(height, width)
    if factor >= 1:
        return images
    size = (max(2, round(height * factor)), max(2, round(width * factor)))
    return F.interpolate(images, size, mode="bilinear", antialias=True)


def _evidence(maps: Tensor, steps: tuple[Tensor, Tensor], size: Sequence[int]) -> Tensor:
    if not len(maps):
        return torch.zeros(len(THRESHOLDS))
    small = F.interpolate(maps[None], (int(size[0]), int(size[1])), mode="bilinear")[0]
    thresholds = torch.tensor(THRESHOLDS)
    return torch.stack([cut_evidence(own, steps, thresholds) for own in small]).sum(0)


def tightest_peak(curve: Tensor) -> int:
    """Where to cut: the highest peak, or one at a higher threshold that is nearly as high.

    A wide cut may follow the outline of what surrounds the thing (the shadow below a tumour), a tight one
    its own. So of peaks within a tenth of the highest, the tightest counts.

    Args:
        curve: Evidence by ascending threshold, (T,).

    Returns:
        Index into the curve.
    """
    window = 2 * _NEAR + 1
    padded = F.pad(curve[None, None], (_NEAR, _NEAR), value=-float("inf"))
    peaks = curve == F.max_pool1d(padded, window, stride=1)[0, 0]
    top = curve.max()
    high = curve >= (top if top <= 0 else 0.9 * top)
    return int((peaks & high).nonzero().max())


def _decide(curves: dict[str, Tensor], images: int) -> Cut:
    found = {}
    for kind, curve in curves.items():
        best = tightest_peak(curve)
        found[kind] = (THRESHOLDS[best], float(curve[best]))
    kind = next(iter(found))
    for other, (_, value) in found.items():
        if value > _CLEARLY * max(found[kind][1], 0.0) and value >= NO_BACKGROUND:
            kind = other
    threshold, evidence = found[kind]
    return Cut(kind, threshold if evidence >= NO_BACKGROUND else 0.0, evidence, images, found)

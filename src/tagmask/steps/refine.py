"""Class maps on disk to pseudo labels on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from tagmask import methods
from tagmask.config import Config
from tagmask.data import TagDataset
from tagmask.data.loader import eval_images
from tagmask.data.parts import Part
from tagmask.engine.lanes import lanes_for
from tagmask.errors import DataError
from tagmask.inference.crf import CRFName, crf_preset, refine_by_crf
from tagmask.ops.labels import labels_from_maps, labels_with_ignore, refine_labels
from tagmask.ops.pixel_refinement import PAR_DILATIONS, par
from tagmask.steps.base import Context, Step, data_checksum, each_image, with_maps
from tagmask.steps.cuts import Cut, find_cut, outline_evidence, some_tagged
from tagmask.store.files import file_for
from tagmask.store.labels import write_mask
from tagmask.store.maps import load_maps
from tagmask.types import Batch

__all__ = ["REFINE", "RefineConfig", "image_labels", "labels_of_fit", "refine"]

_COMPARED = 40
_GROWN = 1.1
_HALVINGS = 5
_CLEARLY = 1.03
"""How much more evidence refinement at the smaller size needs."""

_Look = Callable[["RefineConfig"], tuple[float, float]]
"""Mean share of an image that labels cover with some settings, and mean edge evidence."""


class RefineConfig(Config):
    """Which maps become labels, and how."""

    split: Part = "auto"
    """Images to label: train, val, both, or auto for val if there is one."""
    maps: str = "cam"
    """Kind of maps to start from."""
    fit: bool = False
    """Find kind of maps and thresholds from the images and their tags, without masks: where the outlines of
    the maps follow edges of the images best (see `tagmask.steps.cuts`). `maps` is then the preferred kind;
    `background`, `high` and `low` are not used."""
    method: Literal["par", "crf", "none"] = "par"
    """How labels follow the image: par (pixel-adaptive refinement), crf, or none (thresholds alone)."""
    background: float | None = Field(default=None, ge=0, le=1)
    """One threshold: values up to it are background, nothing is left undecided."""
    high: float = Field(default=0.7, ge=0, le=1)
    """Where no single threshold is given: only above it is a pixel of a class."""
    low: float = Field(default=0.25, ge=0, le=1)
    """Where no single threshold is given: up to it a pixel is background; between, undecided (255)."""
    iterations: int = Field(default=10, ge=0)
    """Steps of pixel-adaptive refinement."""
    shrink: int = Field(default=2, ge=1)
    """Pixel-adaptive refinement runs at 1/shrink of the size."""
    crf: CRFName = "more_seeds"
    """Parameters of the CRF by name: psa_softmax, label_50_5, more_seeds, afa, weaktr_voc, ..."""
    power: float | tuple[float, float] | None = None
    """In the CRF, background is (1 - largest map) to this power instead of a constant. Two powers take the
    place of high and low: foreground by the small one, background by the large one (MCTformer 1 and 12)."""

    @model_validator(mode="after")
    def _ordered(self) -> RefineConfig:
        if self.low > self.high:
            raise ValueError(f"refine.low {self.low} is above refine.high {self.high}")
        powers = self.power if isinstance(self.power, tuple) else (self.power or 1.0,)
        if min(powers) <= 0 or list(powers) != sorted(powers):
            raise ValueError(f"refine.power must be positive, the small one first, got {self.power}")
        return self


@dataclass(frozen=True)
class _Plan:
    """What is known to be possible before the first label is written."""

    config: RefineConfig
    source: Path
    dataset: TagDataset
    cut: Cut | None = None


def _check(config: RefineConfig, context: Context) -> None:
    context.data.open(config.split)


def _needless(context: Context) -> str | None:
    made = methods.get(context.settings.method).map_kinds
    return None if made else f"{context.settings.method} makes no maps"


def _reads(config: RefineConfig, context: Context) -> dict[str, Any]:
    maps = context.manifest.checksum(context.folder / "maps")
    return {"maps": maps, "data": data_checksum(context, config.split)}


def _prepare(config: RefineConfig, context: Context) -> _Plan:
    source = context.folder / "maps" / config.maps
    dataset = with_maps(context.data.open(config.split), source, "refine.maps")
    if not config.fit:
        return _Plan(config, source, dataset)
    others = sorted(path.name for path in source.parent.iterdir() if path.is_dir() and path != source)
    cut = find_cut(dataset, source.parent, (config.maps, *others))
    for line in cut.reasons():
        context.display.say(f"refine: {line}")
    source = source.parent / cut.kind
    dataset = with_maps(dataset, source, "refine.maps")
    return _Plan(_refiner(_fitted(config, cut), dataset, source, context), source, dataset, cut)


def _refiner(config: RefineConfig, dataset: TagDataset, source: Path, context: Context) -> RefineConfig:
    """Refine only where outlines then follow edges better than the plain cut does: hairlines may drown.

    Refinement shrinks what stands out little, so the background plane is lowered until masks have the size
    that the threshold gave them, and a little more: it was chosen tight. It is tried at 1/shrink of the size
    and at twice that, since its reach is in pixels.
    """
    if config.method == "none":
        return config
    images = some_tagged(dataset, _COMPARED)

    def look(way: RefineConfig) -> tuple[float, float]:
        shares, evidence = [], []
        for _, batch in eval_images(images):  # read anew each time: large images would fill the memory
            batch = batch.to(context.runtime.device)
            inside = (_labels(batch, source, dataset.num_classes, way)[0] > 0).float()
            shares.append(float(inside.mean()))
            evidence.append(outline_evidence(inside, batch.images))
        return sum(shares) / len(shares), sum(evidence) / len(evidence)

    plain = config.model_copy(update={"method": "none"})
    share, edges = look(plain)
    best, refined = _at_its_size(config, _GROWN * share, look)
    told = f"edge evidence {refined:.3f} from background {best.background:.2f} on, {edges:.3f} with none"
    if best.shrink != config.shrink:
        told += f", at 1/{best.shrink} of the size"
    context.display.say(f"refine: method {config.method}: {told}")
    return best if refined >= edges else plain


def labels_of_fit(config: RefineConfig) -> list[tuple[int, RefineConfig]]:
    """How many labels a fit makes before the first that is kept, and with which settings; to plan its time.

    Args:
        config: Settings with `fit`.
    """
    coarse = config.model_copy(update={"background": 0.5, "fit": False})
    if config.method == "none":
        return []
    if config.shrink == 1:
        return [(_COMPARED * _HALVINGS, coarse)]
    return [(_COMPARED * _HALVINGS, coarse), (_COMPARED * (_HALVINGS - 2), _finer(coarse))]


def _finer(config: RefineConfig) -> RefineConfig:
    return config.model_copy(update={"shrink": (config.shrink + 1) // 2})


def _at_its_size(config: RefineConfig, share: float, look: _Look) -> tuple[RefineConfig, float]:
    """As `_sized_alike`, at 1/shrink of the size or at twice that.

    The finer one loses less of what is thin, the coarser one reaches farther.
    """
    coarse, reached = _sized_alike(config, (0.0, config.background or 0.0), share, look)
    if config.shrink == 1:
        return coarse, reached
    between = (coarse.background or 0.0, config.background or 0.0)  # finer, it shrinks masks less
    fine, kept = _sized_alike(_finer(config), between, share, look, _HALVINGS - 2)
    return (fine, kept) if _CLEARLY * kept >= reached else (coarse, reached)


def _sized_alike(
    config: RefineConfig,
    between: tuple[float, float],
    share: float,
    look: _Look,
    halvings: int = _HALVINGS,
) -> tuple[RefineConfig, float]:
    """The settings whose labels cover about this share of the images, and their evidence."""
    low, high = between
    found: list[tuple[float, RefineConfig, float]] = []
    for _ in range(halvings):
        middle = round((low + high) / 2, 3)
        way = config.model_copy(update={"background": middle})
        size, evidence = look(way)
        found.append((abs(size - share), way, evidence))
        low, high = (middle, high) if size > share else (low, middle)
    _, best, evidence = min(found, key=lambda own: own[0])
    return best, evidence


def _fitted(config: RefineConfig, cut: Cut) -> RefineConfig:
    """The settings with what was found: one cut, nothing left undecided."""
    method = config.method if cut.background else "none"  # without a background, the strongest class
    return config.model_copy(update={"maps": cut.kind, "background": cut.threshold, "method": method})


def refine(plan: _Plan, context: Context) -> dict[str, Any]:
    """Write a pseudo label for every image that has maps to ``labels/<name>.png``, 255 where undecided.

    Args:
        plan: What `REFINE.prepare` gave.
        context: The run; images whose label is there and whole are left alone.

    Returns:
        Figures worth keeping: images, the part.

    Raises:
        Stopped: A stop signal came; finished images are kept.
        UserError: Maps are damaged, or an image cannot be read.
    """
    config, dataset, folder = plan.config, plan.dataset, context.out / "labels"
    palette = dataset.classes.palette

    def work(index: int, batch: Batch) -> None:
        labels = _labels(batch, plan.source, dataset.num_classes, config)
        write_mask(
            file_for(folder, batch.names[0], ".png"), labels[0].cpu().numpy().astype(np.uint8), palette
        )

    lanes = lanes_for(context.runtime.device)
    each_image(context, dataset, "refine", lambda name: [file_for(folder, name, ".png")], work, lanes)
    made: dict[str, Any] = {"images": len(dataset), "split": dataset.split}
    if plan.cut is not None:
        made["fitted"] = {
            "maps": config.maps,
            "method": config.method,
            "threshold": plan.cut.threshold,
            "background": config.background,
            "shrink": config.shrink,
            "evidence": round(plan.cut.evidence, 4),
            "found": {kind: list(pair) for kind, pair in plan.cut.found.items()},
        }
    return made


def _labels(batch: Batch, source: Path, num_classes: int, config: RefineConfig) -> Tensor:
    """Labels (1, H, W) of a batch of one from its maps on disk."""
    name, (height, width) = batch.names[0], batch.images.shape[2:]
    loaded = load_maps(file_for(source, name, ".npz"), num_classes)
    if loaded.maps.shape[1:] != (height, width):
        raise DataError(f"the maps of '{name}' are not of the image's size; localize it again")
    maps = torch.from_numpy(loaded.maps)[None].to(batch.images.device)
    keys = torch.from_numpy(loaded.keys)[None].to(batch.images.device)
    if not len(loaded.keys):
        return maps.new_zeros(1, height, width)
    return image_labels(batch.images, maps, keys, config)


def image_labels(images: Tensor, maps: Tensor, keys: Tensor, config: RefineConfig) -> Tensor:
    """Labels from the maps of the classes in one image.

    Args:
        images: RGB in [0, 1], (1, 3, H, W).
        maps: (1, n, H, W) in [0, 1], n at least 1.
        keys: 0-based class of each map, int64, (1, n).
        config: How.

    Returns:
        (1, H, W) int64: 0 background, k + 1 class k, 255 undecided.
    """
    present = torch.ones_like(keys)
    high = low = config.background
    if high is None or low is None:
        high, low = config.high, config.low
    if config.method == "crf":
        levels = (high, low) if config.background is None else (high,)
        powers = (config.power,) if isinstance(config.power, float | int) else config.power
        return refine_by_crf(images, maps, keys, levels, powers, crf_preset(config.crf))
    if config.method == "par":
        spread = partial(par, dilations=PAR_DILATIONS, iterations=config.iterations)
        return refine_labels(images, maps, present, high, low, spread, keys=keys, shrink=config.shrink)
    if config.background is not None:
        return labels_from_maps(maps, present, config.background, keys=keys)
    return labels_with_ignore(maps, present, high, low, keys=keys)


REFINE = Step(
    "refine",
    writes=("labels",),
    reads=_reads,
    prepare=_prepare,
    work=refine,
    check=_check,
    needless=_needless,
    smaller="Take refine.method=none, or smaller images",
    by_hand=True,
)
"""Class maps to pseudo labels."""

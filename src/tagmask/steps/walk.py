"""Class maps on disk spread along learned affinities: the random walk of PSA, to labels on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from tagmask.config import Config
from tagmask.data import TagDataset
from tagmask.data.parts import Part
from tagmask.errors import ConfigError, DataError
from tagmask.inference.crf import CRFName, clean_labels, crf_preset
from tagmask.ops.labels import strongest
from tagmask.ops.maps import with_background
from tagmask.steps.base import Context, Step, data_checksum, each_image, with_maps
from tagmask.store.files import file_for
from tagmask.store.labels import write_mask
from tagmask.store.maps import load_maps
from tagmask.types import Batch

__all__ = ["WALK", "WalkConfig", "walk"]


class WalkConfig(Config):
    """How maps walk; the defaults are those of MCTformer and AReAM."""

    split: Part = "auto"
    """Images to label: train, val, both, or auto for val if there is one."""
    maps: str = "cam"
    """Kind of maps to start from."""
    background: float = Field(default=0.39, ge=0, le=1)
    """Constant score of the background; TransCAM 0.42."""
    power: float | None = Field(default=None, gt=0)
    """If set, background is (1 - largest map) to this power instead; PSA 16."""
    beta: float = Field(default=8.0, gt=0)
    """Power of the affinities: large values suppress weak ones. TransCAM 14."""
    steps: int = Field(default=64, ge=0)
    """Length of the walk; PSA 256, TransCAM 128."""
    edges: Literal["published", "full"] = "published"
    """Pairs at the border: as published, where three corners have none, or all."""
    crf: CRFName | None = None
    """Clean the labels afterwards by a CRF on labels of this name; TransCAM label_50_5."""

    @model_validator(mode="after")
    def _on_labels(self) -> WalkConfig:
        if self.crf is not None and crf_preset(self.crf).unary != "labels":
            raise ValueError(f"walk.crf '{self.crf}' cleans soft scores; label_50_5 and others clean labels")
        return self


@dataclass(frozen=True)
class _Plan:
    """What is known to be possible before the first label is written."""

    config: WalkConfig
    method: Any
    source: Path
    dataset: TagDataset


def _check(config: WalkConfig, context: Context) -> None:
    if context.settings.affinity is None:
        raise ConfigError("this run has no affinity; choose a recipe with one, or set affinity.method")
    context.data.open(config.split)


def _needless(context: Context) -> str | None:
    return None if context.settings.affinity is not None else ""


def _reads(config: WalkConfig, context: Context) -> dict[str, Any]:
    return {
        "maps": context.manifest.checksum(context.folder / "maps"),
        "model": context.models.checksum("affinity"),
        "data": data_checksum(context, config.split),
    }


def _prepare(config: WalkConfig, context: Context) -> _Plan:
    trained = context.models.get("affinity")
    if not hasattr(trained.method, "walk"):
        raise ConfigError(f"{trained.name} learns no affinities; walk with affinity_net")
    source = context.folder / "maps" / config.maps
    dataset = with_maps(context.data.open(config.split), source, "walk.maps")
    return _Plan(config, trained.method, source, dataset)


def walk(plan: _Plan, context: Context) -> dict[str, Any]:
    """Write the label of every image that has maps to ``walks/<name>.png``.

    Args:
        plan: What `WALK.prepare` gave.
        context: The run; images whose label is there and whole are left alone.

    Returns:
        Figures worth keeping: images, the part.

    Raises:
        Stopped: A stop signal came; finished images are kept.
        UserError: Maps are damaged, or an image cannot be read.
    """
    config, dataset, folder = plan.config, plan.dataset, context.out / "walks"
    method = plan.method.to(context.runtime.device)
    crf, palette = crf_preset(config.crf) if config.crf else None, dataset.classes.palette

    def work(index: int, batch: Batch) -> None:
        name = batch.names[0]
        loaded = load_maps(file_for(plan.source, name, ".npz"), dataset.num_classes)
        if loaded.maps.shape[1:] != tuple(batch.images.shape[2:]):
            raise DataError(f"the maps of '{name}' are not of the image's size; localize it again")
        maps = torch.from_numpy(loaded.maps).to(batch.images.device)
        labels = _walked(method, batch.images[0], maps, config)
        names = torch.from_numpy(np.concatenate([[0], loaded.keys + 1])).to(labels.device)
        labels = names[labels]
        if crf is not None:
            labels = clean_labels(batch.images, labels, dataset.num_classes + 1, crf)
        write_mask(file_for(folder, name, ".png"), labels.cpu().numpy().astype(np.uint8), palette)

    each_image(context, dataset, "walk", lambda name: [file_for(folder, name, ".png")], work)
    return {"images": len(dataset), "split": dataset.split}


def _walked(method: Any, image: Tensor, maps: Tensor, config: WalkConfig) -> Tensor:
    """Place of the winner among background and maps, (H, W)."""
    if not len(maps):
        return maps.new_zeros(image.shape[1:], dtype=torch.int64)
    scores = with_background(maps, config.background, config.power)
    walked: Tensor = method.walk(image, scores, config.beta, config.steps, config.edges == "full")
    return strongest(walked, 0)


WALK = Step(
    "walk",
    writes=("walks",),
    reads=_reads,
    prepare=_prepare,
    work=walk,
    check=_check,
    needless=_needless,
    smaller="Its pairs grow with the square of the pixels: take smaller images",
    by_hand=True,
)
"""Class maps, spread along learned affinities, to labels."""

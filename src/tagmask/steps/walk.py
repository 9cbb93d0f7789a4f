"""Class maps on disk spread along learned affinities: the random walk of PSA, to labels on disk."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tagmask.config import Config
from tagmask.data.parts import Part, open_part
from tagmask.errors import ConfigError, DataError
from tagmask.inference.crf import clean_labels, crf_preset
from tagmask.models.trained import Trained
from tagmask.ops.labels import strongest
from tagmask.ops.maps import with_background
from tagmask.steps.base import Context, each_image
from tagmask.store.files import file_for
from tagmask.store.labels import write_mask
from tagmask.store.maps import load_maps
from tagmask.types import Batch

__all__ = ["WalkConfig", "walk"]


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
    """Power of the affinities: large values silence weak ones. TransCAM 14."""
    steps: int = Field(default=64, ge=0)
    """Length of the walk; PSA 256, TransCAM 128."""
    edges: Literal["published", "full"] = "published"
    """Pairs at the border: as published, where three corners have none, or all."""
    crf: str | None = None
    """Clean the labels afterwards by a CRF on labels of this name; TransCAM label_50_5."""


def walk(config: WalkConfig, context: Context, trained: Trained) -> dict[str, Any]:
    """Write the label of every image that has maps to ``walks/<name>.png``.

    Args:
        config: How.
        context: The run; reads ``maps/<kind>/``; images whose label is there are left alone.
        trained: An affinity network.

    Returns:
        Figures worth keeping: images, the part.

    Raises:
        Stopped: A stop signal came; finished images are kept.
        UserError: Maps are missing or damaged, or the model has no affinities.
    """
    method: Any = trained.method.to(context.runtime.device)
    if not hasattr(method, "walk"):
        raise ConfigError(f"{trained.name} learns no affinities; walk with affinity_net")
    source, folder = context.folder / "maps" / config.maps, context.folder / "walks"
    if not source.is_dir():
        raise ConfigError(
            f"no maps of kind '{config.maps}' in {source.parent}; run localize, or set walk.maps"
        )
    dataset = open_part(context.data, config.split)
    dataset = dataset.subset(i for i, n in enumerate(dataset.names) if file_for(source, n, ".npz").exists())
    crf, palette = crf_preset(config.crf) if config.crf else None, dataset.classes.palette
    if crf is not None and crf.unary != "labels":
        raise ConfigError(f"walk.crf '{config.crf}' cleans soft scores; label_50_5 and its kin clean labels")

    def work(index: int, batch: Batch) -> None:
        name = batch.names[0]
        loaded = load_maps(file_for(source, name, ".npz"))
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

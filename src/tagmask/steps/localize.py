"""Images to class maps on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from tagmask import methods
from tagmask.data import TagDataset
from tagmask.data.parts import Part
from tagmask.engine.lanes import lanes_for
from tagmask.errors import ConfigError, DataError
from tagmask.inference.predictor import Predictor, Use, picture_of
from tagmask.inference.views import MapConfig, map_kinds, map_views
from tagmask.models.trained import Trained
from tagmask.ops.maps import present_classes, take_classes
from tagmask.steps.base import Context, Step, data_checksum, each_image, plain
from tagmask.steps.models import Settings
from tagmask.store.files import file_for
from tagmask.store.maps import save_maps
from tagmask.types import Batch

__all__ = ["LOCALIZE", "LocalizeConfig", "localize"]


class LocalizeConfig(MapConfig):
    """Which images, whose tags, which maps."""

    split: Part = "auto"
    """Images to localize in: train, val, both, or auto for val if there is one."""
    tags: Literal["dataset", "classifier", "mask"] = "dataset"
    """Whose tags decide which maps are kept: the data set's, or predicted ones (classifier or mask first)."""
    half: bool = True
    """Store float16; false stores float32, for exact comparisons."""
    limit: int | None = Field(default=None, ge=1)
    """Use only this many images, from the first on."""


@dataclass(frozen=True)
class _Plan:
    """What is known to be possible before the first map is written."""

    config: LocalizeConfig
    trained: Trained
    dataset: TagDataset
    kinds: tuple[str, ...]


def _check(config: LocalizeConfig, context: Context) -> None:
    kind = methods.get(context.settings.method)
    if kind.map_kinds:
        map_kinds(kind, config.kinds)
    _tagged(config, context.data.open(config.split))


def _needless(context: Context) -> str | None:
    made = methods.get(context.settings.method).map_kinds
    return None if made else f"{context.settings.method} makes no maps"


def _reads(config: LocalizeConfig, context: Context) -> dict[str, Any]:
    return {"model": context.models.checksum(), "data": data_checksum(context, config.split)}


def _prepare(config: LocalizeConfig, context: Context) -> _Plan:
    trained, dataset = context.models.get(), context.data.open(config.split)
    if dataset.classes != trained.classes:
        raise DataError(
            f"the model knows {', '.join(trained.classes.names)}, the data set "
            f"{', '.join(dataset.classes.names)}; they must be the same classes in the same order"
        )
    if config.limit is not None and config.limit < len(dataset):
        dataset = dataset.subset(range(config.limit))
    _tagged(config, dataset)
    kinds = map_kinds(trained.method, config.kinds)
    if not kinds:
        raise ConfigError(f"{trained.name} makes no class maps; leave out the step localize")
    return _Plan(config, trained, dataset, kinds)


def _tagged(config: LocalizeConfig, dataset: TagDataset) -> None:
    count = len(dataset) if config.limit is None else min(config.limit, len(dataset))
    untagged = next((i for i in range(count) if not dataset.has_tags(i)), None)
    if config.tags == "dataset" and untagged is not None:
        raise DataError(
            f"'{dataset.names[untagged]}' has no tags; give them with --tags, or let the model predict them "
            "(--set localize.tags=classifier)"
        )


def localize(plan: _Plan, context: Context) -> dict[str, Any]:
    """Write the maps of the present classes of every image to ``maps/<kind>/<name>.npz``.

    Args:
        plan: What `LOCALIZE.prepare` gave.
        context: The run; images whose maps are there and whole are left alone.

    Returns:
        Figures worth keeping: images, kinds, the part.

    Raises:
        Stopped: A stop signal came; finished images are kept.
        UserError: An image cannot be read.
    """
    config, trained, dataset, kinds = plan.config, plan.trained, plan.dataset, plan.kinds
    predictor = Predictor.of(trained, context.runtime, Use(maps=config))
    folder = context.out / "maps"

    def work(index: int, batch: Batch) -> None:
        picture = picture_of(batch.images)
        tags = batch.tags if config.tags == "dataset" else predictor.tags(picture, config.tags)
        maps = predictor.maps(picture, tags)
        keys, valid = present_classes(tags)
        chosen = keys[0][valid[0]]
        for kind in kinds:
            own = take_classes(maps[kind], chosen[None])[0].float().cpu().numpy()
            if not np.isfinite(own).all():
                raise DataError(
                    f"the {kind} maps of '{batch.names[0]}' are not finite: the model is broken; train again"
                )
            path = file_for(folder / kind, batch.names[0], ".npz")
            save_maps(path, own, chosen.cpu().numpy(), own.shape[-2:], config.half)

    def outputs(name: str) -> list[Path]:
        return [file_for(folder / kind, name, ".npz") for kind in kinds]

    each_image(context, dataset, "localize", outputs, work, lanes_for(context.runtime.device, trained.method))
    views = map_views(trained.method, config)
    return {"images": len(dataset), "split": dataset.split, "kinds": list(kinds), "views": views}


def _decides(config: LocalizeConfig, settings: Settings) -> dict[str, Any]:
    return {**plain(config), "precision": settings.runtime.precision}


LOCALIZE = Step(
    "localize",
    writes=("maps",),
    reads=_reads,
    prepare=_prepare,
    work=localize,
    check=_check,
    needless=_needless,
    decides=_decides,
    smaller="Lower localize.size or leave out the largest of localize.scales, or use --precision bf16",
)
"""Images to class maps."""

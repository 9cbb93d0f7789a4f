"""Images to class maps on disk."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from tagmask.data.parts import Part, open_part
from tagmask.errors import ConfigError, DataError
from tagmask.inference.views import MapConfig, image_maps, image_tags, map_kinds, map_views
from tagmask.models.trained import Trained
from tagmask.ops.maps import present_classes, take_classes
from tagmask.steps.base import Context, each_image
from tagmask.store.files import file_for
from tagmask.store.maps import save_maps
from tagmask.types import Batch

__all__ = ["LocalizeConfig", "localize"]


class LocalizeConfig(MapConfig):
    """Which images, whose tags, which maps."""

    split: Part = "auto"
    """Images to localize in: train, val, both, or auto for val if there is one."""
    tags: Literal["dataset", "classifier", "mask"] = "dataset"
    """Whose tags decide which maps are kept: the data set's, or predicted ones (classifier or mask first)."""
    half: bool = True
    """Store float16; false stores float32, for exact comparisons."""
    limit: int | None = Field(default=None, ge=1)
    """Only so many images, from the first."""


def localize(config: LocalizeConfig, context: Context, trained: Trained) -> dict[str, Any]:
    """Write the maps of the present classes of every image to ``maps/<kind>/<name>.npz``.

    Args:
        config: How.
        context: The run; images whose maps are there are left alone.
        trained: The method.

    Returns:
        Figures worth keeping: images, kinds, the part.

    Raises:
        Stopped: A stop signal came; finished images are kept.
        UserError: The images, tags or settings do not allow it.
    """
    dataset = open_part(context.data, config.split)
    if dataset.classes != trained.classes:
        raise DataError(
            f"the model knows {', '.join(trained.classes.names)}, the data set "
            f"{', '.join(dataset.classes.names)}; they must be the same classes in the same order"
        )
    if config.limit is not None and config.limit < len(dataset):
        dataset = dataset.subset(range(config.limit))
    method, runtime = trained.method.to(context.runtime.device), context.runtime
    kinds = map_kinds(method, config.kinds)
    if not kinds:
        raise ConfigError(f"{trained.name} makes no class maps; leave out the step localize")
    folder = context.folder / "maps"

    def work(index: int, batch: Batch) -> None:
        tags = _tags(config, dataset.has_tags(index), batch, trained, context)
        maps = image_maps(method, batch.images, runtime, config, tags)
        keys, valid = present_classes(tags)
        chosen = keys[0][valid[0]]
        for kind in kinds:
            own = take_classes(maps[kind], chosen[None])[0].float().cpu().numpy()
            path = file_for(folder / kind, batch.names[0], ".npz")
            save_maps(path, own, chosen.cpu().numpy(), own.shape[-2:], config.half)

    each_image(
        context, dataset, "localize", lambda name: [file_for(folder / k, name, ".npz") for k in kinds], work
    )
    views = map_views(method, config)
    return {"images": len(dataset), "split": dataset.split, "kinds": list(kinds), "views": views}


def _tags(config: LocalizeConfig, tagged: bool, batch: Batch, trained: Trained, context: Context) -> Tensor:
    if config.tags != "dataset":
        return image_tags(trained.method, batch.images, context.runtime, config.tags)
    if not tagged:
        raise DataError(
            f"'{batch.names[0]}' has no tags; give them with --tags, or let the model predict them "
            "(--set localize.tags=classifier)"
        )
    return batch.tags

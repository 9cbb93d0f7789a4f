"""What a training needs before its first update: looked at, built and loaded, and nothing written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagmask import methods
from tagmask.backbones.bands import with_bands
from tagmask.data import TagDataset
from tagmask.data.loader import TrainBatches, train_batches
from tagmask.data.parts import Part
from tagmask.data.shared_memory import check_room
from tagmask.data.transforms.banded import for_bands
from tagmask.data.transforms.base import make_view
from tagmask.engine.runtime import Runtime
from tagmask.errors import ConfigError, DataError, nearest
from tagmask.inference.views import map_kinds
from tagmask.methods.base import Method
from tagmask.models.trained import build_method
from tagmask.steps.base import Context
from tagmask.training.checkpoints import Checkpoints
from tagmask.training.config import TrainConfig
from tagmask.training.corrections import (
    BothBatches,
    Corrections,
    begin_from,
    corrected_images,
    may_teach,
    steps_before,
)
from tagmask.training.tag_scores import can_classify

__all__ = [
    "Job",
    "Plan",
    "check_training",
    "draw_batches",
    "kept_aside",
    "prepare_training",
    "read_corrections",
    "share_batch",
    "taught_part",
    "true_masks",
]


@dataclass(frozen=True)
class Job:
    """A method to fit, and how.

    Attributes:
        config: How long, on what views.
        name: The method's key.
        model: The method's settings.
        use: How the model will be used, for its header.
    """

    config: TrainConfig
    name: str
    model: Mapping[str, Any]
    use: Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is known to be possible before the first update: everything is built and loaded."""

    job: Job
    method: Method
    dataset: TagDataset
    view: Any
    truth: TagDataset | None
    newest: tuple[dict[str, Any], dict[str, Any]] | None
    before: int


def check_training(config: TrainConfig, name: str, context: Context) -> None:
    """Refuse what can be seen to be wrong without building anything.

    Raises:
        UserError: A choice, a path or the data does not fit.
    """
    kind = methods.get(name)
    make_view(config.view, config.size, **config.view_settings)
    if config.heads is not None and (config.corrections or config.start):
        raise ConfigError(
            "train.heads fits classifiers to tags from nothing; it goes with neither train.start nor "
            "train.corrections (tagmask teach learns from corrections)"
        )
    for what in ("labels", "corrections", "start"):
        path = getattr(config, what)
        if path is not None and not path.exists():
            raise DataError(f"train.{what}: {path} does not exist")
    if config.corrections is not None:
        may_teach(config.corrections, true_masks(context), kind)
    if kind.map_kinds and config.eval_every:
        kinds = map_kinds(kind, config.eval_maps.kinds)
        known = (*kinds, *(("segmentation",) if kind.segments else ()))
        best = config.best_by
        if best is not None and best not in known:
            raise ConfigError(f"train.best_by: no score is called '{best}'. {nearest(best, known)}")
    views = config.batch_size // share_batch(config, context)
    if workers := _workers(config, context.runtime):
        check_room(views * 3 * config.size**2 * 4, workers)  # before seconds are spent on a network
    context.data.open(taught_part(kind, context))


def taught_part(kind: type[Method], context: Context) -> Part:
    """The images a method learns from; one that learns from labels instead of tags holds none out."""
    return "train" if can_classify(kind) or context.data.held_out() is None else "both"


def kept_aside(context: Context, method: Method, taught: TagDataset) -> TagDataset | None:
    """The images to score tags on, because the data names no split and the method learns from tags.

    Args:
        context: The run; its display says how many there are.
        method: What is trained.
        taught: What it learns from; corrected images may be among those that are kept otherwise.
    """
    held = context.data.held_out() if can_classify(type(method)) else None
    if held is None:
        return None
    known = set(taught.names)
    left = [i for i, name in enumerate(held.names) if name not in known]
    if not left:
        return None
    context.display.say(
        f"{len(left)} of {len(left) + len(taught)} images are held out for scoring tags, because the data "
        "names no split (--no-holdout trains on all); all images get masks"
    )
    return held.subset(left)


def true_masks(context: Context) -> Path:
    """The folder of true masks, which a training must not learn from."""
    data = context.settings.data
    return data.masks or (data.root or Path()) / "masks"


def prepare_training(job: Job, context: Context) -> Plan:
    """Build the method, load its weights or the newest saved state, open the data; nothing is written.

    Raises:
        UserError: Settings, data or weights do not allow it.
    """
    config, runtime = job.config, context.runtime
    check_training(config, job.name, context)
    dataset = context.data.open(taught_part(methods.get(job.name), context))
    view = for_bands(make_view(config.view, config.size, **config.view_settings), dataset.channels)
    runtime.reseed()
    method = build_method(job.name, job.model, dataset.num_classes, "model")
    method.check_size(config.size)
    if config.gradient_checkpointing:
        _recompute(method)
    checkpoints = Checkpoints(context.out / "train" / "checkpoints", config.keep)
    newest = checkpoints.newest() if context.goes_on else None
    if newest is None and config.start is None:
        # A resumed run's weights come from its state; the pretrained file need not be there any more.
        method.initialise(str(method.config.weights))
    with_bands(method, dataset.channels)
    if newest is None and config.start is not None:
        begin_from(config.start, method, job.name, dataset)
    truth = _truth(config, context, method)
    return Plan(job, method, dataset, view, truth, newest, steps_before(config.start))


def _recompute(method: Method) -> None:
    able = [module for module in method.modules() if hasattr(module, "gradient_checkpointing")]
    if not able:
        raise ConfigError(
            "train.gradient_checkpointing works with ViT and Mix Transformer backbones only; leave it out, "
            "and raise train.accumulate to save memory"
        )
    for module in able:
        module.gradient_checkpointing = True  # type: ignore[assignment]


def share_batch(config: TrainConfig, context: Context) -> int:
    """Into how many parts a batch goes: processes times micro-batches."""
    world = context.runtime.world
    parts = world * config.accumulate
    if config.batch_size % parts:
        raise ConfigError(
            f"train.batch_size {config.batch_size} cannot be shared by {world} processes with "
            f"{config.accumulate} micro-batches each; it must be a multiple of {parts}"
        )
    return parts


def _truth(config: TrainConfig, context: Context, method: Method) -> TagDataset | None:
    """The images to score on along the way, if they have masks and the method makes something to score."""
    scored = bool(method.map_kinds) or method.segments
    if not config.eval_every or not scored or not context.data.has_masks("auto"):
        return None
    dataset = context.data.open("auto", masks=True)
    if config.eval_images is None or config.eval_images >= len(dataset):
        return dataset
    return dataset.subset(range(config.eval_images))


def read_corrections(
    config: TrainConfig, context: Context, dataset: TagDataset, method: Method
) -> Corrections | None:
    """The corrected images a training learns from; their labels go into its folder.

    Args:
        config: Names where they are.
        context: The run.
        dataset: The images to learn from.
        method: What is trained.

    Raises:
        ConfigError: The method cannot learn from them.
        DataError: They cannot be read or do not fit the images.
    """
    if config.corrections is None:
        return None
    truth = true_masks(context)
    folder = context.out / "train" / "corrections"
    return corrected_images(
        config.corrections,
        folder,
        dataset,
        type(method),
        truth,
        context.runtime,
        context.display,
        context.data.held_out() if can_classify(type(method)) else None,
        context.data.open("auto"),
    )


def _workers(config: TrainConfig, runtime: Runtime) -> int:
    if config.workers is not None:
        return config.workers
    # On a CPU, readers would take the cores that compute.
    return 0 if runtime.device.type == "cpu" else min(8, max(1, (os.cpu_count() or 1) // runtime.world))


def draw_batches(
    config: TrainConfig,
    context: Context,
    dataset: TagDataset,
    view: Any,
    step: int,
    corrections: Corrections | None,
) -> TrainBatches | BothBatches:
    """The batches of a training, from one update on.

    Args:
        config: Sizes, labels, workers.
        context: The run.
        dataset: The images to learn from.
        view: Random training view.
        step: First update.
        corrections: Corrected images to draw beside them.

    Raises:
        ConfigError: The batch cannot be shared evenly.
        DataError: The data set was opened with true masks.
    """
    runtime, parts = context.runtime, share_batch(config, context)
    workers = _workers(config, runtime)
    if parts > 1:
        context.display.say(
            f"batch of {config.batch_size} images: {runtime.world} processes x {config.accumulate} "
            f"micro-batches x {config.batch_size // parts} images"
        )

    def make(images: TagDataset, count: int, labels: Path | None) -> TrainBatches:
        return train_batches(
            images,
            view,
            count,
            runtime.seed,
            start_step=step * config.accumulate,
            num_workers=workers,
            rank=runtime.rank,
            world=runtime.world,
            labels=labels,
            max_side=config.max_side,
            broken_limit=config.broken_limit,
        )

    batches = make(dataset, config.batch_size // parts, config.labels)
    if corrections is None:
        return batches
    return BothBatches(batches, make(corrections.corrected, config.corrections_batch, corrections.labels))

"""What every step is given and says about itself; going over images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tagmask.config import Config
from tagmask.data import TagDataset
from tagmask.data.loader import eval_images
from tagmask.data.parts import Part, Parts, data_state
from tagmask.engine.lanes import in_lanes
from tagmask.engine.log import Display
from tagmask.engine.runtime import Runtime
from tagmask.engine.signals import StopSignal
from tagmask.errors import ConfigError
from tagmask.inference.given_views import UNUSED, GivenViews
from tagmask.steps.models import Models, Settings
from tagmask.store.files import digest, file_for
from tagmask.store.ledger import Ledger
from tagmask.store.manifest import Manifest
from tagmask.training.callbacks import Callbacks
from tagmask.types import Batch

__all__ = ["Context", "Step", "data_checksum", "each_image", "plain", "with_maps"]

# Settings that change how a step feels, not what it gives: changing them does not undo finished work.
_HARMLESS = {
    "gradient_checkpointing",
    "workers",
    "log_every",
    "save_every",
    "keep",
    "tensorboard",
    "max_bad",
    "broken_limit",
}

_LARGE = 4_000_000
"""Pixels from which on nothing is done beside an image."""


@dataclass(frozen=True)
class Context:
    """What a step works with.

    Attributes:
        folder: The run folder, where the results of earlier steps are.
        runtime: Device, precision, processes.
        display: Progress.
        data: The data set, each part scanned once.
        settings: All settings of the run.
        models: Its trained models.
        out: Where the step writes; its outputs are put in their place when they are complete.
        goes_on: Whether unfinished work of the same kind is in `out`.
        callbacks: What a program does while a training runs.
        loggers: Where its figures go besides the run folder: names or objects.
    """

    folder: Path
    runtime: Runtime
    display: Display
    data: Parts
    settings: Settings
    models: Models
    out: Path
    goes_on: bool = False
    callbacks: Callbacks = field(default_factory=Callbacks)
    loggers: Sequence[Any] = ()

    @property
    def manifest(self) -> Manifest:
        """The run's manifest as it is on disk now; only the first process writes it."""
        return Manifest(self.folder)


def plain(config: Config) -> dict[str, Any]:
    """Settings that decide what comes out, as the manifest keeps them."""
    values = config.model_dump(mode="json")
    if isinstance(config, GivenViews):
        values = {**UNUSED, **values}
    # Records of version 0.1 know all options of all methods.
    values |= {k: {**UNUSED, **values[k]} for k, v in config if isinstance(v, GivenViews)}
    return {k: v for k, v in values.items() if k not in _HARMLESS}


def data_checksum(context: Context, part: Part, masks: bool = False) -> str:
    """Checksum of a part of the data: names, tags, sizes and times of the files.

    Raises:
        UserError: The data cannot be opened.
    """
    return digest(data_state(context.data.open(part, masks)))


def with_maps(dataset: TagDataset, source: Path, setting: str) -> TagDataset:
    """The images that have maps in a folder.

    Args:
        dataset: Images.
        source: ``maps/<kind>``.
        setting: What chose the kind, for the message.

    Raises:
        ConfigError: There are no maps of this kind, or of none of these images.
    """
    if not source.is_dir():
        made = sorted(p.name for p in source.parent.glob("*") if p.is_dir())
        raise ConfigError(
            f"no maps of kind '{source.name}' in {source.parent} (there are: {', '.join(made) or 'none'}); "
            f"run localize first, or set {setting}"
        )
    there = [i for i, name in enumerate(dataset.names) if file_for(source, name, ".npz").exists()]
    if not there:
        raise ConfigError(
            f"{source} holds no maps of the images of split '{dataset.split}'; run localize on them first"
        )
    return dataset.subset(there)


def _plain_of(config: Any, settings: Settings) -> dict[str, Any]:
    return plain(config)


def _nothing(config: Any, context: Context) -> None:
    return None


def _always(context: Context) -> None:
    return None


@dataclass(frozen=True)
class Step:
    """One step of a run, described in its own file.

    Attributes:
        name: Its key; also the name of its section in the settings.
        writes: Files and folders in the run folder that it makes.
        reads: Label to checksum of what it reads, as that is on the disk now.
        prepare: Loads and checks everything that can be refused, and writes nothing; gives the plan.
        work: Does the plan, writing below `Context.out`; gives figures worth keeping.
        check: Refuses, before the first step of a run begins, what no earlier step can change.
        needless: Why the step makes no sense in a run; None if it does, "" if nobody asked for it.
        decides: Settings that decide what comes out; the section's own if not given.
        private: Files that it writes for itself and continues from.
        made: Those of `reads` that earlier steps of the same run made.
        free: Settings that may change while a training continues: names of files, whose content is among
            `reads`, and what only shares the work out.
        smaller: What to change when memory runs out.
        by_hand: Its outputs are label images, which people also change by hand.
        anew: A call for this step alone does it again, done or not.
        beside: It is no part of a run, but can be done with one.
    """

    name: str
    writes: tuple[str, ...]
    reads: Callable[[Any, Context], Mapping[str, Any]]
    prepare: Callable[[Any, Context], Any]
    work: Callable[[Any, Context], Mapping[str, Any]]
    check: Callable[[Any, Context], None] = _nothing
    needless: Callable[[Context], str | None] = _always
    decides: Callable[[Any, Settings], Mapping[str, Any]] = _plain_of
    private: tuple[str, ...] = ()
    made: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    smaller: str = "Take smaller images"
    by_hand: bool = False
    anew: bool = field(default=False, kw_only=True)
    beside: bool = field(default=False, kw_only=True)


def each_image(
    context: Context,
    dataset: TagDataset,
    title: str,
    outputs: Callable[[str], Sequence[Path]],
    work: Callable[[int, Batch], None],
    lanes: int = 1,
) -> None:
    """Do `work` for every image whose outputs are not there and whole; processes share the images.

    Args:
        context: The run.
        dataset: The images.
        title: What the display says.
        outputs: Files below `Context.out` that `work` writes for an image name.
        work: (index in `dataset`, batch of one on the device).
        lanes: Images that are worked on at once, see `engine.lanes`; `work` then keeps nothing of its own.

    Raises:
        Stopped: A stop signal came; what is done is on disk.
        DataError: An image cannot be read.
    """
    runtime, ledger = context.runtime, Ledger(context.out, context.runtime.rank)
    todo = [i for i, name in enumerate(dataset.names) if not all(map(ledger.whole, outputs(name)))]
    # Every process has looked before the first one writes: all must share out the same images.
    runtime.barrier()
    if not todo:
        return
    left, done = dataset.subset(todo), len(dataset) - len(todo)
    found = eval_images(left, runtime.rank, runtime.world, prefetch=1)
    working = in_lanes(
        lambda job: work(todo[job[0]], job[1].to(runtime.device)),
        found,
        lanes,
        lambda job: job[1].images[0, 0].numel() > _LARGE,
    )
    with StopSignal() as stop, context.display.task(title, len(dataset), done) as task, closing(working):
        for _, batch in working:
            ledger.note(outputs(batch.names[0]))
            task.advance(runtime.world)
            stop.check(f"{title} stopped; finished images are kept")

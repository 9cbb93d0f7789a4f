"""What every step is given and says about itself; the models of a run; going over images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tagmask.config import Config
from tagmask.data import TagDataset
from tagmask.data.loader import eval_images
from tagmask.data.parts import DataConfig, Part, Parts, data_state
from tagmask.engine.config import RuntimeConfig
from tagmask.engine.log import Display
from tagmask.engine.runtime import Runtime
from tagmask.engine.signals import StopSignal
from tagmask.errors import ConfigError
from tagmask.models.checkpoint import is_own, weight_file
from tagmask.models.trained import Trained, load_published, load_trained
from tagmask.store.files import digest, file_for, sha256
from tagmask.store.ledger import Ledger
from tagmask.store.manifest import Manifest
from tagmask.training.callbacks import Callbacks
from tagmask.types import Batch

__all__ = ["Context", "Models", "Settings", "Step", "data_checksum", "each_image", "plain", "with_maps"]

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


class Network(Protocol):
    """Settings of a network: the run's own, or those of a learner."""

    @property
    def method(self) -> str:
        """Key of the method."""

    @property
    def model(self) -> Mapping[str, Any]:
        """Settings of the method."""

    @property
    def checkpoint(self) -> Path | None:
        """A model to use instead of training."""


class Settings(Network, Protocol):
    """What a step may know of the settings of a run besides its own section."""

    @property
    def data(self) -> DataConfig:
        """Images, tags, masks."""

    @property
    def runtime(self) -> RuntimeConfig:
        """Device, precision, seed."""

    @property
    def affinity(self) -> Network | None:
        """The affinity network, if the run has one."""

    @property
    def student(self) -> Network | None:
        """The student, if the run has one."""

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """All settings as plain values."""


class Models:
    """The trained models of a run, each loaded once.

    Args:
        settings: Settings of the run.
        folder: The run folder.
        data: Its data, for the classes of published checkpoints.
    """

    def __init__(self, settings: Settings, folder: Path, data: Parts) -> None:
        self._settings, self._folder, self._data = settings, folder, data
        self._loaded: dict[str | None, Trained] = {}

    def get(self, learner: str | None = None) -> Trained:
        """The run's model, or that of "affinity" or "student".

        Raises:
            ConfigError: The run has no such learner.
            CheckpointError: There is no model, or it is damaged.
        """
        if learner not in self._loaded:
            part = self._part(learner)
            given = part.checkpoint
            if given is not None and given.is_file() and not is_own(given):
                classes = self._data.open("auto").classes
                self._loaded[learner] = load_published(given, part.method, part.model, classes)
            else:
                self._loaded[learner] = load_trained(given or self._place(learner))
        return self._loaded[learner]

    def segmenter(self) -> Trained:
        """Who does the step segment: the student if the run has one."""
        return self.get(self.segmenter_name)

    @property
    def segmenter_name(self) -> str | None:
        """The learner that does the step segment; None for the run's model."""
        return None if self._settings.student is None else "student"

    def checksum(self, learner: str | None = None) -> str:
        """Checksum of the weight file.

        Raises:
            ConfigError: The run has no such learner.
            CheckpointError: There is no model.
        """
        path = self._part(learner).checkpoint or self._place(learner)
        inner = path / "model"
        file = weight_file(inner if (inner / "weights.safetensors").exists() else path)
        return sha256(file) if file.is_file() else self.get(learner).checksum

    def forget(self) -> None:
        """A step has made a new model."""
        self._loaded.clear()

    def _place(self, learner: str | None) -> Path:
        return self._folder / (learner or "") / "model"

    def _part(self, learner: str | None) -> Network:
        if learner is None:
            return self._settings
        found: Network | None = getattr(self._settings, learner)
        if found is None:
            raise ConfigError(f"this run has no {learner}; choose a recipe with one, or set {learner}.method")
        return found


@dataclass(frozen=True)
class Context:
    """What a step works with.

    Attributes:
        folder: The run folder, where the results of earlier steps lie.
        runtime: Device, precision, processes.
        display: Progress.
        data: The data set, each part scanned once.
        settings: All settings of the run.
        models: Its trained models.
        out: Where the step writes; its outputs are put in their place when they are complete.
        goes_on: Whether unfinished work of the same kind lies in `out`.
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
    return {k: v for k, v in config.model_dump(mode="json").items() if k not in _HARMLESS}


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
        reads: Label to checksum of what it reads, as that lies on the disk now.
        prepare: Loads and checks everything that can be refused, and writes nothing; gives the plan.
        work: Does the plan, writing below `Context.out`; gives figures worth keeping.
        check: Refuses, before the first step of a run begins, what no earlier step can change.
        needless: Why the step makes no sense in a run; None if it does, "" if nobody asked for it.
        decides: Settings that decide what comes out; the section's own if not given.
        private: Files that it writes for itself and goes on from.
        made: Those of `reads` that earlier steps of the same run made.
        free: Settings that may change while a training goes on: names of files, whose content is among
            `reads`, and what only shares the work out.
        smaller: What to change when memory runs out.
        by_hand: Its outputs are label images, which people also change by hand.
        anew: A call for this step alone does it again, done or not.
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


def each_image(
    context: Context,
    dataset: TagDataset,
    title: str,
    outputs: Callable[[str], Sequence[Path]],
    work: Callable[[int, Batch], None],
) -> None:
    """Do `work` for every image whose outputs are not there and whole; processes share the images.

    Args:
        context: The run.
        dataset: The images.
        title: What the display says.
        outputs: Files below `Context.out` that `work` writes for an image name.
        work: (index in `dataset`, batch of one on the device).

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
    with StopSignal() as stop, context.display.task(title, len(dataset), done) as task:
        for position, batch in eval_images(left, runtime.rank, runtime.world, prefetch=1):
            work(todo[position], batch.to(runtime.device))
            ledger.note(outputs(batch.names[0]))
            task.advance(runtime.world)
            stop.check(f"{title} stopped; finished images are kept")

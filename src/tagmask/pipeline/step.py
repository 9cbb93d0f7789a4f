"""A run on its way: what its steps have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tagmask.config import Config
from tagmask.data.parts import Part, data_state, open_part
from tagmask.errors import ConfigError
from tagmask.models.checkpoint import is_own
from tagmask.models.trained import Trained, load_published, load_trained
from tagmask.pipeline.config import Learner, RunConfig
from tagmask.steps.base import Context
from tagmask.store.files import digest, sha256
from tagmask.store.manifest import Manifest, fingerprint

__all__ = ["Journey", "Step", "defaults", "plain"]

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


@dataclass
class Step:
    """One step of a run.

    Attributes:
        name: Its key in `MAKERS`.
        settings: What was asked for; with `inputs` it decides whether the step is done.
        inputs: Checksums of what it reads.
        outputs: Files and folders in the run folder that later steps read.
        work: Does it; told whether it continues the same unfinished work. Gives figures worth keeping.
        private: Further files it writes, for itself.
        made: Those of `inputs` that earlier steps of the same run made.
        defaults: Values of those `settings` that a run made by an older version may not have noted.
    """

    name: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, Any]
    outputs: Sequence[str]
    work: Callable[[bool], Mapping[str, Any]]
    private: Sequence[str] = ()
    made: Sequence[str] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Journey:
    """A run on its way.

    Attributes:
        config: Its settings.
        context: Folder, device, display, data.
        results: Figures of the steps so far.
    """

    config: RunConfig
    context: Context
    results: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    _loaded: dict[str, Trained] = field(default_factory=dict)

    @property
    def manifest(self) -> Manifest:
        """The run's manifest as it is on disk now; only the first process writes it."""
        return Manifest(self.context.folder)

    def trained(self) -> Trained:
        """The model that the steps after training use, loaded once."""
        return self._model("", self.config)

    def learner(self, name: str) -> Trained:
        """The affinity network or the student, loaded once.

        Raises:
            ConfigError: The run has none.
        """
        return self._model(f"{name}/", self.learner_config(name))

    def segmenter(self) -> Trained:
        """Who does the step segment: the student if the run has one."""
        return self.trained() if self.config.student is None else self.learner("student")

    def model_checksum(self, name: str | None = None) -> str:
        """Checksum of the weight file of the model, or of a learner."""
        given = (self.config if name is None else self.learner_config(name)).checkpoint
        if given is not None and given.is_file():
            return sha256(given)
        return (self.trained() if name is None else self.learner(name)).checksum

    def learner_config(self, name: str) -> Learner:
        """Settings of the affinity network or the student.

        Raises:
            ConfigError: The run has none.
        """
        found: Learner | None = getattr(self.config, name)
        if found is None:
            raise ConfigError(f"this run has no {name}; choose a recipe with one, or set {name}.method")
        return found

    def _model(self, place: str, part: RunConfig | Learner) -> Trained:
        if place not in self._loaded:
            given = part.checkpoint
            if given is not None and given.is_file() and not is_own(given):
                classes = open_part(self.config.data, "auto").classes
                self._loaded[place] = load_published(given, part.method, part.model, classes)
            else:
                self._loaded[place] = load_trained(given or self.context.folder / f"{place}model")
        return self._loaded[place]

    def checksum(self, name: str) -> str | None:
        """Checksum of what an earlier step left under a name; None if there is nothing."""
        path = self.context.folder / name
        if not path.exists():
            return None
        return self.manifest.checksum(path) or str(fingerprint(path)["sha256"])

    def data(self, part: Part, masks: bool = False) -> str:
        """Checksum of a part of the data."""
        return digest(data_state(open_part(self.config.data, part, masks)))


def plain(config: Config) -> dict[str, Any]:
    """Settings that decide what comes out, as the manifest keeps them."""
    return {k: v for k, v in config.model_dump(mode="json").items() if k not in _HARMLESS}


def defaults(config: Config) -> dict[str, Any]:
    """What `plain` gives where nothing was asked for."""
    return plain(type(config)())

"""The trained models of a run, each loaded once, and what of its settings says which they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from tagmask.data.parts import DataConfig, Parts
from tagmask.engine.config import RuntimeConfig
from tagmask.errors import ConfigError
from tagmask.inference.given_views import GivenViews
from tagmask.models.checkpoint import is_own, weight_file
from tagmask.models.trained import Trained, load_published, load_trained
from tagmask.store.files import sha256

__all__ = ["Models", "Network", "Settings"]


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

    @property
    def segment(self) -> GivenViews:
        """How masks are made."""

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

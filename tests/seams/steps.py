"""One step of a run on a folder of its own, with whatever model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tagmask.config import Config
from tagmask.data.parts import DataConfig, Parts
from tagmask.engine.log import Display
from tagmask.engine.runtime import Runtime
from tagmask.models.trained import Trained
from tagmask.pipeline.config import RunConfig
from tagmask.steps.base import Context, Step
from tagmask.steps.models import Models


class Given(Models):
    """One model for everything."""

    def __init__(self, trained: Trained) -> None:
        self.trained = trained

    def get(self, learner: str | None = None) -> Trained:
        """The model."""
        return self.trained

    def segmenter(self) -> Trained:
        """The model."""
        return self.trained


def context_of(run: Path, runtime: Runtime, data: DataConfig, trained: Trained | None = None) -> Context:
    """What a step is given."""
    settings, parts = RunConfig(data=data), Parts(data)
    models = Models(settings, run, parts) if trained is None else Given(trained)
    return Context(run, runtime, Display(quiet=True), parts, settings, models, out=run)


def do(step: Step, config: Config, context: Context) -> Mapping[str, Any]:
    """Prepare a step and do it."""
    return step.work(step.prepare(config, context), context)

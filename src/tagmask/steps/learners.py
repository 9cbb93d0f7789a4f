"""The second networks of a multi-stage method: they learn from labels that earlier steps wrote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from tagmask import methods
from tagmask.config import Config
from tagmask.errors import ConfigError
from tagmask.models.trained import build_method
from tagmask.steps.areas import match_area
from tagmask.steps.base import Context, Step, data_checksum, plain
from tagmask.steps.fitting import Job, Plan, check_training, prepare_training, taught_part
from tagmask.steps.models import Settings
from tagmask.steps.scoring import PICTURES
from tagmask.steps.train import TrainConfig, train

__all__ = ["AFFINITY", "STUDENT", "Learner"]


class Learner(Config):
    """A second network of a multi-stage method, trained on labels that earlier steps wrote."""

    method: str
    """Key of the method."""
    model: dict[str, Any] = Field(default_factory=dict)
    """Settings of the method, see `tagmask show METHOD`."""
    checkpoint: Path | None = None
    """Use this model folder, or this published checkpoint of the method, instead of training."""
    start: Literal["weights", "model"] = "weights"
    """Begin with the pretrained backbone; or with the run's own model: then its method must be the same, and
    `model` names only what differs from the run's own settings."""
    labels: Literal["label", "walk"] = "label"
    """What to learn from: the labels of refine, or of the random walk."""
    train: TrainConfig = TrainConfig()
    """How it is trained."""


def _learner(name: str) -> Step:
    def needless(context: Context) -> str | None:
        config = getattr(context.settings, name)
        if config is None:
            return ""
        return None if config.checkpoint is None else f"the model is {config.checkpoint}"

    def given(config: Learner | None) -> Learner:
        if config is None:
            raise ConfigError(f"this run has no {name}; choose a recipe with one, or set {name}.method")
        return config

    def network(learner: Learner, settings: Settings) -> dict[str, Any]:
        return {**(settings.model if learner.start == "model" else {}), **learner.model}

    def inside(context: Context) -> Context:
        return replace(context, out=context.out / name)

    def check(config: Learner | None, context: Context) -> None:
        learner = given(config)
        check_training(learner.train, learner.method, context)
        if learner.checkpoint is None:
            # Hours before it is its turn: a network that cannot be built is seen now.
            classes = context.data.open("train").num_classes
            build_method(learner.method, network(learner, context.settings), classes, f"{name}.model")

    def decides(config: Learner | None, settings: Settings) -> dict[str, Any]:
        learner, runtime = given(config), settings.runtime
        about = {"method": learner.method, "model": network(learner, settings), **plain(learner.train)}
        if learner.start == "model":
            about["begin"] = "model"
        return about | {"precision": runtime.precision, "seed": runtime.seed}

    def reads(config: Learner | None, context: Context) -> dict[str, Any]:
        learner = given(config)
        source = context.folder / PICTURES[learner.labels]
        part = taught_part(methods.get(learner.method), context)
        found = {"data": data_checksum(context, part), "labels": context.manifest.checksum(source)}
        return found | ({"model": context.models.checksum()} if learner.start == "model" else {})

    def prepare(config: Learner | None, context: Context) -> Plan:
        learner = given(config)
        source = context.folder / PICTURES[learner.labels]
        if not source.is_dir():
            raise ConfigError(f"{name} learns from {source}, which is not there; run earlier steps first")
        chosen = learner.train.model_copy(update={"labels": source})
        if learner.start == "model":
            own = context.settings.checkpoint or context.folder / "model"
            chosen = chosen.model_copy(update={"start": own})
        use = {"segment": context.settings.model_dump(mode="json")["segment"]}
        return prepare_training(
            Job(chosen, learner.method, network(learner, context.settings), use), inside(context)
        )

    def work(plan: Plan, context: Context) -> dict[str, Any]:
        results = train(plan, inside(context))
        if plan.method.background_shift is not None and context.runtime.is_main:
            views = context.settings.segment.of(type(plan.method))
            source = context.folder / PICTURES[given(getattr(context.settings, name)).labels]
            results |= match_area(inside(context).out / "model", plan.dataset, source, views, context)
        context.runtime.barrier()
        return results

    return Step(
        name,
        writes=(f"{name}/model",),
        reads=reads,
        prepare=prepare,
        work=work,
        check=check,
        needless=needless,
        decides=decides,
        private=(f"{name}/train",),
        made=("labels", "model"),
        free=("accumulate", "labels", "corrections", "start"),
        smaller=f"Lower {name}.train.batch_size, or raise {name}.train.accumulate",
    )


AFFINITY = _learner("affinity")
"""Pseudo labels to a network that knows which neighbouring pixels belong together."""

STUDENT = _learner("student")
"""Labels to the segmentation network at the end of a multi-stage method."""

"""The steps of a run: what decides about each, what it reads and writes, how it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tagmask.config import Config
from tagmask.errors import ConfigError, DataError
from tagmask.runconfig import Learner, RunConfig
from tagmask.stages._common import Context, Part, data_digest, open_part
from tagmask.stages._methods import Trained, load_published, load_trained
from tagmask.stages._score import PICTURES
from tagmask.stages.entropy import entropy
from tagmask.stages.evaluate import evaluate
from tagmask.stages.localize import localize
from tagmask.stages.refine import refine
from tagmask.stages.report import report
from tagmask.stages.review import review
from tagmask.stages.segment import segment
from tagmask.stages.train import train
from tagmask.stages.walk import walk
from tagmask.store.checkpoint import is_own
from tagmask.store.files import sha256
from tagmask.store.manifest import Manifest, fingerprint

__all__ = ["EXTRAS", "MAKERS", "Journey", "Step"]

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
        return data_digest(open_part(self.config.data, part, masks))


def _plain(config: Config) -> dict[str, Any]:
    return {k: v for k, v in config.model_dump(mode="json").items() if k not in _HARMLESS}


def _defaults(config: Config) -> dict[str, Any]:
    return _plain(type(config)())


def _train(journey: Journey) -> Step:
    config = journey.config
    settings = {"method": config.method, "model": config.model, **_plain(config.train)}
    settings |= {"precision": config.runtime.precision, "seed": config.runtime.seed}
    inputs: dict[str, Any] = {"data": journey.data("train")}
    if config.train.labels is not None:
        inputs["labels"] = fingerprint(config.train.labels)["sha256"]
    if config.train.corrections is not None:
        inputs["corrections"] = _given(config.train.corrections, "corrections")
    if config.train.start is not None:
        inputs["start"] = load_trained(config.train.start).checksum
    # How the run uses the model later is how others should use it, too.
    use = {
        "localize": config.localize.model_dump(mode="json"),
        "segment": config.segment.model_dump(mode="json"),
        "background": config.evaluate.background,
    }

    def work(same: bool) -> Mapping[str, Any]:
        return train(config.train, journey.context, config.method, config.model, {"use": use}, resume=same)

    return Step(
        "train", settings, inputs, ("model",), work, private=("train",), defaults=_defaults(config.train)
    )


def _given(path: Path, what: str) -> str:
    """Checksum of what the user named.

    Raises:
        DataError: It is not there.
    """
    if not path.exists():
        raise DataError(f"{what}: {path} does not exist; give a folder of masks, a .zip or a .json")
    return str(fingerprint(path)["sha256"])


def _localize(journey: Journey) -> Step:
    config = journey.config
    inputs = {"model": journey.model_checksum(), "data": journey.data(config.localize.split)}
    settings = {**_plain(config.localize), "precision": config.runtime.precision}

    def work(same: bool) -> Mapping[str, Any]:
        return localize(config.localize, journey.context, journey.trained())

    return Step("localize", settings, inputs, ("maps",), work, defaults=_defaults(config.localize))


def _refine(journey: Journey) -> Step:
    config = journey.config
    inputs = {"maps": journey.checksum("maps"), "data": journey.data(config.refine.split)}

    def work(same: bool) -> Mapping[str, Any]:
        return refine(config.refine, journey.context)

    settings = _plain(config.refine)
    return Step("refine", settings, inputs, ("labels",), work, defaults=_defaults(config.refine))


def _learn(name: str) -> Callable[[Journey], Step]:
    def make(journey: Journey) -> Step:
        config = journey.learner_config(name)
        source = PICTURES[config.labels]
        runtime = journey.config.runtime
        settings: dict[str, Any] = {"method": config.method, "model": config.model, "labels": config.labels}
        settings |= {**_plain(config.train), "precision": runtime.precision, "seed": runtime.seed}
        inputs = {"data": journey.data("train"), "labels": journey.checksum(source)}
        use = {"segment": journey.config.segment.model_dump(mode="json")}
        inner = replace(journey.context, folder=journey.context.folder / name)
        chosen = config.train.model_copy(update={"labels": journey.context.folder / source})

        def work(same: bool) -> Mapping[str, Any]:
            return train(chosen, inner, config.method, config.model, {"use": use}, resume=same)

        private, defaults = (f"{name}/train",), _defaults(config.train)
        return Step(name, settings, inputs, (f"{name}/model",), work, private, ("labels",), defaults)

    return make


def _walk(journey: Journey) -> Step:
    config = journey.config.walk
    inputs = {
        "maps": journey.checksum("maps"),
        "model": journey.model_checksum("affinity"),
        "data": journey.data(config.split),
    }

    def work(same: bool) -> Mapping[str, Any]:
        return walk(config, journey.context, journey.learner("affinity"))

    return Step("walk", _plain(config), inputs, ("walks",), work, defaults=_defaults(config))


def _segment(journey: Journey) -> Step:
    config = journey.config
    who = None if config.student is None else "student"
    inputs = {"model": journey.model_checksum(who), "data": journey.data(config.segment.split)}
    settings = {**_plain(config.segment), "precision": config.runtime.precision}

    def work(same: bool) -> Mapping[str, Any]:
        return segment(config.segment, journey.context, journey.segmenter())

    return Step("segment", settings, inputs, ("masks",), work, defaults=_defaults(config.segment))


def _entropy(journey: Journey) -> Step:
    config = journey.config.entropy
    inputs = {"model": journey.model_checksum(), "data": journey.data(config.split)}

    def work(same: bool) -> Mapping[str, Any]:
        return entropy(config, journey.context, journey.trained())

    outputs = ("entropy.json", "entropy.svg")
    return Step("entropy", _plain(config), inputs, outputs, work, defaults=_defaults(config))


def _review(journey: Journey) -> Step:
    config = journey.config.review
    who = None if journey.config.student is None else "student"
    inputs = {name: journey.checksum(name) for name in ("maps", "labels")}
    inputs |= {"model": journey.model_checksum(who), "data": journey.data(config.split)}
    # People correct masks by hand, of which the manifest knows nothing.
    masks = journey.context.folder / "masks"
    inputs["masks"] = str(fingerprint(masks)["sha256"]) if masks.exists() else None

    def work(same: bool) -> Mapping[str, Any]:
        return review(config, journey.context, journey.segmenter())

    return Step("review", _plain(config), inputs, ("review",), work, defaults=_defaults(config))


def _evaluate(journey: Journey) -> Step:
    config, steps = journey.config, journey.manifest.steps
    made = {name: steps.get(name, {}) for name in ("localize", "refine", "walk", "segment")}
    about: dict[str, Any] = {name: step.get("settings") for name, step in made.items()}
    about["localize"] = {**(about["localize"] or {}), **made["localize"].get("results", {})}
    about["method"] = config.method
    models = [made[name].get("inputs", {}).get("model") for name in ("localize", "segment")]
    about["model"], about["segmenter"] = models[0] or models[1], models[1] or models[0]
    inputs = {name: journey.checksum(name) for name in ("maps", "labels", "walks", "masks")}
    inputs["truth"] = journey.data(config.evaluate.split, masks=True)

    def work(same: bool) -> Mapping[str, Any]:
        return evaluate(config.evaluate, journey.context, about)

    settings = _plain(config.evaluate)
    return Step("evaluate", settings, inputs, ("scores",), work, defaults=_defaults(config.evaluate))


def _report(journey: Journey) -> Step:
    config, steps = journey.config, journey.manifest.steps
    inputs = {name: step.get("outputs") for name, step in steps.items() if name != "report"}

    def work(same: bool) -> Mapping[str, Any]:
        there = config.checkpoint or (journey.context.folder / "model").is_dir()
        model = journey.trained() if there else None
        return report(config.report, journey.context, config.model_dump(mode="json"), steps, model)

    return Step("report", _plain(config.report), inputs, ("report.html",), work)


MAKERS: Mapping[str, Callable[[Journey], Step]] = {
    "train": _train,
    "localize": _localize,
    "refine": _refine,
    "affinity": _learn("affinity"),
    "walk": _walk,
    "student": _learn("student"),
    "segment": _segment,
    "evaluate": _evaluate,
    "report": _report,
}
"""Every step by name, in order."""

EXTRAS: Mapping[str, Callable[[Journey], Step]] = {"entropy": _entropy, "review": _review}
"""What can be done with a run beside its steps."""

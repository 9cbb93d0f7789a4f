"""The steps of a run: what decides about each, what it reads and writes, how it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tagmask.errors import DataError
from tagmask.models.trained import load_trained
from tagmask.pipeline.step import Journey, Step, defaults, plain
from tagmask.steps.entropy import entropy
from tagmask.steps.evaluate import evaluate
from tagmask.steps.localize import localize
from tagmask.steps.refine import refine
from tagmask.steps.report import report
from tagmask.steps.review import review
from tagmask.steps.scoring import PICTURES
from tagmask.steps.segment import segment
from tagmask.steps.train import train
from tagmask.steps.walk import walk
from tagmask.store.manifest import fingerprint

__all__ = ["EXTRAS", "MAKERS"]


def _train(journey: Journey) -> Step:
    config = journey.config
    settings = {"method": config.method, "model": config.model, **plain(config.train)}
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
        "train", settings, inputs, ("model",), work, private=("train",), defaults=defaults(config.train)
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
    settings = {**plain(config.localize), "precision": config.runtime.precision}

    def work(same: bool) -> Mapping[str, Any]:
        return localize(config.localize, journey.context, journey.trained())

    return Step("localize", settings, inputs, ("maps",), work, defaults=defaults(config.localize))


def _refine(journey: Journey) -> Step:
    config = journey.config
    inputs = {"maps": journey.checksum("maps"), "data": journey.data(config.refine.split)}

    def work(same: bool) -> Mapping[str, Any]:
        return refine(config.refine, journey.context)

    settings = plain(config.refine)
    return Step("refine", settings, inputs, ("labels",), work, defaults=defaults(config.refine))


def _learn(name: str) -> Callable[[Journey], Step]:
    def make(journey: Journey) -> Step:
        config = journey.learner_config(name)
        source = PICTURES[config.labels]
        runtime = journey.config.runtime
        settings: dict[str, Any] = {"method": config.method, "model": config.model, "labels": config.labels}
        settings |= {**plain(config.train), "precision": runtime.precision, "seed": runtime.seed}
        inputs = {"data": journey.data("train"), "labels": journey.checksum(source)}
        use = {"segment": journey.config.segment.model_dump(mode="json")}
        inner = replace(journey.context, folder=journey.context.folder / name)
        chosen = config.train.model_copy(update={"labels": journey.context.folder / source})

        def work(same: bool) -> Mapping[str, Any]:
            return train(chosen, inner, config.method, config.model, {"use": use}, resume=same)

        private, usual = (f"{name}/train",), defaults(config.train)
        return Step(name, settings, inputs, (f"{name}/model",), work, private, ("labels",), usual)

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

    return Step("walk", plain(config), inputs, ("walks",), work, defaults=defaults(config))


def _segment(journey: Journey) -> Step:
    config = journey.config
    who = None if config.student is None else "student"
    inputs = {"model": journey.model_checksum(who), "data": journey.data(config.segment.split)}
    settings = {**plain(config.segment), "precision": config.runtime.precision}

    def work(same: bool) -> Mapping[str, Any]:
        return segment(config.segment, journey.context, journey.segmenter())

    return Step("segment", settings, inputs, ("masks",), work, defaults=defaults(config.segment))


def _entropy(journey: Journey) -> Step:
    config = journey.config.entropy
    inputs = {"model": journey.model_checksum(), "data": journey.data(config.split)}

    def work(same: bool) -> Mapping[str, Any]:
        return entropy(config, journey.context, journey.trained())

    outputs = ("entropy.json", "entropy.svg")
    return Step("entropy", plain(config), inputs, outputs, work, defaults=defaults(config))


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

    return Step("review", plain(config), inputs, ("review",), work, defaults=defaults(config))


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

    settings = plain(config.evaluate)
    return Step("evaluate", settings, inputs, ("scores",), work, defaults=defaults(config.evaluate))


def _report(journey: Journey) -> Step:
    config, steps = journey.config, journey.manifest.steps
    inputs = {name: step.get("outputs") for name, step in steps.items() if name != "report"}

    def work(same: bool) -> Mapping[str, Any]:
        there = config.checkpoint or (journey.context.folder / "model").is_dir()
        model = journey.trained() if there else None
        return report(config.report, journey.context, config.model_dump(mode="json"), steps, model)

    return Step("report", plain(config.report), inputs, ("report.html",), work)


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

"""The journey: the steps of a run in order, those that are done left out, the stopped one taken up again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tagmask import methods
from tagmask.data.parts import has_masks
from tagmask.engine.log import Display
from tagmask.engine.runtime import out_of_memory
from tagmask.engine.signals import Stopped
from tagmask.errors import ConfigError, UserError, nearest
from tagmask.pipeline.config import RunConfig
from tagmask.pipeline.step import Journey, Step
from tagmask.pipeline.steps import EXTRAS, MAKERS
from tagmask.steps.base import Context
from tagmask.store.files import atomic_write, clear_partial, exclusive

__all__ = ["STEPS", "Run", "choose_steps", "run"]

STEPS = tuple(MAKERS)
"""Steps of a run, in order."""
_SMALLER = {
    "train": "It was not the update itself: lower train.eval_maps.size, or leave evaluation out with "
    "train.eval_every=0",
    "localize": "Lower localize.size or leave out the largest of localize.scales, or use --precision bf16",
    "segment": "Lower segment.size or leave out the largest of segment.scales, or use --precision bf16",
    "refine": "Take refine.method=none, or smaller images",
    "walk": "Its pairs grow with the square of the pixels: take smaller images",
}
"""What to change when memory runs out in a step."""
_LEARNED = {"affinity": "affinity", "walk": "affinity", "student": "student"}


@dataclass(frozen=True)
class Run:
    """What a run left behind.

    Attributes:
        folder: The run folder.
        results: Figures of every step that ran or was done before.
    """

    folder: Path
    results: Mapping[str, Mapping[str, Any]]

    @property
    def scores(self) -> dict[str, float]:
        """Mean IoU by what was scored."""
        return dict(self.results.get("evaluate", {}))


def run(
    config: RunConfig,
    folder: Path,
    steps: Sequence[str] = STEPS,
    *,
    resume: bool = True,
    overwrite: bool = False,
    display: Display | None = None,
) -> Run:
    """Do the steps of a run that are not done yet.

    A step is done when the manifest says so, its settings and inputs are the same and its outputs are
    unchanged. A step that was stopped goes on where it was.

    Args:
        config: The settings.
        folder: The run folder.
        steps: Which steps, in this order.
        resume: Go on with an unfinished training instead of refusing.
        overwrite: Replace a training with other settings that lies in the folder.
        display: Progress; nothing is shown if None.

    Returns:
        The folder and the figures of the steps.

    Raises:
        Stopped: A stop signal came; the same call goes on.
        UserError: Something the user gave cannot be used.
    """
    runtime = config.runtime.create()
    display = display or Display(quiet=True)
    if not runtime.is_main:
        display = Display(quiet=True)
    with exclusive(folder) if runtime.is_main else nullcontext():
        journey = Journey(config, Context(folder, runtime, display, config.data))
        if runtime.is_main:
            clear_partial(folder)
            _write_settings(config, folder)
        runtime.barrier()
        alone = len(steps) == 1
        for name in steps:
            if not alone and name in _LEARNED and getattr(config, _LEARNED[name]) is None:
                continue
            reason = None if alone else _needless(config, name)
            if reason is not None:
                display.say(f"{name}: left out, {reason}")
                continue
            _do(journey, {**MAKERS, **EXTRAS}[name](journey), resume, overwrite, alone)
        return Run(folder, journey.results)


def choose_steps(until: str | None = None, first: str | None = None) -> tuple[str, ...]:
    """The steps from one to another.

    Raises:
        ConfigError: A step is unknown, or they are in the wrong order.
    """
    for name in (until, first):
        if name is not None and name not in STEPS:
            raise ConfigError(f"unknown step '{name}'. {nearest(name, STEPS)}")
    start = STEPS.index(first) if first else 0
    end = STEPS.index(until) + 1 if until else len(STEPS)
    if start >= end:
        raise ConfigError(f"nothing to do from '{first}' until '{until}'; the order is {', '.join(STEPS)}")
    return STEPS[start:end]


def _write_settings(config: RunConfig, folder: Path) -> None:
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    with atomic_write(folder / "settings.yaml") as target:
        target.write_text(text, encoding="utf-8")


def _needless(config: RunConfig, name: str) -> str | None:
    """Why a step makes no sense in this run."""
    kind = methods.get(config.method)
    if name == "train" and config.checkpoint is not None:
        return f"the model is {config.checkpoint}"
    if name in ("localize", "refine") and not kind.map_kinds:
        return f"{config.method} makes no maps"
    learner = getattr(config, name) if name in ("affinity", "student") else None
    if learner is not None and learner.checkpoint is not None:
        return f"the model is {learner.checkpoint}"
    if name == "segment" and not kind.segments and config.student is None:
        return f"{config.method} does not segment"
    if name == "evaluate" and not has_masks(config.data, config.evaluate.split):
        return "there are no true masks"
    return None


def _do(journey: Journey, step: Step, resume: bool, overwrite: bool, alone: bool) -> None:
    context, manifest = journey.context, journey.manifest
    work = step.name, step.settings, step.inputs
    known = *work, step.defaults
    # A page asked for by name is written again: what it looks like is not among its inputs.
    done = manifest.is_done(*known) and not (alone and step.name == "report")
    same = manifest.same_work(*known)
    if step.private and not done:
        same = same and not overwrite
        if not overwrite:
            _guard_training(context.folder, manifest.steps.get(step.name, {}), step, same, resume)
    # Every process has looked before the first one writes.
    context.runtime.barrier()
    if done:
        journey.results[step.name] = manifest.steps[step.name].get("results", {})
        context.display.say(f"{step.name}: done before, unchanged")
        return
    if context.runtime.is_main:
        if not same:
            _clear(context.folder, (*step.outputs, *step.private))
        manifest.begin(*work)
    context.runtime.barrier()
    started = time.monotonic()
    try:
        with context.runtime.together():
            results = step.work(same)
            context.runtime.barrier()
    except Stopped as stopped:
        _note(journey, step.name, "stopped", stopped.detail)
        raise
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        _note(journey, step.name, "failed", "memory ran out")
        reason = (str(error).splitlines() or ["allocation failed"])[0]
        advice = _SMALLER.get(step.name, _SMALLER["train"])
        raise UserError(f"memory ran out in {step.name} ({reason}). {advice}") from None
    except (UserError, KeyboardInterrupt) as error:
        _note(journey, step.name, "failed", str(error) or type(error).__name__)
        raise
    seconds = time.monotonic() - started
    if context.runtime.is_main:
        there = [path for name in step.outputs if (path := context.folder / name).exists()]
        manifest.finish(step.name, there, seconds, results)
    journey.results[step.name] = results
    context.display.say(f"{step.name}: done in {seconds:.0f} s")


def _note(journey: Journey, name: str, status: str, reason: str) -> None:
    if journey.context.runtime.is_main:
        journey.manifest.stop(name, status, reason)


def _guard_training(folder: Path, before: Mapping[str, Any], step: Step, same: bool, resume: bool) -> None:
    """Hours of training are not thrown away because one of its settings, or the data, changed.

    One that learned from what an earlier step of this run made is of no use once that was made anew.
    """
    if not any((folder / step.private[0]).glob("checkpoints/step-*")):
        return
    if not same:
        changed = _changes({**step.defaults, **before.get("settings", {})}, step.settings)
        known = before.get("inputs", {})
        others = {name for name, value in step.inputs.items() if known.get(name) != value}
        if not changed and others and others <= set(step.made):
            return
        names = ", ".join(changed[:4] or ["the data"])
        raise ConfigError(
            f"{folder} holds a training that differs in {names}; choose another --out, or replace it "
            "with --overwrite"
        )
    if not resume:
        raise ConfigError(
            f"{folder} holds an unfinished training; go on with --resume, or replace it with --overwrite"
        )


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of settings that differ, with the value that was there."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return [f"{name} (was {before.get(name)!r})" for name in names]


def _clear(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

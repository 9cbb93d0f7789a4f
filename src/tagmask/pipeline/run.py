"""Do a run: its steps in order, those that are done left out, the stopped one taken up again.

A step is asked first whether it can be done at all, and writes nothing until it has said yes. Its outputs are
made beside the old ones and take their place when they are complete.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tagmask.data.parts import Parts
from tagmask.engine.log import Display
from tagmask.engine.runtime import out_of_memory
from tagmask.engine.signals import Stopped
from tagmask.errors import UserError
from tagmask.models.trained import stored_reading
from tagmask.pipeline.asked import Asked, asked_of, decisive, section
from tagmask.pipeline.changes import keep_changed, name_changed_inputs, name_own_changes
from tagmask.pipeline.config import RunConfig, with_absolute_paths, write_settings
from tagmask.pipeline.order import ALL_STEPS, STEPS
from tagmask.pipeline.outcome import Run
from tagmask.pipeline.plan import Plan, make_plan
from tagmask.pipeline.training import choose_place, guard_settings, guard_training
from tagmask.steps.base import Context, Step
from tagmask.steps.models import Models
from tagmask.store.files import clear_partial, exclusive
from tagmask.store.staging import Staging, recover
from tagmask.training.callbacks import Callbacks

__all__ = ["Run", "plan_run", "run"]


@dataclass
class _Call:
    """One call of `run`."""

    context: Context
    chosen: Sequence[Step]
    resume: bool
    overwrite: bool
    alone: bool
    keep_settings: bool
    results: dict[str, Mapping[str, Any]] = field(default_factory=dict)


def run(
    config: RunConfig,
    folder: Path,
    steps: Sequence[str] = STEPS,
    *,
    resume: bool = True,
    overwrite: bool = False,
    display: Display | None = None,
    keep_settings: bool = True,
    callbacks: Sequence[Any] = (),
    loggers: Sequence[Any] = (),
) -> Run:
    """Do the steps of a run that are not done yet.

    A step is done when the manifest says so, its settings and inputs are the same and its outputs are
    unchanged. A step that was stopped continues where it was. A call that is refused, fails or is stopped
    leaves the old results.

    Args:
        config: The settings.
        folder: The run folder.
        steps: Which steps, in this order.
        resume: Continue an unfinished training instead of refusing.
        overwrite: Replace a training with other settings that is in the folder.
        display: The plan of several steps, and progress; nothing is shown if None.
        keep_settings: Write the settings into the folder; otherwise they count for this call, and are
            written only where there are none yet.
        callbacks: What a program does while a training runs, see `tagmask.training.callbacks`.
        loggers: Where the figures of a training go besides the run folder: names or objects.

    Returns:
        The folder and the figures of the steps.

    Raises:
        Stopped: A stop signal came; the same call continues.
        UserError: Something the user gave cannot be used.
    """
    context = _context(config, folder, display)
    context = replace(context, callbacks=Callbacks(callbacks), loggers=tuple(loggers))
    runtime, alone = context.runtime, len(steps) == 1
    chosen, left_out = _chosen(context, steps, overwrite)
    call = _Call(context, chosen, resume, overwrite, alone, keep_settings)
    plan = None
    if not (alone or context.display.console.quiet):
        plan = make_plan(context, chosen, left_out, overwrite)
        for line in plan.lines():
            context.display.say(line)
    with exclusive(folder) if runtime.is_main else nullcontext():
        if runtime.is_main:
            clear_partial(folder)
            recover(folder)
        runtime.barrier()
        for number, step in enumerate(chosen, start=1):
            if plan is not None:
                context.display.step(number, len(chosen), *plan.after(step.name))
                if line := plan.line(step.name):
                    context.display.say(line)
            _do(call, step)
        _settle(call)
        return Run(folder, call.results)


def plan_run(
    config: RunConfig, folder: Path, steps: Sequence[str] = STEPS, *, overwrite: bool = False
) -> Plan:
    """What a call of `run` would do, and about how long that takes; nothing is written.

    Args:
        config: The settings.
        folder: The run folder, which need not be there.
        steps: Which steps, in this order.
        overwrite: A training with other settings in the folder would be replaced.

    Raises:
        UserError: The call would be refused.
    """
    context = _context(config, folder, None)
    return make_plan(context, *_chosen(context, steps, overwrite), overwrite)


def _context(config: RunConfig, folder: Path, display: Display | None) -> Context:
    config = with_absolute_paths(config)
    runtime = config.runtime.create()
    if display is None or not runtime.is_main:
        display = Display(quiet=True)
    data = Parts(config.data, stored_reading(config.checkpoint))
    models = Models(config, folder, data)
    return Context(folder, runtime, display, data, config, models, out=folder)


def _chosen(context: Context, names: Sequence[str], overwrite: bool) -> tuple[list[Step], dict[str, str]]:
    """The steps that make sense in this run, each looked at, and why others are left out.

    One that was asked for alone is always tried.
    """
    chosen, left_out = [], {}
    for step in (ALL_STEPS[name] for name in names):
        reason = None if len(names) == 1 else step.needless(context)
        if reason is None:
            chosen.append(step)
        elif reason:
            left_out[step.name] = reason
    for step in chosen:
        own = section(context.settings, step)
        step.check(own, context)
        if step.private:
            guard_settings(step, *decisive(step, own, context.settings), context, overwrite)
    return chosen, left_out


def _do(call: _Call, step: Step) -> None:
    """One step, if it is not done."""
    context, config = call.context, section(call.context.settings, step)
    asked, manifest = asked_of(step, context), context.manifest
    name_changed_inputs(step, manifest, context.display)
    done = asked.done(manifest) and not (call.alone and step.anew)
    if done:
        context.runtime.barrier()
        call.results[step.name] = manifest.steps[step.name].get("results", {})
        context.display.say(f"{step.name}: done before, unchanged")
        return
    staging = Staging(context.folder, step.name)
    goes_on = staging.goes_on(asked.settings, asked.inputs)
    place = staging.root
    if step.private:
        same = asked.same(manifest) and not call.overwrite
        if not (call.overwrite or goes_on):
            guard_training(step, asked.settings, asked.inputs, asked.defaults, context, same, call.resume)
        place, goes_on = choose_place(step, context.folder, staging.root, goes_on, same)
    inner = replace(context, out=place, goes_on=goes_on)
    with context.runtime.together():
        plan = step.prepare(config, inner)
    # Every process has looked before the first one writes.
    context.runtime.barrier()
    if context.runtime.is_main:
        _begin(call, asked, staging, inner)
    context.runtime.barrier()
    seconds, results = _work(inner, step, plan)
    if context.runtime.is_main:
        _finish(inner, step, staging, seconds, results)
    if step.private:
        context.models.forget()
    context.runtime.barrier()
    call.results[step.name] = results
    context.display.say(f"{step.name}: done in {seconds:.0f} s")


def _begin(call: _Call, asked: Asked, staging: Staging, inner: Context) -> None:
    """From here on something is written: everything that could be refused has been looked at."""
    step, manifest = asked.step, call.context.manifest
    name_own_changes(step, manifest, call.context.display)
    _settle(call)
    if inner.out == staging.root:
        if not inner.goes_on:
            staging.begin(asked.settings, asked.inputs)
            if not step.private and asked.same(manifest) and manifest.files(step.name):
                staging.adopt(manifest.files(step.name), manifest.differences(step.name))
    else:
        staging.clear()
        if not inner.goes_on:
            shutil.rmtree(inner.out / step.private[0], ignore_errors=True)
        manifest.begin(step.name, asked.settings, asked.inputs)


def _settle(call: _Call) -> None:
    """Write the settings, once."""
    context = call.context
    if context.runtime.is_main and (call.keep_settings or not (context.folder / "settings.yaml").exists()):
        write_settings(context.settings, context.folder)  # type: ignore[arg-type]


def _work(context: Context, step: Step, plan: Any) -> tuple[float, Mapping[str, Any]]:
    started = time.monotonic()
    try:
        with context.runtime.together():
            results = step.work(plan, context)
            context.runtime.barrier()
    except Stopped as stopped:
        _note(context, step.name, "stopped", stopped.detail)
        raise
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        _note(context, step.name, "failed", "memory ran out")
        reason = (str(error).splitlines() or ["allocation failed"])[0]
        raise UserError(f"memory ran out in {step.name} ({reason}). {step.smaller}") from None
    except (UserError, KeyboardInterrupt) as error:
        _note(context, step.name, "failed", str(error) or type(error).__name__)
        raise
    return time.monotonic() - started, results


def _finish(
    context: Context, step: Step, staging: Staging, seconds: float, results: Mapping[str, Any]
) -> None:
    if context.out == staging.root:
        if step.by_hand:
            keep_changed(step, context, staging.root)
        staging.complete(step.writes, step.private, {"seconds": seconds, "results": dict(results)})
        return
    outputs, private = (
        [path for name in names if (path := context.folder / name).exists()]
        for names in (step.writes, step.private)
    )
    context.manifest.finish(step.name, outputs, seconds, results, private=private)


def _note(context: Context, name: str, status: str, reason: str) -> None:
    """Why work ended early; run.json speaks of results, so only first trainings are noted there."""
    if context.runtime.is_main:
        context.manifest.stop(name, status, reason)
        Staging(context.folder, name).stop(status, reason)

"""Fit a method to images and tags."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from tagmask import methods
from tagmask.data import TagDataset
from tagmask.data.loader import TrainBatches
from tagmask.engine.line import figures_text
from tagmask.engine.log import CsvLog, Task, keep_scores
from tagmask.engine.trackers import Figures, open_loggers
from tagmask.errors import CheckpointError, ConfigError
from tagmask.methods.base import Method
from tagmask.models.trained import load_trained, save_method
from tagmask.steps.base import Context, Step, data_checksum, plain
from tagmask.steps.classifiers import fit_classifiers
from tagmask.steps.fitting import (
    Job,
    Plan,
    check_training,
    draw_batches,
    kept_aside,
    prepare_training,
    read_corrections,
    taught_part,
)
from tagmask.steps.models import Settings
from tagmask.store.ledger import fingerprint
from tagmask.training.callbacks import Training
from tagmask.training.checkpoints import Checkpoints
from tagmask.training.config import TrainConfig
from tagmask.training.corrections import BothBatches, WithCorrections
from tagmask.training.loop import Hooks, fit
from tagmask.training.optim import build_optimizer
from tagmask.training.padding import on_patches
from tagmask.training.records import Records
from tagmask.training.state import Progress, capture, restore
from tagmask.training.tag_scores import score_tags
from tagmask.training.validate import validate_method
from tagmask.types import OptimPlan

__all__ = ["TRAIN", "TrainConfig", "train"]

_NOT_SHOWN = ("lr", "grad_norm", "skipped", "steps_per_second")


@dataclass
class _Run:
    """The pieces of one training."""

    config: TrainConfig
    context: Context
    name: str
    method: Method
    dataset: TagDataset
    progress: Progress
    task: Task
    records: Records
    logs: list[Figures] = field(default_factory=list)
    scores: list[Figures] = field(default_factory=list)


def train(plan: Plan, context: Context) -> dict[str, Any]:
    """Fit a method and write its model folder.

    Learns from the images and tags of the part to learn from; if there are masks for the part to score on,
    uses those for the curves. Writes ``train/`` (log.csv, scores.csv, events, checkpoints/, best/) and
    ``model/``.

    Args:
        plan: What `prepare_training` gave.
        context: The run.

    Returns:
        Figures worth keeping: iterations, skipped updates, best and last scores.

    Raises:
        Stopped: A stop signal came; the state was saved.
        UserError: Corrections or images cannot be read, or the disk refuses.
    """
    job, config, runtime, method = plan.job, plan.job.config, context.runtime, plan.method
    if config.heads:
        return fit_classifiers(plan, config.heads, context)
    corrections = read_corrections(config, context, plan.dataset, method)
    dataset = plan.dataset if corrections is None else corrections.dataset
    aside = kept_aside(context, method, dataset)
    checkpoints = Checkpoints(context.out / "train" / "checkpoints", config.keep)
    newest, before = plan.newest, plan.before
    plain_training = config.start is None and corrections is None
    module = method if plain_training else WithCorrections(method, before, config.corrections_weight)
    wrapped = runtime.wrap(module, method.sync_norms)
    optim = _paced(method.optim_plan(config.iterations), config.rate)
    optimizer = build_optimizer(optim)
    done = int(newest[1]["progress"]["step"]) if newest else 0
    batches = draw_batches(config, context, dataset, plan.view, done, corrections)
    extra = {"use": job.use, "before": before} if before else {"use": job.use}
    extra |= dataset.pixels
    with ExitStack() as stack:
        task = stack.enter_context(context.display.task("train", config.iterations, done))
        records = Records(context.out / "train", runtime.rank, done)
        run = _Run(config, context, job.name, method, dataset, Progress(), task, records)
        watched = _watch(run, done)
        _open_logs(run, stack, done)
        # Last of all: opening loaders and logs draws random numbers, which a resumed run must not see.
        if newest is not None:
            run.progress = restore(method, optimizer, runtime, *newest)
        hooks = Hooks(
            log=lambda step, figures: _on_log(run, watched, batches, step, figures),
            evaluate=lambda step: _on_evaluate(run, watched, plan.truth, extra, step),
            save=lambda step: _on_save(
                run, watched, checkpoints, capture(method, optimizer, runtime, run.progress)
            ),
            skipped=records.skipped,
            tick=lambda step: _on_step(run, watched, step),
        )
        context.callbacks.call("on_start", watched)
        try:
            whole = map(partial(on_patches, multiple=method.side_multiple), batches)
            fit(wrapped, whole, optimizer, optim, runtime, config.loop(), run.progress, hooks)
        finally:
            records.broken(batches.broken)
        context.callbacks.call("on_end", watched)
    results = _finish(run, extra)
    if aside is not None:
        method.eval()
        results["tags"] = score_tags(method, aside, runtime, context.display, config.tag_side)
    return results


def _watch(run: _Run, step: int) -> Training:
    """The training as callbacks see it."""
    names, folder = run.dataset.classes.names, run.context.out / "train"
    return Training(run.method, names, folder, run.config.iterations, step)


def _on_step(run: _Run, watched: Training, step: int) -> None:
    watched.step = step
    run.task.advance()
    run.context.callbacks.call("on_step", watched)


def _paced(plan: OptimPlan, rate: float) -> OptimPlan:
    """The same plan with every base rate multiplied."""
    return replace(plan, groups=[replace(group, lr=group.lr * rate) for group in plan.groups])


def _open_logs(run: _Run, stack: ExitStack, step: int) -> None:
    if not run.context.runtime.is_main:
        return
    folder = run.context.out / "train"
    run.logs.append(CsvLog(folder / "log.csv", step))
    run.scores.append(CsvLog(folder / "scores.csv", step))
    board = ["tensorboard"] if run.config.tensorboard else []
    values = {"method": run.name, **run.config.model_dump(mode="json")}
    opened = open_loggers([*board, *run.context.loggers], folder, step, values, stack)
    run.logs += opened
    run.scores += opened


def _on_log(
    run: _Run,
    watched: Training,
    batches: TrainBatches | BothBatches,
    step: int,
    figures: Mapping[str, float],
) -> None:
    watched.figures = dict(figures)
    for log in run.logs:
        log.write(step, figures)
    run.task.show({k: v for k, v in figures.items() if k not in _NOT_SHOWN})
    if run.records.broken(batches.broken):
        names = ", ".join(sorted(batches.broken)[:5])
        run.context.display.say(f"{len(batches.broken)} images cannot be read and are left out: {names}")


def _on_evaluate(
    run: _Run, watched: Training, truth: TagDataset | None, extra: Mapping[str, Any], step: int
) -> bool:
    """Score the method; whether a callback wants to end here."""
    if truth is None:
        return False
    config, progress = run.config, run.progress
    views = None if config.eval_segment is None else config.eval_segment.of(type(run.method))
    how = (config.eval_maps, config.eval_background, views)
    found = validate_method(run.method, truth, run.context.runtime, run.context.display, *how)
    scores = progress.scores = {name: each.miou for name, each in found.items()}
    progress.doubts = next((each.doubts(truth.classes.labels) for each in found.values()), [])
    keep_scores(run.scores, step, scores, progress.doubts)
    figures = figures_text({k: 100 * v for k, v in scores.items()})
    run.context.display.say("; ".join([f"step {step}: mIoU  {figures}", *progress.doubts]))
    key = config.best_by or ("segmentation" if run.method.segments else next(iter(scores)))
    if key not in scores:
        raise ConfigError(f"train.best_by is '{key}', but the scores are {', '.join(scores)}")
    if progress.best is None or scores[key] > progress.best:
        progress.best, progress.best_step = scores[key], step
        if run.context.runtime.is_main:
            folder = run.context.out / "train" / "best"
            about = {**extra, "step": step, "doubts": progress.doubts}
            save_method(folder, run.method, run.name, run.dataset.classes, scores, about)
    watched.scores = dict(scores)
    return run.context.callbacks.call("on_evaluate", watched)


def _on_save(
    run: _Run, watched: Training, checkpoints: Checkpoints, state: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    if run.context.runtime.is_main:
        checkpoints.write(run.progress.step, *state)
    run.context.runtime.barrier()
    run.context.callbacks.call("on_save", watched)


def _finish(run: _Run, extra: Mapping[str, Any]) -> dict[str, Any]:
    progress, folder = run.progress, run.context.out
    best = folder / "train" / "best"
    if run.context.runtime.is_main:
        extra = {**extra, "step": progress.step, "chosen": "last", "doubts": progress.doubts}
        if run.config.final == "best" and (best / "weights.safetensors").exists():
            _use_best(run, best, extra)
        else:
            save_method(folder / "model", run.method, run.name, run.dataset.classes, progress.scores, extra)
    run.context.runtime.barrier()
    return {
        "iterations": progress.step,
        "skipped": progress.skipped,
        "scores": progress.scores,
        "doubts": progress.doubts,
        "best": progress.best,
        "best_step": progress.best_step,
    }


def _use_best(run: _Run, best: Path, extra: Mapping[str, Any]) -> None:
    trained = load_trained(best)
    if trained.classes != run.dataset.classes:
        raise CheckpointError(f"{best} belongs to other classes; delete it and train again")
    chosen = {**extra, "chosen": "best", "step": trained.meta["extra"]["step"]}
    metrics = trained.meta["metrics"]
    save_method(run.context.out / "model", trained.method, run.name, trained.classes, metrics, chosen)


def _check(config: TrainConfig, context: Context) -> None:
    check_training(config, context.settings.method, context)


def _needless(context: Context) -> str | None:
    given = context.settings.checkpoint
    return None if given is None else f"the model is {given}"


def _decides(config: TrainConfig, settings: Settings) -> dict[str, Any]:
    about = {"method": settings.method, "model": dict(settings.model), **plain(config)}
    return about | {"precision": settings.runtime.precision, "seed": settings.runtime.seed}


def _reads(config: TrainConfig, context: Context) -> dict[str, Any]:
    part = taught_part(methods.get(context.settings.method), context)
    inputs: dict[str, Any] = {"data": data_checksum(context, part)}
    if config.labels is not None:
        inputs["labels"] = fingerprint(config.labels)["sha256"]
    if config.corrections is not None:
        inputs["corrections"] = fingerprint(config.corrections)["sha256"]
    if config.start is not None:
        inputs["start"] = load_trained(config.start).checksum
    return inputs


def _prepare(config: TrainConfig, context: Context) -> Plan:
    settings = context.settings
    values = settings.model_dump(mode="json")
    # How the run uses the model later is how others should use it, too.
    use = {
        "localize": values["localize"],
        "segment": values["segment"],
        "background": values["evaluate"]["background"],
    }
    return prepare_training(Job(config, settings.method, settings.model, use), context)


TRAIN = Step(
    "train",
    writes=("model",),
    reads=_reads,
    prepare=_prepare,
    work=train,
    check=_check,
    needless=_needless,
    decides=_decides,
    private=("train",),
    free=("accumulate", "labels", "corrections", "start"),
    smaller="It was not the update itself: lower train.eval_maps.size, or leave evaluation out with "
    "train.eval_every=0",
)
"""Images and tags to a model."""

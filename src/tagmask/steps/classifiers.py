"""A training without updates: the backbone stands still, and its classifiers are fitted to its tokens."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tagmask.data.loader import TrainBatches, train_batches
from tagmask.data.transforms.banded import for_bands
from tagmask.data.transforms.base import make_view
from tagmask.engine.lanes import in_lanes, lanes_for
from tagmask.engine.log import CsvLog
from tagmask.engine.signals import StopSignal
from tagmask.errors import ConfigError
from tagmask.methods.base import Method
from tagmask.models.trained import save_method
from tagmask.steps.base import Context
from tagmask.steps.fitting import Plan, kept_aside
from tagmask.training.heads import HeadsConfig, TokenBank, fit_head
from tagmask.training.padding import on_patches
from tagmask.training.tag_scores import score_tags
from tagmask.types import Batch

__all__ = ["fit_classifiers"]

Fit = dict[str, tuple[Tensor, Tensor]]
"""Weights (K, D) and bias (K,) of every head."""
_LOOKED_AT = 80


def fit_classifiers(plan: Plan, settings: HeadsConfig, context: Context) -> dict[str, Any]:
    """Compute the tokens of ``iterations x batch_size`` views once, fit every linear head to all of them.

    Writes ``train/log.csv`` and ``model/``. Stopped, it begins again: the tokens are not kept.

    Args:
        plan: What `prepare_training` gave.
        settings: How the heads are fitted.
        context: The run.

    Returns:
        Figures worth keeping: updates, views and, if images are kept aside, scores of their tags.

    Raises:
        ConfigError: The method has no linear heads, or its backbone learns.
        Stopped: A stop signal came; nothing was written.
        UserError: Images cannot be read, or the disk refuses.
    """
    job, method, runtime = plan.job, plan.method.to(context.runtime.device), context.runtime
    dataset, config = plan.dataset, plan.job.config
    aside = kept_aside(context, method, dataset)
    bank = _collect(plan, context)
    log = CsvLog(context.out / "train" / "log.csv") if runtime.is_main else None
    for head, (weight, bias) in _fit(bank, method, settings, context, log).items():
        method.set_head(head, weight, bias)
    method.eval()
    if runtime.is_main:
        extra = {"use": job.use, "step": config.iterations, "chosen": "last", "doubts": []} | dataset.pixels
        save_method(context.out / "model", method, job.name, dataset.classes, {}, extra)
    runtime.barrier()
    results: dict[str, Any] = {"iterations": config.iterations, "views": bank.used}
    if aside is not None:
        results["tags"] = score_tags(method, aside, runtime, context.display, config.tag_side)
    return results


def _fit(bank: TokenBank, method: Method, settings: HeadsConfig, context: Context, log: CsvLog | None) -> Fit:
    """Weights and bias of every head."""
    runtime, used = context.runtime, bank.used
    found: Fit = {}
    for head in sorted(bank.tokens):
        figures: dict[int, float] = {}
        weight, bias = fit_head(
            bank.tokens[head][:used],
            bank.tags[:used],
            *method.head_reading(head),
            settings,
            runtime.seed,
            runtime.device,
            figures.__setitem__,
        )
        if not bool(torch.isfinite(weight).all() and torch.isfinite(bias).all()):
            raise ConfigError(
                f"the classifier '{head}' became infinite; the weights or the data are broken, or "
                "train.heads.rate is too high"
            )
        found[head] = (weight, bias)
        if log is not None:
            for step, loss in figures.items():
                log.write(step, {head: loss})
    return found


@dataclass
class _Views:
    """A batch of views, and what the backbone finds in them."""

    batch: Batch
    found: dict[str, Tensor] = field(default_factory=dict)


def _collect(plan: Plan, context: Context) -> TokenBank:
    """Tokens of random views; every process computes all."""
    config, method, runtime = plan.job.config, plan.method.eval(), context.runtime
    bank: TokenBank | None = None
    # Crops say what a class looks like; whole images, in which most places are not of the class, say on which
    # side of an outline it is. With fewer than two thirds of these, maps of some classes turned inside out.
    kinds = (_whole_images(plan), _whole_images(plan), plan.view)
    batches = [_batches(plan, view, context.runtime.seed + i) for i, view in enumerate(kinds)]
    taken = (batch for turn in zip(*batches, strict=False) for batch in turn)
    ready = map(partial(on_patches, multiple=method.side_multiple), taken)
    jobs = (_Views(batch) for _, batch in zip(range(config.iterations), ready, strict=False))

    def work(views: _Views) -> None:
        with runtime.predicting():
            views.found = method.head_tokens(views.batch.images.to(runtime.device))

    lanes = in_lanes(work, jobs, lanes_for(runtime.device, method), lambda _: False)
    with StopSignal() as stop, context.display.task("train", config.iterations) as task, closing(lanes):
        for views in lanes:
            _refuse_none(views.found, method)
            tags = views.batch.tags
            bank = bank or TokenBank.sized(views.found, tags, config.iterations * config.batch_size)
            bank.add(views.found, tags)
            task.advance()
            stop.check("train stopped; it begins again, for tokens are not kept")
            if bank.full:
                break
    if broken := {name for own in batches for name in own.broken}:
        names = ", ".join(sorted(broken)[:5])
        context.display.say(f"{len(broken)} images cannot be read and are left out: {names}")
    if bank is None:  # iterations is at least 1, so the loader gave nothing
        raise ConfigError("there is no image to learn from")
    return bank


def _whole_images(plan: Plan) -> Any:
    """A view of the whole image as a square, sometimes mirrored."""
    whole = make_view("resized_crop", plan.job.config.size, scale=(1.0, 1.0), jitter=0.0)
    return for_bands(whole, plan.dataset.channels)


def _batches(plan: Plan, view: Any, seed: int) -> TrainBatches:
    config = plan.job.config
    return train_batches(
        plan.dataset,
        view,
        config.batch_size,
        seed,
        num_workers=config.workers or 0,
        max_side=config.max_side,
        broken_limit=config.broken_limit,
    )


def _refuse_none(found: dict[str, Any], method: Method) -> None:
    if not found:
        raise ConfigError(
            f"train.heads: {type(method).__name__} with these settings has no linear classifiers on a "
            "backbone that is frozen; use method more with model.train_blocks=0, model.aux_norm=true and "
            "poolings mean, top, tenth or lse, or leave train.heads out"
        )

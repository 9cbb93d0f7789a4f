"""How training runs: one loop by iteration that knows no method and no data set."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from tagmask.engine.runtime import Runtime, out_of_memory
from tagmask.engine.signals import Stopped, StopSignal
from tagmask.errors import DataError, UserError
from tagmask.ops.checks import NotFiniteError
from tagmask.training.finite import Buffers, Streak, left_finite, nothing_learned, require_finite_state
from tagmask.training.optim import set_rates, skip_if
from tagmask.training.state import Progress
from tagmask.types import Batch, OptimPlan, StepResult

__all__ = ["Hooks", "LoopSettings", "fit"]


@dataclass(frozen=True)
class LoopSettings:
    """How long, and how often what happens.

    Attributes:
        iterations: Updates of the whole run.
        accumulate: Micro-batches per update; their gradients are averaged.
        log_every: Updates between two looks at the losses (the only time the device is waited for).
        eval_every: Updates between two evaluations; 0 for none before the end.
        save_every: Updates between two saved states; 0 for the end only.
        max_bad: Stop after this many updates in a row whose loss or gradient was not finite. While a gradient
            scaler looks for its factor, gradients may overflow 40 times more.
    """

    iterations: int
    accumulate: int = 1
    log_every: int = 20
    eval_every: int = 0
    save_every: int = 0
    max_bad: int = 20


@dataclass(frozen=True)
class Hooks:
    """What the loop calls; plain functions that get the number of finished updates.

    Attributes:
        log: (step, figures): mean losses since the last call, rate, gradient norm, speed.
        evaluate: (step): called in eval mode; True ends the training here.
        save: (step): called when a state should be written.
        skipped: (step, names): an update was not finite and changed nothing; told at the next log, with the
            names of its images in this process.
        tick: (step): after every update, for a progress bar; must not touch the device.
    """

    log: Callable[[int, Mapping[str, float]], None] = lambda step, figures: None
    evaluate: Callable[[int], bool | None] = lambda step: None
    save: Callable[[int], None] = lambda step: None
    skipped: Callable[[int, tuple[str, ...]], None] = lambda step, names: None
    tick: Callable[[int], None] = lambda step: None


@dataclass
class _Window:
    """What happened since the last log, still on the device."""

    names: list[tuple[str, ...]] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)
    bad: list[Tensor] = field(default_factory=list)
    idle: list[Tensor] = field(default_factory=list)
    logs: list[Mapping[str, Tensor]] = field(default_factory=list)
    images: int = 0
    start: float = field(default_factory=time.perf_counter)


def fit(
    method: nn.Module,
    batches: Iterator[Batch],
    optimizer: Optimizer,
    plan: OptimPlan,
    runtime: Runtime,
    settings: LoopSettings,
    progress: Progress,
    hooks: Hooks,
) -> None:
    """Train until `settings.iterations` updates are done.

    An update whose loss or gradient is not finite is skipped on the device and counted; weights and buffers
    stay as they were. A stop signal lets the update finish, saves, and raises. Nothing that is not finite is
    evaluated or saved.

    Args:
        method: ``method(batch, step) -> StepResult``, on its device, wrapped by `Runtime.wrap`.
        batches: Micro-batches, endless, positioned at ``progress.step * settings.accumulate``.
        optimizer: Made from `plan` by `build_optimizer`.
        plan: The method's rates and clipping.
        runtime: Device, precision, processes.
        settings: How long and how often.
        progress: Where to start; kept up to date.
        hooks: What to call.

    Raises:
        Stopped: A stop signal came; the state was saved.
        UserError: Too many updates in a row were not finite, no update changed anything, the weights left the
            finite numbers, memory ran out, or the data gave up.
    """
    params = [param for group in optimizer.param_groups for param in group["params"]]
    buffers = Buffers(method)
    window, streak, asked = _Window(), Streak(), None
    method.train()
    with StopSignal() as stop:
        for step in range(progress.step, settings.iterations):
            rates = set_rates(optimizer, plan, step)
            buffers.keep()
            try:
                _step(method, batches, runtime, settings.accumulate, step, window)
            except NotFiniteError as error:
                raise UserError(left_finite(step + 1, error)) from None
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                raise UserError(_too_large(step, settings.accumulate, error)) from None
            _update(optimizer, params, plan, runtime, window)
            buffers.restore_if(window.idle[-1])
            progress.step = done = step + 1
            hooks.tick(done)
            last = done == settings.iterations
            evaluate = last or _due(done, settings.eval_every)
            # With several processes the answer lags one step, so that nobody waits for it.
            stopping, asked = _exchange(stop.requested, asked, runtime)
            save = last or stopping is not None or _due(done, settings.save_every)
            if step == 0 or evaluate or save or _due(done, settings.log_every):
                _report(window, runtime, settings, progress, hooks, rates[0], streak)
                window = _Window()
            if evaluate or save:
                require_finite_state(method, done)
            if last and progress.skipped + streak.overflows >= done:
                raise UserError(nothing_learned(done))
            if evaluate:
                method.eval()
                enough = bool(hooks.evaluate(done))
                method.train()
                window.start = time.perf_counter()
            if save or (evaluate and enough):
                hooks.save(done)
            if evaluate and enough:
                return
            if stopping is not None and not last:
                raise Stopped(stopping, f"stopped after {done} of {settings.iterations} iterations")


def _due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0


def _step(
    method: nn.Module, batches: Iterator[Batch], runtime: Runtime, parts: int, step: int, window: _Window
) -> None:
    """Forward and backward of one update."""
    losses: list[Tensor] = []
    names: list[str] = []
    for part in range(parts):
        batch = _next(batches).to(runtime.device)
        runtime.reseed_part((step * parts + part) * runtime.world + runtime.rank)
        with runtime.accumulating(method, last=part == parts - 1):
            with runtime.autocast():
                result: StepResult = method(batch, step)
            runtime.backward(result.loss / parts)
        losses.append(result.loss.detach().reshape(()).float())
        names.extend(batch.names)
        window.logs.append(result.logs)
        window.images += len(batch.names)
    window.losses.append(torch.stack(losses).mean())
    window.names.append(tuple(names))


def _next(batches: Iterator[Batch]) -> Batch:
    try:
        return next(batches)
    except StopIteration:
        raise DataError("the data ended before the training did; training needs an endless loader") from None
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"a data worker died ({str(error).splitlines()[0]}). Often memory or /dev/shm is full: "
            "lower train.workers (0 loads in the main process)"
        ) from None


def _update(
    optimizer: Optimizer, params: list[nn.Parameter], plan: OptimPlan, runtime: Runtime, window: _Window
) -> None:
    """Clip and apply the gradients, unless they are not finite."""
    if runtime.scaler is not None:
        runtime.scaler.unscale_(optimizer)
    grads = [param.grad for param in params if param.grad is not None]
    norm = get_total_norm(grads)
    if plan.max_grad_norm is not None:
        clip_grads_with_norm_(params, plan.max_grad_norm, norm)
    broken = runtime.reduce((~torch.isfinite(window.losses[-1])).float())
    bad = (broken > 0) | ~torch.isfinite(norm)
    if runtime.scaler is not None:
        runtime.scaler.step(optimizer)
        runtime.scaler.update()
    else:
        skip_if(optimizer, bad)
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    window.norms.append(norm)
    # The scaler of fp16 overflows deliberately now and then; only a broken loss counts there.
    window.bad.append(broken > 0 if runtime.scaler is not None else bad)
    window.idle.append(bad)


def _exchange(mine: int | None, asked: Tensor | None, runtime: Runtime) -> tuple[int | None, Tensor | None]:
    if runtime.world == 1:
        return mine, None
    total, count = asked.tolist() if asked is not None else (0.0, 0.0)
    flags = torch.tensor([float(mine or 0), float(mine is not None)])
    return round(total / count) if count else None, runtime.reduce(flags)


def _report(
    window: _Window,
    runtime: Runtime,
    settings: LoopSettings,
    progress: Progress,
    hooks: Hooks,
    rate: float,
    streak: Streak,
) -> None:
    """Read the window off the device, log it, and judge the run of skipped updates."""
    bad, idle = torch.stack([torch.stack(window.bad), torch.stack(window.idle)]).tolist()
    last: list[int] = []
    for number, (flag, nothing) in enumerate(zip(bad, idle, strict=True)):
        streak.bad = streak.bad + 1 if flag else 0
        streak.idle = streak.idle + 1 if nothing else 0
        streak.overflows += nothing and not flag
        last = [*last, number] if nothing else []
        if flag:
            hooks.skipped(progress.step - len(bad) + number + 1, window.names[number])
        if streak.too_long(settings.max_bad):
            break
    progress.skipped += sum(bad)
    good = [i for i, flag in enumerate(bad) if not flag]
    figures = _means(window, good, runtime)
    seconds = time.perf_counter() - window.start
    figures |= {
        "lr": rate,
        "skipped": float(progress.skipped),
        "steps_per_second": len(bad) / seconds,
        "images_per_second": window.images * runtime.world / seconds,
    }
    hooks.log(progress.step, figures)
    if streak.too_long(settings.max_bad):
        images = sorted({name for number in last for name in window.names[number]})
        row = max(streak.bad, streak.idle)
        raise UserError(
            f"the loss or its gradient was not finite in {row} updates in a row up to step {progress.step}: "
            f"nothing was learned from them. Images of the last ones: {', '.join(images[:12])}. "
            "Look at these images, lower the learning rate, or use --precision fp32"
        )


def _means(window: _Window, good: list[int], runtime: Runtime) -> dict[str, float]:
    """Mean over the finite updates of the window and over all processes, in one transfer."""
    parts = len(window.logs) // len(window.bad)
    columns: dict[str, list[Tensor]] = {"loss": [window.losses[i] for i in good]}
    for i in good:
        for logs in window.logs[i * parts : (i + 1) * parts]:
            for name, value in logs.items():
                columns.setdefault(name, []).append(value.detach().reshape(()).float())
    columns["grad_norm"] = [window.norms[i].float() for i in good]
    filled = {name: values for name, values in columns.items() if values}
    if not filled:
        return {}
    means = torch.stack(
        [torch.stack([v.to(runtime.device) for v in values]).mean() for values in filled.values()]
    )
    return dict(zip(filled, runtime.reduce(means, "mean").tolist(), strict=True))


def _too_large(step: int, parts: int, error: BaseException) -> str:
    reason = (str(error).splitlines() or ["allocation failed"])[0]
    return (
        f"memory ran out at step {step} ({reason}). Raise train.accumulate to {2 * parts} (the same "
        "update in half the memory), set train.gradient_checkpointing=true, lower train.size or "
        "train.batch_size, or use --precision bf16"
    )

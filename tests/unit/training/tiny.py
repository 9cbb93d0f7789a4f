"""A method of a few numbers, to test what surrounds methods."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from tagmask.engine.runtime import Runtime
from tagmask.training.loop import Hooks, LoopSettings, fit
from tagmask.training.optim import build_optimizer
from tagmask.training.state import Progress, restore
from tagmask.types import Batch, OptimPlan, ParamGroup, StepResult


class Tiny(nn.Module):
    """Mean colour to tags, with dropout so that the random stream matters."""

    def __init__(self, optimizer: str = "adamw") -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.unused = nn.Linear(2, 2)
        self.optimizer = optimizer
        self.drop = 0.3
        self.poison: set[int] = set()

    def forward(self, batch: Batch, step: int) -> StepResult:
        mean = nn.functional.dropout(batch.images.mean((2, 3)), self.drop, self.training)
        loss = nn.functional.binary_cross_entropy_with_logits(self.layer(mean), batch.tags)
        if step in self.poison:
            loss = loss * float("nan")
        return StepResult(loss, {"cls": loss.detach()})

    def optim_plan(self, iterations: int) -> OptimPlan:
        groups = [ParamGroup("all", list(self.parameters()), 0.05, 0.01)]
        return OptimPlan(self.optimizer, groups, lambda step: 1 - step / iterations, momentum=0.9)


def batches(start: int, size: int = 4) -> Iterator[Batch]:
    step = start
    while True:
        rng = torch.Generator().manual_seed(step)
        images = torch.rand((size, 3, 4, 4), generator=rng)
        tags = (torch.rand((size, 2), generator=rng) > 0.5).float()
        yield Batch(images, tags, tuple(f"{step}-{i}" for i in range(size)))
        step += 1


def train(
    method: Tiny,
    iterations: int,
    hooks: Hooks | None = None,
    saved: tuple[dict[str, Tensor], dict[str, object]] | None = None,
    total: int | None = None,
    **settings: int,
) -> tuple[Progress, torch.optim.Optimizer, Runtime]:
    runtime = Runtime.create("cpu", seed=3)
    plan = method.optim_plan(total or iterations)
    optimizer = build_optimizer(plan)
    progress = restore(method, optimizer, runtime, *saved) if saved else Progress()
    options = LoopSettings(iterations, **settings)
    data = batches(progress.step * options.accumulate)
    fit(method, data, optimizer, plan, runtime, options, progress, hooks or Hooks())
    return progress, optimizer, runtime

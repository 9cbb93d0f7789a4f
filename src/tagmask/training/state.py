"""Everything that decides how a training continues: taken from a running one, put back into a new one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tagmask.engine.runtime import Runtime
from tagmask.errors import CheckpointError
from tagmask.training.optim import load_optimizer, optimizer_tensors

__all__ = ["Progress", "capture", "restore"]


@dataclass
class Progress:
    """How far a training is.

    Attributes:
        step: Updates done; also the position in the data, which is a function of the step.
        skipped: Updates skipped because the loss or a gradient was not finite.
        best: Best score so far; None before the first evaluation.
        best_step: Step of the best score.
        scores: The latest evaluation.
        doubts: What to bear in mind about these scores, see `Scores.doubts`.
    """

    step: int = 0
    skipped: int = 0
    best: float | None = None
    best_step: int | None = None
    scores: dict[str, float] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)


def capture(
    method: nn.Module, optimizer: Optimizer, runtime: Runtime, progress: Progress
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Named tensors and plain values from which `restore` continues; every process must take part.

    Args:
        method: The method itself, not its wrapper for several processes.
        optimizer: Its optimiser.
        runtime: Holds the random streams and the gradient scaler.
        progress: How far the training is.
    """
    tensors = {f"model.{name}": value for name, value in method.state_dict().items()}
    tensors |= {f"optim.{name}": value for name, value in optimizer_tensors(optimizer).items()}
    tensors |= {f"rng.{name}": value for name, value in runtime.rng_state().items()}
    values: dict[str, Any] = {"progress": vars(progress), "world": runtime.world}
    if runtime.scaler is not None:
        values["scaler"] = runtime.scaler.state_dict()
    return tensors, values


def restore(
    method: nn.Module,
    optimizer: Optimizer,
    runtime: Runtime,
    tensors: Mapping[str, Tensor],
    values: Mapping[str, Any],
) -> Progress:
    """Put a captured state back.

    Returns:
        How far the training was.

    Raises:
        CheckpointError: The state belongs to another method, other settings or other classes.
    """
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "optim": {}, "rng": {}}
    for name, value in tensors.items():
        kind, rest = name.split(".", maxsplit=1)
        groups[kind][rest] = value
    try:
        method.load_state_dict(groups["model"])
        load_optimizer(optimizer, groups["optim"])
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(
            f"the saved training does not fit these settings ({reason}); resume with the settings it was "
            "started with, or start a new one with another --out"
        ) from None
    if runtime.scaler is not None and "scaler" in values:
        runtime.scaler.load_state_dict(values["scaler"])
    with torch.no_grad():
        runtime.set_rng_state(groups["rng"])
    return Progress(**values["progress"])

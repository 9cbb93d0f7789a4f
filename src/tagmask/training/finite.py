"""What keeps a training within the finite numbers: buffers that come back, streaks that end, checks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tagmask.errors import UserError
from tagmask.models.checkpoint import non_finite

__all__ = ["Buffers", "Streak", "left_finite", "nothing_learned", "require_finite_state"]


@dataclass
class Streak:
    """Updates in a row up to now that changed nothing.

    Attributes:
        bad: Whose loss (without a gradient scaler also whose gradient) was not finite.
        idle: Which were skipped for whatever reason.
        overflows: Skipped by the gradient scaler alone, over the whole call.
    """

    bad: int = 0
    idle: int = 0
    overflows: int = 0

    def too_long(self, most: int) -> bool:
        """Whether it is time to stop, with `most` updates in a row allowed."""
        # Halved 40 times, a scaler's first factor has nothing left to overflow with.
        return self.bad >= most or self.idle >= most + 40


class Buffers:
    """What forward passes write beside the weights (batch statistics), and what it was before an update."""

    def __init__(self, method: nn.Module) -> None:
        norms = [m for m in method.modules() if getattr(m, "track_running_stats", False)]
        self._now = [buffer for norm in norms for buffer in norm.buffers()]
        self._before = [torch.empty_like(buffer) for buffer in self._now]

    @torch.no_grad()
    def keep(self) -> None:
        """Remember the buffers as they are."""
        for before, now in zip(self._before, self._now, strict=True):
            before.copy_(now)

    @torch.no_grad()
    def restore_if(self, flag: Tensor) -> None:
        """Put them back if `flag` (scalar tensor) is true, without reading it on the host."""
        for before, now in zip(self._before, self._now, strict=True):
            now.copy_(torch.where(flag, before, now))


def left_finite(step: int, reason: Exception) -> str:
    """What to tell when an update met values that are not finite before it had a loss."""
    return (
        f"training left the finite numbers in update {step} ({reason}). The states saved before are whole: "
        "lower the learning rate, or use --precision fp32"
    )


def require_finite_state(method: nn.Module, step: int) -> None:
    """Refuse to continue with weights or buffers that hold NaN or infinity.

    Raises:
        UserError: Some do.
    """
    broken = non_finite(method.state_dict())
    if broken:
        raise UserError(
            f"after {step} updates the weights are no longer finite numbers ({broken[0]}"
            f"{f' and {len(broken) - 1} more' if len(broken) > 1 else ''}): the learning rate is too large. "
            "They were not saved; states saved before are good. Lower the rates of the method, or train.rate"
        )


def nothing_learned(steps: int) -> str:
    """What to say of a run in which every update was skipped."""
    return (
        f"none of {steps} updates had a finite loss and gradient: nothing was learned, no model is written. "
        "Lower the learning rate, check the settings of the method, or use --precision fp32"
    )

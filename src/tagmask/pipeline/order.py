"""The steps of a run, in order. A new step is a file in `tagmask.steps` and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from tagmask.errors import ConfigError, nearest
from tagmask.steps.base import Step
from tagmask.steps.entropy import ENTROPY
from tagmask.steps.evaluate import EVALUATE
from tagmask.steps.learners import AFFINITY, STUDENT
from tagmask.steps.localize import LOCALIZE
from tagmask.steps.refine import REFINE
from tagmask.steps.report import REPORT
from tagmask.steps.review import REVIEW
from tagmask.steps.segment import SEGMENT
from tagmask.steps.train import TRAIN
from tagmask.steps.walk import WALK

__all__ = ["ALL_STEPS", "STEPS", "choose_steps"]

_ORDER = (TRAIN, LOCALIZE, REFINE, AFFINITY, WALK, STUDENT, SEGMENT, EVALUATE, REPORT)
_BESIDE = (ENTROPY, REVIEW)

STEPS = tuple(step.name for step in _ORDER)
"""Names of the steps of a run, in order."""
ALL_STEPS: Mapping[str, Step] = {step.name: step for step in (*_ORDER, *_BESIDE)}
"""Every step by name, those included that can be done with a run beside its order."""


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

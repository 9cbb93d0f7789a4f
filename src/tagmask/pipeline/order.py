"""The steps of a run, in the order of their sections in `tagmask.pipeline.config.RunConfig`."""

from __future__ import annotations

from collections.abc import Mapping

from tagmask.errors import ConfigError, nearest
from tagmask.pipeline.config import RunConfig
from tagmask.steps.base import Step

__all__ = ["ALL_STEPS", "STEPS", "choose_steps"]

ALL_STEPS: Mapping[str, Step] = {
    step.name: step
    for field in RunConfig.model_fields.values()
    for step in field.metadata
    if isinstance(step, Step)
}
"""Every step by name, those included that can be done with a run beside its order."""
STEPS = tuple(name for name, step in ALL_STEPS.items() if not step.beside)
"""Names of the steps of a run, in order."""


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

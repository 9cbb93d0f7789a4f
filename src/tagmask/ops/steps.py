"""Whether attention runs step by step although nobody asks for what is inside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["in_steps", "steps"]

_STEPS = ContextVar("steps", default=False)


@contextmanager
def steps(wanted: bool = True) -> Iterator[None]:
    """Inside, blocks run step by step even where nobody asks for their attention.

    So that passes over the same pixels, of which one asks, are the same computation in a traced graph.
    """
    token = _STEPS.set(wanted)
    try:
        yield
    finally:
        _STEPS.reset(token)


def in_steps() -> bool:
    """Whether blocks shall run step by step, see `steps`."""
    return _STEPS.get()

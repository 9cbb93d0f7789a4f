"""What a program may do while a training runs: look, stop early, keep its own records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tagmask.errors import ConfigError, nearest
from tagmask.methods.base import Method

__all__ = ["Callback", "Callbacks", "EarlyStop", "Training"]


@dataclass
class Training:
    """A training as callbacks see it.

    Attributes:
        method: The method that learns.
        classes: Names of its foreground classes.
        folder: Where the training writes until it is complete.
        iterations: Updates of the whole run.
        step: Updates done.
        figures: The losses and rates that were logged last.
        scores: The latest evaluation, mean IoU by what was scored.
    """

    method: Method
    classes: tuple[str, ...]
    folder: Path
    iterations: int
    step: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)


class Callback:
    """Base of callbacks; any object with some of these functions will do.

    With several processes every one of them calls; what they do must not differ between them.
    """

    def on_start(self, training: Training) -> None:
        """Before the first update, or the first after a resumed state."""

    def on_step(self, training: Training) -> None:
        """After every update; reading tensors here makes every step wait for the device."""

    def on_evaluate(self, training: Training) -> bool | None:
        """After an evaluation; True ends the training here, as if it had been that long."""

    def on_save(self, training: Training) -> None:
        """After a state was saved."""

    def on_end(self, training: Training) -> None:
        """After the last update; not if the training fails or is stopped by a signal."""


class EarlyStop(Callback):
    """End a training whose score has stopped rising.

    Args:
        patience: Evaluations without a better score after which it ends.
        key: Which score; the mean of all if None.
        min_delta: A score is better if it is higher by more than this.

    Raises:
        ConfigError: The patience is below 1.
    """

    def __init__(self, patience: int = 3, key: str | None = None, min_delta: float = 0.0) -> None:
        if patience < 1:
            raise ConfigError(f"patience must be at least 1, got {patience}")
        self.patience, self.key, self.min_delta = patience, key, min_delta
        self._best, self._waited = float("-inf"), 0

    def on_start(self, training: Training) -> None:
        """Forget an earlier training."""
        self._best, self._waited = float("-inf"), 0

    def on_evaluate(self, training: Training) -> bool:
        """Compare the score with the best one.

        Raises:
            ConfigError: There is no such score.
        """
        scores = training.scores
        if self.key is not None and self.key not in scores:
            raise ConfigError(f"no score is called '{self.key}'. {nearest(self.key, scores)}")
        score = scores[self.key] if self.key is not None else sum(scores.values()) / len(scores)
        better = score > self._best + self.min_delta
        self._best, self._waited = max(score, self._best), 0 if better else self._waited + 1
        return self._waited >= self.patience


class Callbacks:
    """Several callbacks as one.

    Args:
        given: Objects with some of the functions of `Callback`.

    Raises:
        ConfigError: One has none of them.
    """

    def __init__(self, given: Sequence[Any] = ()) -> None:
        names = [name for name in vars(Callback) if name.startswith("on_")]
        for one in given:
            if not any(callable(getattr(one, name, None)) for name in names):
                raise ConfigError(f"a callback has one of {', '.join(names)}; {one!r} has none")
        self._given = tuple(given)

    def call(self, name: str, training: Training) -> bool:
        """Call all that have a function of this name; whether one of them said True."""
        functions: list[Callable[[Training], Any]] = [
            getattr(one, name) for one in self._given if callable(getattr(one, name, None))
        ]
        # Every one of them, also behind one that says True.
        answers = [function(training) for function in functions]
        return any(answer is True for answer in answers)

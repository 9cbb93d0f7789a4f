"""The model learns from what was corrected at the page, while people go on looking."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tagmask.app.desk import Desk
from tagmask.engine.compute import Compute
from tagmask.errors import ConfigError, UserError, one_line
from tagmask.model import Model
from tagmask.models.trained import Trained
from tagmask.training.lessons import Lesson, Taught
from tagmask.training.teach import teach

__all__ = ["Classroom"]

_OTHERS = 60
"""Images that nobody corrected, which come along with the labels that the run gave them."""


@dataclass
class _State:
    """What the page is told; changed by the lesson's thread alone."""

    what: str = "idle"
    share: float = 0.0
    began: float = 0.0
    text: str = ""
    taught: Taught | None = None


class Classroom:
    """One lesson at a time.

    Args:
        desk: Its decisions are the corrections; it gets the new model when somebody takes it.
        trained: The model that learns.
        compute: Device and precision.
        seconds: Time that a lesson may take.
    """

    def __init__(self, desk: Desk, trained: Trained, compute: Compute, seconds: float = 50) -> None:
        self.desk, self.trained, self.compute, self.seconds = desk, trained, compute, seconds
        self._lock = threading.Lock()
        self._state = _State()
        self._closing, self._thread = threading.Event(), threading.Thread()

    def start(self) -> dict[str, Any]:
        """Begin a lesson with everything that is accepted or mended.

        Raises:
            ConfigError: One is going on, or there are fewer than two corrections.
        """
        with self._lock:
            if self._state.what in ("reading", "learning", "checking", "waiting"):
                raise ConfigError("a training is already running; wait until it ends")
            corrections, others = self._lessons()
            if len(corrections) < 2:
                raise ConfigError("accept or correct at least two masks first; the model learns from them")
            self._state = _State("waiting", began=time.monotonic())
            self._thread = threading.Thread(target=self._teach, args=(corrections, others), daemon=True)
            self._thread.start()
        return self.progress()

    def close(self) -> None:
        """End the lesson that is going on; a program that leaves a network at work ends with a fault."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(30)

    def _lessons(self) -> tuple[list[Lesson], list[Lesson]]:
        library, store = self.desk.library, self.desk.decisions
        known = store.known()
        corrections: list[Lesson] = []
        others: list[Lesson] = []
        for entry in library.entries:
            decision, tags = known.get(entry.name), library.tags(entry.name)
            kept = store.mask(entry.name) if decision and decision.verdict == "accepted" else None
            if kept is not None:
                corrections.append(Lesson(entry.name, partial(library.pixels, entry.name), kept, tags))
            elif decision is None and len(others) < _OTHERS:
                labels: Path | None = next(iter(library.labels(entry.name).values()), None)
                if labels is not None:
                    others.append(Lesson(entry.name, partial(library.pixels, entry.name), labels, tags))
        return corrections, others

    def _teach(self, corrections: list[Lesson], others: list[Lesson]) -> None:
        state = self._state

        def tell(what: str, share: float) -> None:
            state.what, state.share = what, share

        try:
            taught = teach(
                self.trained,
                corrections,
                others=others,
                seconds=self.seconds,
                compute=self.compute,
                progress=tell,
                stop=self._closing.is_set,
            )
            state.taught, state.text = taught, taught.text
        except UserError as error:
            state.text = one_line(error)
        except Exception as error:
            state.text = f"the training failed: {type(error).__name__}: {one_line(error)}"
        state.what, state.share = "done", 1.0

    def progress(self) -> dict[str, Any]:
        """What the lesson is doing, the share of its time that has passed, and its outcome."""
        state = self._state
        taught = state.taught
        return {
            "what": state.what,
            "share": round(state.share, 3),
            "seconds": round(time.monotonic() - state.began, 1) if state.began else 0,
            "text": state.text,
            "better": taught is not None and taught.trained is not None,
        }

    def take(self) -> dict[str, Any]:
        """Look with the new model from now on; it is kept in ``reviewed/taught``.

        Raises:
            ConfigError: There is none that is better.
        """
        taught = self._state.taught
        if taught is None or taught.trained is None:
            raise ConfigError("there is no better model to use; press Teach first")
        model = Model(taught.trained, self.compute)
        folder = model.save(self.desk.decisions.folder / "taught")
        self.desk.lab.take(model)
        self.trained = taught.trained
        self._state = _State(text=taught.text)
        return {"folder": f"{self.desk.decisions.folder.name}/{folder.name}"}

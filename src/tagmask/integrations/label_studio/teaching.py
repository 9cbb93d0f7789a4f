"""Trainings on what was corrected: in the background, one at a time, served only when better."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmask.engine.compute import Compute
from tagmask.errors import DataError, UserError, one_line
from tagmask.integrations.label_studio.shelf import Correction, Shelf
from tagmask.models.trained import Trained
from tagmask.training.lessons import Lesson, Taught
from tagmask.training.teach import teach

__all__ = ["Beside", "Busy", "Teacher"]

_LEAST = 2
_MOST_BESIDE = 60
_LARGEST = 1 << 20
_LOG = logging.getLogger("tagmask")


class Busy(Exception):
    """A training is running."""


class Beside:
    """Tagged pictures that nobody corrected yet, with the masks that their tags allowed; the newest few.

    A mask that knows the tags is better than what the model says by itself, so it is worth learning from
    beside the corrections.
    """

    def __init__(self) -> None:
        self._known: dict[str, Lesson] = {}
        self._lock = threading.Lock()

    def put(
        self, name: str, image: NDArray[np.uint8], mask: NDArray[np.uint8], tags: tuple[int, ...]
    ) -> None:
        """Remember a picture (H, W, 3) and its labels (H, W), unless it is too large to be kept in memory.

        Args:
            name: That of its correction, should there be one.
            image: RGB.
            mask: 0 background, k + 1 class k.
            tags: 0-based classes in it.
        """
        if mask.size > _LARGEST or image.ndim != 3:
            return
        with self._lock:
            self._known.pop(name, None)
            self._known[name] = Lesson(name, image, mask, tags)
            while len(self._known) > _MOST_BESIDE:
                del self._known[next(iter(self._known))]

    def lessons(self) -> list[Lesson]:
        """What is remembered, the oldest first."""
        with self._lock:
            return list(self._known.values())


class Teacher:
    """Lets a model learn from the corrections on a shelf.

    Args:
        shelf: Holds the corrections, and takes the new models.
        serving: Gives the model that is served.
        serve: Takes the model to serve from now on.
        base: Checksum of the model that everything began with.
        compute: Where to train.
        seconds: Time of one training.
        after: New corrections after which one begins by itself; 0 for never.
        say: Told how trainings end.
        beside: Pictures to learn from beside the corrections.
    """

    def __init__(
        self,
        shelf: Shelf,
        serving: Callable[[], Trained],
        serve: Callable[[Trained], None],
        base: str,
        compute: Compute,
        seconds: float,
        after: int,
        say: Callable[[str], None],
        beside: Beside | None = None,
    ) -> None:
        self._beside = beside or Beside()
        self._shelf, self._serving, self._serve, self._base = shelf, serving, serve, base
        self._compute, self._seconds, self._after, self._say = compute, seconds, after, say
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._state: dict[str, Any] = {"running": False}

    @property
    def state(self) -> dict[str, Any]:
        """Whether a training runs, since when, how far, and how the last one ended."""
        return dict(self._state)

    def begin(self) -> int:
        """Begin a training; gives the number of corrections.

        Raises:
            Busy: One is running.
            DataError: There are too few corrections.
        """
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                raise Busy(
                    f"a training is running since {self._state['since']}; what was corrected meanwhile is "
                    "kept and learned from in the next one"
                )
            count = len(self._shelf.corrections())
            if count < _LEAST:
                raise DataError(
                    f"a training needs at least {_LEAST} corrected images, there are {count}; correct and "
                    "submit some more"
                )
            if self._stop.is_set():
                raise Busy("the backend is stopping; start it again, the corrections are kept")
            self._state = {**self._state, **_beginning()}
            self._thread = threading.Thread(target=self._run, name="tagmask-teach", daemon=True)
            self._thread.start()
            return count

    def consider(self) -> bool:
        """Begin a training if enough is new; whether one runs now."""
        if self._due():
            with suppress(Busy, DataError):
                self.begin()
        return bool(self._state["running"])

    def _due(self) -> bool:
        return bool(self._after) and self._shelf.pending() >= self._after

    def wait(self, seconds: float | None = None) -> None:
        """Wait for the training that runs."""
        if (thread := self._thread) is not None:
            thread.join(seconds)

    def stop(self) -> None:
        """Put the running training down; its corrections are kept and not counted as learned."""
        self._stop.set()
        self.wait(60)

    def _run(self) -> None:
        while self._once():
            pass

    def _once(self) -> bool:
        """One training; whether the next is due already, for what was corrected meanwhile."""
        began, learned = time.monotonic(), False
        try:
            said, learned = self._learn(), True
        except UserError as error:
            said = f"the training ended early: {one_line(error)}"
        except Exception as error:
            # Whatever went wrong, the backend continues serving the version that it has.
            _LOG.exception("training on corrections failed")
            said = f"the training failed: {type(error).__name__}: {one_line(error)}"
        seconds = round(time.monotonic() - began, 1)
        self._say(said)
        with self._lock:
            # One that failed is not tried again by itself: it would fail for ever.
            again = learned and not self._stop.is_set() and self._due()
            last = {"last": said, "seconds": seconds}
            self._state = {**last, **(_beginning() if again else {"running": False})}
            if not again:
                self._thread = None
        return again

    def _learn(self) -> str:
        corrections = self._shelf.corrections()
        try:
            taught = self._taught(corrections)
        except DataError:
            if {one.key for one in corrections} <= {one.key for one in self._shelf.corrections()}:
                raise
            return self._learn()  # one was deleted before it could be read; the others still count
        if taught.stopped:
            return taught.text
        outcome = {
            "iou_before": _plain(taught.before),
            "iou_after": _plain(taught.after),
            "corrections": taught.corrections,
            "held": taught.held,
            "seconds": round(taught.seconds, 1),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        kept = self._shelf.finished(corrections, outcome, taught.trained, self._base)
        if kept is not None:
            self._serve(kept)
        return taught.text

    def _taught(self, corrections: Sequence[Correction]) -> Taught:
        lessons = [Lesson(one.key, one.image, one.mask, one.tags) for one in corrections]

        def progress(doing: str, share: float) -> None:
            self._state = {**self._state, "doing": doing, "share": round(share, 3)}

        return teach(
            self._serving(),
            lessons,
            others=self._beside.lessons(),
            seconds=self._seconds,
            compute=self._compute,
            progress=progress,
            stop=self._stop.is_set,
        )


def _beginning() -> dict[str, Any]:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return {"running": True, "since": since, "doing": "reading", "share": 0.0}


def _plain(value: float) -> float | None:
    return round(value, 5) if value == value else None

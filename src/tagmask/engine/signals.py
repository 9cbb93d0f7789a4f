"""Stop politely: Ctrl-C, SIGTERM and SIGUSR1 ask a loop to finish its step and save."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["StopSignal", "Stopped"]


class Stopped(Exception):
    """A step of a run was put down on request and can be taken up again.

    Attributes:
        signum: Number of the signal that asked.
        detail: Where the work stands.
    """

    def __init__(self, signum: int, detail: str) -> None:
        super().__init__(detail)
        self.signum = signum
        self.detail = detail

    @property
    def exit_code(self) -> int:
        """128 + signal number, as shells have it (130 for Ctrl-C, 143 for SIGTERM)."""
        return 128 + self.signum


class StopSignal:
    """Context in which the first stop signal sets `requested` instead of ending the program.

    The second Ctrl-C interrupts at once. Outside the main thread, where Python forbids handlers, nothing
    changes.

    Attributes:
        requested: Number of the signal that came, or None.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            names = ("SIGINT", "SIGTERM", "SIGUSR1")
            for number in (getattr(signal, name) for name in names if hasattr(signal, name)):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self, detail: str) -> None:
        """Raise `Stopped` if a signal came; for loops whose finished items are safe on disk.

        Raises:
            Stopped: A signal came.
        """
        if self.requested is not None:
            raise Stopped(self.requested, detail)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = number

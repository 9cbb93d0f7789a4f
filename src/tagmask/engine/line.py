"""One line of progress that fits its terminal: what matters first, the rest where there is room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Progressed", "figures_text", "left_text", "progress_line", "rate_text"]

_BAR = (8, 24)


@dataclass(frozen=True)
class Progressed:
    """How far a piece of work is.

    Attributes:
        title: A word or two.
        done: Items finished.
        total: Items in all; None if unknown.
        speed: Items a second; 0 while nobody knows.
        later: Seconds of what comes after this work; None if it is all there is.
        vague: Whether some of that is not known.
        figures: Losses or scores, as text.
    """

    title: str
    done: int
    total: int | None
    speed: float
    later: float | None = None
    vague: bool = False
    figures: str = ""

    @property
    def left(self) -> float | None:
        """Seconds until the work is done."""
        if not self.total or self.speed <= 0:
            return None
        return max(self.total - self.done, 0) / self.speed


def progress_line(work: Progressed, width: int, bar: bool = True) -> str:
    """The line: count, rate and time left always, then all that follows, a bar, figures.

    Args:
        work: How far it is.
        width: Columns that it may take.
        bar: Draw one where there is room.
    """
    count = f"{work.done}/{work.total}" if work.total else str(work.done)
    needed = [work.title, count, rate_text(work.speed)]
    left = work.left
    if work.total:
        needed.append(f"eta {'-' if left is None else left_text(left)}")
    if work.later is not None and left is not None:
        needed.append(f"all {left_text(left + work.later)}{'+' if work.vague else ''}")
    room = width - len("  ".join(needed)) - 2
    # Figures tell more than a bar; both only where nothing before them is pushed out.
    figures = _cut(work.figures, room)
    size = min(_BAR[1], room - (len(figures) + 2 if figures else 0))
    if bar and work.total and size >= _BAR[0]:
        full = round(size * min(work.done / work.total, 1))
        needed.insert(1, "━" * full + "─" * (size - full))
    return "  ".join([*needed, figures] if figures else needed)[:width]


def _cut(figures: str, room: int) -> str:
    """As many whole figures as fit."""
    parts = figures.split("  ")
    while parts and len("  ".join(parts)) > room:
        parts.pop()
    return "  ".join(parts)


def figures_text(figures: Mapping[str, float], names: int = 6) -> str:
    """Figures on one line: ``loss 1.234  cls 0.321``.

    Args:
        figures: Name to value.
        names: At most so many of them, in order.
    """
    return "  ".join(f"{name} {value:.4g}" for name, value in list(figures.items())[:names])


def rate_text(speed: float) -> str:
    """Items per second, or seconds per item where that reads better."""
    if speed <= 0:
        return "- it/s"
    return f"{speed:.1f} it/s" if speed >= 1 else f"{1 / speed:.1f} s/it"


def left_text(seconds: float) -> str:
    """A length of time as a clock has it: 0:07, 12:30, 3:05:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

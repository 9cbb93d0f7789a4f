"""Time two ways of doing the same thing, fairly, on a machine that may have other things to do."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

__all__ = ["in_turn"]

DISTURBED = 0.15


def in_turn(
    ours: Callable[[], Any], other: Callable[[], Any] | None, rounds: int, patience: float = 0.0
) -> tuple[float, float]:
    """Median milliseconds of both, measured alternately after one unmeasured call each.

    Args:
        ours: One side.
        other: The other side; None if there is none.
        rounds: Measured calls per side.
        patience: Seconds during which a call does not count if other programs used more than 15 % of a core
            meanwhile. Afterwards every call counts.

    Returns:
        Both medians; NaN for a side that is None.
    """
    sides = [side for side in (ours, other) if side is not None]
    times: list[list[float]] = [[] for _ in sides]
    for side in sides:
        side()
    deadline = time.monotonic() + patience
    while min(map(len, times)) < rounds:
        for side, kept in zip(sides, times, strict=True):
            before, start, wall = _others(), _now(), time.perf_counter()
            side()
            took, wall = _now() - start, time.perf_counter() - wall
            if time.monotonic() > deadline or _others() - before < DISTURBED * wall + 0.01:
                kept.append(took * 1e3)
            elif patience:
                time.sleep(0.2)
    medians = [statistics.median(kept) for kept in times]
    return medians[0], medians[1] if other is not None else math.nan


def _now() -> float:
    """Seconds of processor time on one CPU thread, of the wall clock otherwise."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    elif torch.get_num_threads() == 1:
        return time.thread_time()
    return time.perf_counter()


def _others() -> float:
    """Processor seconds that all other programs have used so far; 0 where Linux does not tell."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    ticks = [int(x) for x in stat.read_text().split("\n", 1)[0].split()[1:9]]
    busy = sum(ticks) - ticks[3] - ticks[4]
    return busy / os.sysconf("SC_CLK_TCK") - time.process_time()

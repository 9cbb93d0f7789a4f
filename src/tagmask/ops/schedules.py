"""Learning-rate curves: update index in, multiplier of the base rate out."""

from __future__ import annotations

import math

__all__ = ["cosine_by_epoch", "cosine_warmup", "poly_warmup"]


def poly_warmup(step: int, total: int, warmup: int, power: float = 0.9, warmup_ratio: float = 1e-6) -> float:
    """Linear warm-up followed by polynomial decay that counts from the first update, not from its end.

    The curve therefore starts at `warmup_ratio`, climbs to 1 and drops to ``(1 - warmup / total) ** power``
    when the warm-up ends (ToCo, SeCo, AFA, MoRe). The warm-up value is a ratio, although the originals call
    it a learning rate.

    Args:
        step: 0-based update.
        total: Number of updates of the run; the multiplier is 0 from there on.
        warmup: Number of warm-up updates.
        power: Exponent of the decay.
        warmup_ratio: Multiplier of the first update.
    """
    if step < warmup:
        return 1.0 - (1.0 - step / warmup) * (1.0 - warmup_ratio)
    return float(max(1.0 - step / total, 0.0) ** power)


def cosine_by_epoch(
    step: int,
    total: int,
    epochs: int,
    base: float,
    warmup: int = 5,
    start: float = 1e-6,
    floor: float = 1e-5,
    lag: int = 1,
) -> float:
    """Linear warm-up and half a cosine that change once per epoch, as DeiT's descendants are trained.

    The originals step their schedule after an epoch with that epoch's own number, so the first two epochs
    share the lowest rate and every later one uses the value meant for the epoch before (MCTformer, WeakTr,
    AReAM); `lag` 0 fixes this. The cosine does not subtract the warm-up.

    Args:
        step: 0-based update.
        total: Number of updates of the run.
        epochs: Number of epochs the run is divided into.
        base: Learning rate the curve is the multiplier of.
        warmup: Epochs of warm-up.
        start: Learning rate of the first epoch.
        floor: Learning rate the cosine ends at.
        lag: By how many epochs the schedule trails.

    Returns:
        Learning rate divided by `base`; 0 if that is 0.
    """
    epoch = max(min(step, total - 1) * epochs // total - lag, 0)
    if epoch < warmup:
        rate = start + epoch * (base - start) / warmup
    else:
        rate = floor + 0.5 * (base - floor) * (1 + math.cos(math.pi * epoch / epochs))
    return rate / base if base else 0.0


def cosine_warmup(
    step: int, total: int, warmup: int, base: float, start: float = 1e-6, floor: float = 1e-6
) -> float:
    """Linear warm-up up to the base rate, then half a cosine over the rest of the run (AReAM on Conformer).

    Args:
        step: 0-based update.
        total: Number of updates of the run.
        warmup: Updates of warm-up, the first at `start`, the last at `base`.
        base: Learning rate the curve is the multiplier of.
        start: Learning rate of the first update.
        floor: Learning rate the cosine ends at.

    Returns:
        Learning rate divided by `base`; 0 if that is 0.
    """
    if step < warmup:
        return (start + (base - start) * step / max(warmup - 1, 1)) / base if base else 0.0
    share = min(step - warmup, total - warmup) / max(total - warmup, 1)
    return (floor + 0.5 * (base - floor) * (1 + math.cos(math.pi * share))) / base if base else 0.0

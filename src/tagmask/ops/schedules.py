"""Learning-rate curves: update index in, multiplier of the base rate out."""

from __future__ import annotations

__all__ = ["poly_warmup"]


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

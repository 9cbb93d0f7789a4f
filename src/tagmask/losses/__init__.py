"""Losses of weak supervision as pure functions of tensors; the names below are the promise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tagmask.names import lazy

if TYPE_CHECKING:
    from tagmask.losses.affinity import pair_loss
    from tagmask.losses.clipped import clip_pixel_loss, pixel_cross_entropy
    from tagmask.losses.energy import dense_energy_loss
    from tagmask.losses.pairs import sampled_pair_loss
    from tagmask.losses.segmentation import balanced_cross_entropy, mean_cross_entropy
    from tagmask.losses.tags import multilabel_soft_margin
    from tagmask.losses.tokens import (
        class_patch_contrast,
        class_token_contrast,
        patch_contrast,
        uncertain_regions,
    )

__all__ = [
    "balanced_cross_entropy",
    "class_patch_contrast",
    "class_token_contrast",
    "clip_pixel_loss",
    "dense_energy_loss",
    "mean_cross_entropy",
    "multilabel_soft_margin",
    "pair_loss",
    "patch_contrast",
    "pixel_cross_entropy",
    "sampled_pair_loss",
    "uncertain_regions",
]

_HOMES = {
    "pair_loss": ".affinity",
    "clip_pixel_loss": ".clipped",
    "pixel_cross_entropy": ".clipped",
    "dense_energy_loss": ".energy",
    "sampled_pair_loss": ".pairs",
    "balanced_cross_entropy": ".segmentation",
    "mean_cross_entropy": ".segmentation",
    "multilabel_soft_margin": ".tags",
    "class_patch_contrast": ".tokens",
    "class_token_contrast": ".tokens",
    "patch_contrast": ".tokens",
    "uncertain_regions": ".tokens",
}

# Hidden from type checkers, which then find a wrong name.
if not TYPE_CHECKING:
    __getattr__ = lazy(__name__, _HOMES)

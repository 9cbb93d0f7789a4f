"""Operations of weak supervision as pure functions: maps, refinement, walks, labels.

The names below are the promise (docs/project/stability.md); they take PyTorch tensors or NumPy arrays and
give back the same. The modules behind them hold more, which may change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tagmask.names import lazy

if TYPE_CHECKING:
    from tagmask.ops.affinity import affinity_labels, propagate, transition
    from tagmask.ops.crf import crf_on_labels, dense_crf
    from tagmask.ops.crf_presets import PRESETS, CRFParams, unary_from_labels, unary_from_probabilities
    from tagmask.ops.labels import labels_from_maps, labels_with_ignore
    from tagmask.ops.maps import class_maps, fuse, keep_present, min_max
    from tagmask.ops.multiscale import multi_scale
    from tagmask.ops.pixel_refinement import PAR_DILATIONS, par

__all__ = [
    "PAR_DILATIONS",
    "PRESETS",
    "CRFParams",
    "affinity_labels",
    "class_maps",
    "crf_on_labels",
    "dense_crf",
    "fuse",
    "keep_present",
    "labels_from_maps",
    "labels_with_ignore",
    "min_max",
    "multi_scale",
    "par",
    "propagate",
    "transition",
    "unary_from_labels",
    "unary_from_probabilities",
]

_HOMES = {
    "affinity_labels": ".affinity",
    "propagate": ".affinity",
    "transition": ".affinity",
    "crf_on_labels": ".crf",
    "dense_crf": ".crf",
    "PRESETS": ".crf_presets",
    "CRFParams": ".crf_presets",
    "unary_from_labels": ".crf_presets",
    "unary_from_probabilities": ".crf_presets",
    "labels_from_maps": ".labels",
    "labels_with_ignore": ".labels",
    "class_maps": ".maps",
    "fuse": ".maps",
    "keep_present": ".maps",
    "min_max": ".maps",
    "multi_scale": ".multiscale",
    "PAR_DILATIONS": ".pixel_refinement",
    "par": ".pixel_refinement",
}

# Hidden from type checkers, which then find a wrong name.
if not TYPE_CHECKING:
    __getattr__ = lazy(__name__, _HOMES)

"""Settings of AReAM and what its two published set-ups differ in."""

from __future__ import annotations

from typing import Literal, NamedTuple

from tagmask.config import Scales
from tagmask.methods.base import MethodConfig

__all__ = ["CONFORMER", "MCTFORMER", "AReAMConfig", "Published"]


class AReAMConfig(MethodConfig):
    """Settings of AReAM; None means the value published for the kind of backbone."""

    backbone: str = "deit_small_patch16_224.fb_in1k"
    """A plain ViT (AReAM on MCTformer), or conformer_small and its kin."""
    drop_path: float = 0.1
    """Largest rate of dropped residual branches, at the last block."""
    shallow_blocks: int | None = None
    """How many first blocks refine the maps; the others are supervised. Of 12: 7, Conformer 9."""
    entropy: tuple[float, ...] | None = None
    """Mean entropy of every block in bits, from the layer-wise analysis; equal weights if not given."""
    affinity_from: int | None = None
    """Update from which deep attention is supervised: after 10 of 60 epochs, Conformer 2 of 12."""
    affinity_weight: float = 0.1
    """Of the affinity loss."""
    low: float = 0.35
    """Background plane that decides background in the pseudo labels."""
    high: float = 0.55
    """Background plane that decides foreground."""
    train_scales: Scales | None = None
    """Views for the pseudo labels: 1; Conformer 0.5, 1 and 1.5."""
    cam_mode: Literal["train", "eval"] = "train"
    """Mode of the network while it makes them; the papers' drops paths and updates running statistics."""
    scales: Scales | None = None
    """Views of an image afterwards: 1; Conformer 0.5, 1 and 1.5."""
    lr: float | None = None
    """Base rate: 6.25e-5 (batch 64); Conformer 5e-5 (batch 8), its heads ten times that."""
    weight_decay: float | None = None
    """Of matrices: 0.05; Conformer 0.01."""
    epochs: int | None = None
    """Into how many epochs the run is divided for its rate: 60; Conformer 12."""


class Published(NamedTuple):
    """Values that differ between the two backbones.

    Attributes:
        shallow: First blocks, of 12, that refine the maps.
        affinity_from: Update from which the affinity loss runs.
        scales: Views.
        lr: Base rate.
        weight_decay: Of matrices.
        epochs: Of the published run.
    """

    shallow: int
    affinity_from: int
    scales: Scales
    lr: float
    weight_decay: float
    epochs: int


MCTFORMER = Published(7, 1650, (1.0,), 6.25e-5, 0.05, 60)
CONFORMER = Published(9, 2644, (0.5, 1.0, 1.5), 5e-5, 0.01, 12)

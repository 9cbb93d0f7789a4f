"""A method whose answers can be worked out by hand: the classes are red, green and blue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tagmask.data.classes import ClassTable
from tagmask.methods.base import Method, MethodConfig
from tagmask.models.trained import Trained
from tagmask.types import Batch, OptimPlan, StepResult
from tests.seams.pictures import CLASSES

PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""What it subtracts from images: nothing."""
LEVEL = 0.5
"""Its score of the background, where it segments."""
COLOURS = np.array([[20, 20, 20], [230, 30, 20], [25, 210, 35], [15, 40, 220]], np.uint8)
"""Colours of a chart's labels."""


class PixelMaps(Method):
    """Class k's map is colour k; an image shows the classes whose colour gets beyond three quarters."""

    config_class = MethodConfig
    map_kinds = ("cam",)

    def __init__(self, config: MethodConfig, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.config = config
        self.lens = nn.Conv2d(3, 3, 1, bias=False)
        nn.init.dirac_(self.lens.weight)

    def forward(self, batch: Batch, step: int) -> StepResult:
        """Nothing to learn."""
        return StepResult(self.lens(batch.images).sum() * 0)

    def optim_plan(self, iterations: int) -> OptimPlan:
        """Never asked for."""
        return OptimPlan("sgd", (), lambda step: 1.0)

    def initialise(self, weights: str) -> None:
        """It has no pretrained part."""

    def classify(self, images: Tensor) -> Tensor:
        """(B, 3)."""
        return self.lens(images).amax((2, 3)) - 0.75

    def view_maps(self, images: Tensor, kinds: Sequence[str]) -> dict[str, Tensor]:
        """The three colours."""
        return {kind: self.lens(images) for kind in kinds}


class PixelSegmenter(PixelMaps):
    """The strongest colour, or background where none gets above a half."""

    segments = True

    def segment(self, images: Tensor) -> Tensor:
        """(B, 4, H, W)."""
        colours = self.lens(images)
        return torch.cat([torch.full_like(colours[:, :1], LEVEL), colours], 1) * 20


def trained(kind: type[Method] = PixelSegmenter, **use: Any) -> Trained:
    """The method in a model folder's clothes; `use` is what its header says about its use."""
    meta: Mapping[str, Any] = {"extra": {"use": use}} if use else {}
    method = kind(MethodConfig(backbone="none"), len(CLASSES)).eval()
    return Trained(method, "pixel", ClassTable(CLASSES), "0" * 64, meta)


def chart(size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Colours and labels of a picture that mirroring, turning and small shifts change."""
    y, x = np.meshgrid(*(np.arange(side) for side in size), indexing="ij")
    labels = ((x // 24 + 3 * (y // 16) + (x // 24) * (y // 16)) % 4).astype(np.uint8)
    return COLOURS[labels], labels

"""How long a run will take on this machine, measured on a few random pictures."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tagmask.inference.views import image_maps, image_scores
from tagmask.models.trained import build_method
from tagmask.pipeline.config import RunConfig
from tagmask.training.optim import build_optimizer
from tagmask.types import Batch

__all__ = ["Speed", "measure"]

_READ = 0.012
"""Seconds to read, resize and write what belongs to one image, beside the network."""


@dataclass(frozen=True)
class Speed:
    """Seconds.

    Attributes:
        start: Once a run: imports, building, loading, scores, the report.
        update: One update of the weights.
        maps: Maps and label of one image.
        mask: Mask of one image.
    """

    start: float
    update: float
    maps: float
    mask: float


def measure(config: RunConfig, num_classes: int) -> Speed:
    """Time an update, the maps and the mask of one picture; a few seconds in all.

    Args:
        config: Settings of the run.
        num_classes: K.
    """
    runtime = config.runtime.create()
    # Speed does not depend on the weights, so none are loaded.
    method = build_method(config.method, {**config.model, "weights": "none"}, num_classes, "model")
    method = method.to(runtime.device).train()
    train = config.train
    images = torch.rand(train.batch_size, 3, train.size, train.size, device=runtime.device)
    tags = torch.zeros(train.batch_size, num_classes, device=runtime.device)
    tags[:, 0] = 1
    batch = Batch(images, tags, tuple(map(str, range(train.batch_size))))
    optimizer = build_optimizer(method.optim_plan(train.iterations))

    def update() -> Tensor:
        with runtime.autocast():
            loss: Tensor = method(batch, 0).loss
        runtime.backward(loss)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    seconds = _timed(update)
    side = config.localize.size or 256
    picture = torch.rand(1, 3, side, side, device=runtime.device)
    method.eval()
    maps = _timed(lambda: next(iter(image_maps(method, picture, runtime, config.localize).values())))
    mask = _timed(lambda: image_scores(method, picture, runtime, config.segment))
    return Speed(start=25.0, update=seconds, maps=maps + 2 * _READ, mask=mask + _READ)


def _timed(work: Callable[[], Tensor]) -> float:
    """Median of three, after one that does not count."""
    work()
    found = []
    for _ in range(3):
        start = time.perf_counter()
        float(work().detach().flatten()[0])  # a GPU has answered only when a value is there
        found.append(time.perf_counter() - start)
    return sorted(found)[1]

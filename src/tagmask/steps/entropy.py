"""The layer-wise analysis of AReAM: which blocks' attention still finds the object."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field

from tagmask.config import Config
from tagmask.data import TagDataset
from tagmask.data.loader import eval_images
from tagmask.data.parts import Part
from tagmask.engine.signals import StopSignal
from tagmask.errors import ConfigError, DataError
from tagmask.models.trained import Trained
from tagmask.ops.entropy import entropy_weights
from tagmask.ops.pillow import pillow_bicubic
from tagmask.report.figures import curves
from tagmask.steps.base import Context, Step, data_checksum
from tagmask.store.files import atomic_write, write_json

__all__ = ["ENTROPY", "EntropyConfig", "entropy"]


class EntropyConfig(Config):
    """On which images, at which size."""

    split: Part = "train"
    """Images to look at; their tags decide whose maps count."""
    size: int | None = Field(default=None, ge=16)
    """Side of the square images become: 224 for a ViT, 384 for Conformer, if not given."""
    batch_size: int = Field(default=8, ge=1)
    """Images at a time."""
    limit: int | None = Field(default=None, ge=1)
    """Use only this many images, from the first on."""


@dataclass(frozen=True)
class _Plan:
    """What is known to be possible before anything is computed."""

    config: EntropyConfig
    trained: Trained
    dataset: TagDataset


def _reads(config: EntropyConfig, context: Context) -> dict[str, Any]:
    return {"model": context.models.checksum(), "data": data_checksum(context, config.split)}


def _prepare(config: EntropyConfig, context: Context) -> _Plan:
    trained, dataset = context.models.get(), context.data.open(config.split)
    if not hasattr(trained.method, "layer_entropy"):
        raise ConfigError(f"{trained.name} has no layer-wise analysis; mctformer, transcam and aream have")
    tagged = [i for i in range(len(dataset)) if dataset.has_tags(i) and dataset.tags(i).any()]
    if not tagged:
        raise DataError(f"no image of split '{dataset.split}' has a tag; the analysis needs some")
    return _Plan(config, trained, dataset.subset(tagged[: config.limit]))


def entropy(plan: _Plan, context: Context) -> dict[str, Any]:
    """Write the mean entropy of the refined maps, block by block, to ``entropy.json`` and ``entropy.svg``.

    Args:
        plan: What `ENTROPY.prepare` gave: a plain baseline (MCTformer, TransCAM, or AReAM before its
            affinity phase) and images with tags.
        context: The run.

    Returns:
        "entropy" in bits and "weights" in [0, 1] per block, "images", "size".

    Raises:
        Stopped: A stop signal came; nothing is written.
        UserError: Images cannot be read.
    """
    config, dataset, runtime = plan.config, plan.dataset, context.runtime
    method: Any = plan.trained.method.to(runtime.device).eval()
    size = config.size or method.analysis_size
    total, waiting = torch.zeros(()), []
    with StopSignal() as stop, context.display.task("entropy", len(dataset)) as task, torch.inference_mode():
        for position, batch in eval_images(dataset, runtime.rank, runtime.world, prefetch=1):
            waiting.append((pillow_bicubic(batch.images.to(runtime.device), (size, size)), batch.tags))
            last = position + runtime.world >= len(dataset)
            if len(waiting) == config.batch_size or last:
                images, tags = (torch.cat(parts).to(runtime.device) for parts in zip(*waiting, strict=True))
                total = total + method.layer_entropy(images, tags).double().sum(0).cpu()
                waiting = []
            task.advance(runtime.world)
            stop.check("the analysis was stopped")
    mean = [float(value) for value in runtime.reduce(total).cpu() / len(dataset)]
    weights = entropy_weights(mean)
    record = {"entropy": mean, "weights": list(weights), "images": len(dataset), "size": size}
    if runtime.is_main:
        write_json(context.out / "entropy.json", {**record, "model": plan.trained.checksum})
        blocks = [block + 1 for block in range(len(mean))]
        drawing = curves({"entropy": (blocks, mean)}, "block", "bits")
        with atomic_write(context.out / "entropy.svg") as target:
            target.write_bytes(base64.b64decode(drawing.partition(",")[2]))
    return record


ENTROPY = Step(
    "entropy", ("entropy.json", "entropy.svg"), reads=_reads, prepare=_prepare, work=entropy, beside=True
)
"""How far every block's attention spreads the maps."""

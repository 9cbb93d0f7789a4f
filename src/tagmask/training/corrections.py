"""What training may be given besides images and tags: an earlier model, masks that a person corrected."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from tagmask.annotations.read import Subjects, Tally, read_annotations
from tagmask.data import TagDataset
from tagmask.data.datasets.writing import png_bytes
from tagmask.data.loader import TrainBatches
from tagmask.engine.log import Display
from tagmask.engine.runtime import Runtime
from tagmask.errors import CheckpointError, ConfigError, DataError, one_line
from tagmask.losses.segmentation import mean_cross_entropy
from tagmask.methods.base import Method
from tagmask.models.checkpoint import read_header
from tagmask.models.trained import load_trained
from tagmask.ops.resize import resize_bilinear
from tagmask.store.files import atomic_write, file_for
from tagmask.types import IGNORE, Batch, StepResult

__all__ = ["BothBatches", "Corrections", "WithCorrections", "begin_from", "corrected_images", "steps_before"]


@dataclass(frozen=True)
class Corrections:
    """Corrected images.

    Attributes:
        dataset: All images to learn from, with tags that follow the corrected masks.
        corrected: Those of them whose masks were corrected.
        labels: Folder of their labels.
    """

    dataset: TagDataset
    corrected: TagDataset
    labels: Path


class WithCorrections(nn.Module):
    """A method that goes on from an earlier training and also learns from corrected masks.

    The corrected images go through the method's own `segment`; their cross entropy is added to its loss, so
    any method that segments can learn from them.

    Args:
        method: The method; its step does not change.
        first_step: Updates it has seen before; terms that begin late count on from there.
        weight: Factor of the corrected images' loss.
    """

    def __init__(self, method: Method, first_step: int, weight: float) -> None:
        super().__init__()
        self.method, self.first_step, self.weight = method, first_step, weight

    def forward(self, batch: Batch, step: int) -> StepResult:
        """The method's step, and the corrected images' loss as "corrected"."""
        corrected = batch.corrected
        result: StepResult = self.method(replace(batch, corrected=None), self.first_step + step)
        if corrected is None or corrected.labels is None:
            return result
        size = (corrected.labels.shape[1], corrected.labels.shape[2])
        logits = resize_bilinear(self.method.segment(corrected.images).float(), size)
        loss = mean_cross_entropy(logits, corrected.labels)
        total = result.loss + self.weight * loss
        return StepResult(total, {**result.logs, "loss": total.detach(), "corrected": loss.detach()})


class BothBatches(Iterator[Batch]):
    """Batches of a training, each with some of the corrected images beside it.

    Args:
        batches: Images and tags.
        corrected: Corrected images with labels.

    Attributes:
        broken: Names of images that could not be read, with the reason.
    """

    def __init__(self, batches: TrainBatches, corrected: TrainBatches) -> None:
        self._batches, self._corrected = batches, corrected

    @property
    def broken(self) -> dict[str, str]:
        """Names of images that could not be read so far, with the reason."""
        return {**self._batches.broken, **self._corrected.broken}

    def __next__(self) -> Batch:
        return replace(next(self._batches), corrected=next(self._corrected))


def steps_before(start: Path | None) -> int:
    """Updates that a model to start from has behind it.

    Raises:
        CheckpointError: There is no model.
    """
    if start is None:
        return 0
    inner = start / "model"
    header = read_header(inner if (inner / "weights.safetensors").exists() else start)
    extra = header.get("extra", {})
    return int(extra.get("before", 0)) + int(extra.get("step", 0))


def begin_from(start: Path, method: Method, name: str, dataset: TagDataset) -> None:
    """Give a method the weights of an earlier model.

    Raises:
        CheckpointError: There is no model, or it is of another method, other classes or another shape.
    """
    earlier = load_trained(start)
    if earlier.name != name:
        raise CheckpointError(f"{start} is a model of {earlier.name}, not of {name}; use its settings")
    if earlier.classes.names != dataset.classes.names:
        raise CheckpointError(
            f"{start} knows the classes {', '.join(earlier.classes.names)}, the data "
            f"{', '.join(dataset.classes.names)}; they must be the same in the same order"
        )
    try:
        method.load_state_dict(earlier.method.state_dict())
    except RuntimeError as error:
        raise CheckpointError(f"{start} does not fit these settings of {name}: {one_line(error)}") from None


def may_teach(source: Path, truth: Path, method: type[Method]) -> None:
    """Refuse corrections that no training may use.

    Args:
        source: Folder of masks, or what an annotation tool exported.
        truth: Folder of the true masks, which must not be learned from.
        method: What is trained.

    Raises:
        ConfigError: The method does not segment, or the source is the folder of true masks.
    """
    if not method.segments:
        raise ConfigError(
            f"{method.__name__} does not segment, so it cannot learn from corrected masks; give them to its "
            "segmenter, or use a single-stage method (more, afa)"
        )
    if source.resolve() == truth.resolve():
        raise ConfigError(
            f"{source} is the folder of true masks that scores are computed on; corrections are masks that "
            "you made for some training images, in a place of their own"
        )


def corrected_images(
    source: Path,
    folder: Path,
    dataset: TagDataset,
    method: type[Method],
    truth: Path,
    runtime: Runtime,
    display: Display,
    further: TagDataset | None = None,
    scored: TagDataset | None = None,
) -> Corrections:
    """The images whose masks a person corrected.

    Args:
        source: Folder of masks, or what an annotation tool exported.
        folder: Gets ``<name>.png`` for every corrected image.
        dataset: The images to learn from.
        method: What is trained.
        truth: Folder of the true masks, which must not be learned from.
        runtime: The first process writes.
        display: Says how many there are.
        further: Images that are learned from only if they were corrected.
        scored: Images that scores are computed on; corrections of them are left out.

    Raises:
        ConfigError: The method does not segment, or the source is the folder of true masks.
        DataError: The corrections cannot be read or do not fit the images.
    """
    may_teach(source, truth, method)
    taught = set(dataset.names)
    if further is not None:
        dataset = dataset.with_items([*dataset.items, *further.items])
    tags: dict[str, set[int]] = {}
    tally = Tally()
    known_names = set(dataset.names)
    left = [item for item in (scored.items if scored is not None else ()) if item.name not in known_names]
    subjects = dataset.with_items([*dataset.items, *left])
    passed = 0
    for name, mask in read_annotations(source, Subjects.of_dataset(subjects), tally=tally):
        if name not in known_names:
            passed += 1
            continue
        values = np.unique(mask)
        if name in tags:
            raise DataError(f"{source}: there are two corrections of '{name}'")
        shown = {int(value) - 1 for value in values if 0 < value < IGNORE}
        known = dataset.items[dataset.position(name)].tags or ()
        # Where a person left pixels undecided, the tags may still be right about them.
        tags[name] = shown | (set(known) if IGNORE in values else set())
        if runtime.is_main:
            with atomic_write(file_for(folder, name, ".png")) as target:
                target.write_bytes(png_bytes(mask))
    if passed:
        display.say(f"left out: corrections of {passed} images that scores are computed on")
    if not tags:
        what = [f"{passed} of images that scores are computed on"] if passed else []
        what += [tally.text()] if tally.text() else []
        raise DataError(f"{source} corrects no image to learn from ({'; '.join(what) or 'nothing in it'})")
    for line in tally.said:
        display.say(line)
    runtime.barrier()
    dataset = dataset.subset([i for i, name in enumerate(dataset.names) if name in taught or name in tags])
    whole, corrected = _with_tags(dataset, tags, tally.text(), display)
    return Corrections(whole, corrected, folder)


def _with_tags(
    dataset: TagDataset, tags: dict[str, set[int]], left: str, display: Display
) -> tuple[TagDataset, TagDataset]:
    items, changed = [], 0
    for item in dataset.items:
        new = tuple(sorted(tags[item.name])) if item.name in tags else item.tags
        changed += new != item.tags
        items.append(dataclasses.replace(item, tags=new))
    display.say(
        f"{len(tags)} corrected images"
        + (f"; the tags of {changed} follow their masks" if changed else "")
        + (f"; left out: {left}" if left else "")
    )
    whole = dataset.with_items(items)
    return whole, whole.subset([i for i, item in enumerate(items) if item.name in tags])

"""Batches as a function of seed and step, so that a resumed run sees what an unbroken one would have seen."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from tagmask.data.base import TagDataset
from tagmask.data.file_names import named_file
from tagmask.data.readers.images import read_indices, rgb_tensor
from tagmask.data.shared_memory import check_shared_memory
from tagmask.data.transforms.base import View
from tagmask.errors import DataError
from tagmask.types import IGNORE, Batch

__all__ = ["TrainBatches", "eval_images", "train_batches"]

LabelSource = Callable[[str], NDArray[Any] | None] | Path
MakeView = Callable[[NDArray[np.uint8], np.random.Generator, NDArray[Any] | None], View]
_RETRIES = 20


@runtime_checkable
class PerBatch(Protocol):
    """A view some of whose parameters are the same for a whole batch."""

    def for_batch(self, rng: np.random.Generator) -> MakeView:
        """The view with those parameters drawn."""


def train_batches(
    dataset: TagDataset,
    view: MakeView,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    num_workers: int = 0,
    rank: int = 0,
    world: int = 1,
    labels: LabelSource | None = None,
    *,
    max_side: int | None = None,
    broken_limit: int = 10,
    stall_seconds: float = 600.0,
) -> TrainBatches:
    """Endless training batches.

    Images come in a new random order each epoch, none twice in one. Global step s of `world` processes
    takes the next ``world * batch_size`` images of that endless order and process `rank` its own
    `batch_size` of them, so any split of the same global batch over processes sees the same views.

    Args:
        dataset: Images and tags.
        view: Random training view, see `tagmask.data.transforms.base.make_view`.
        batch_size: Images per process and step.
        seed: Random seed; combined with the step and the place in the batch.
        start_step: First step, for resuming.
        num_workers: Processes that read ahead; 0 reads in this one.
        rank: Number of this process.
        world: Number of processes.
        labels: Per-pixel labels to learn from: a folder of ``<name>.png``, or a function from the image's
            name to (H, W) uint8, or to None where there are none (all ignore). For views that understand
            them (affinity_crop) the function may give volumes of scores, (C, H, W).
        max_side: Shrink images to this longer side before the view, for pictures much larger than it.
        broken_limit: Unreadable images to step over before stopping; each is in `TrainBatches.broken`.
        stall_seconds: How long a worker may take for one batch.

    Raises:
        DataError: The data set opened with masks (truth must not reach training).
        ValueError: A size or count is out of range.
    """
    if batch_size < 1 or start_step < 0 or not 0 <= rank < world:
        raise ValueError(
            f"need batch_size >= 1, start_step >= 0 and 0 <= rank < world, got {batch_size}, {start_step}, "
            f"{rank} and {world}"
        )
    if dataset.masks:
        raise DataError("training must not see true masks: open its data set without masks")
    steps = _Steps(dataset, view, batch_size, seed, rank, world, labels, max_side)
    return TrainBatches(steps, start_step, num_workers, broken_limit, stall_seconds)


class TrainBatches(Iterator[Batch]):
    """The iterator `train_batches` returns.

    Attributes:
        broken: Names of images that could not be read so far, with the reason; others took their places.
    """

    def __init__(
        self, steps: _Steps, start_step: int, num_workers: int, broken_limit: int, stall_seconds: float
    ) -> None:
        self.broken: dict[str, str] = {}
        self._limit = broken_limit
        self._workers = num_workers
        if num_workers:
            check_shared_memory(lambda: steps[start_step][0], num_workers)
        loader = DataLoader(
            steps,
            batch_size=None,
            sampler=_From(start_step),
            num_workers=num_workers,
            timeout=stall_seconds if num_workers else 0,
        )
        self._batches: Iterator[tuple[Batch | None, dict[str, str]]] = iter(loader)

    def __next__(self) -> Batch:
        try:
            batch, broken = next(self._batches)
        except RuntimeError as error:
            if not self._workers:
                raise
            reason = " ".join(str(error).split())
            raise DataError(
                f"a data worker died or stalled ({reason[:300]}). With little memory use fewer workers, "
                "or 0 to read in the main process, which also shows errors best"
            ) from error
        for name, reason in broken.items():
            self.broken.setdefault(name, reason)
        if batch is None or len(self.broken) > self._limit:
            listed = "; ".join(list(self.broken.values())[:5])
            count = f"{len(self.broken)} images could not be read (at most {self._limit} are skipped)"
            raise DataError(f"{count}: {listed}")
        return batch


class _From:
    """Steps from a first one on, without end."""

    def __init__(self, start: int) -> None:
        self._start = start

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self._start)


class _Steps(Dataset[tuple["Batch | None", dict[str, str]]]):
    """Step number to batch; the same in whichever process it runs."""

    def __init__(
        self,
        dataset: TagDataset,
        view: MakeView,
        batch_size: int,
        seed: int,
        rank: int,
        world: int,
        labels: LabelSource | None,
        max_side: int | None,
    ) -> None:
        self._dataset, self._view, self._labels = dataset, view, labels
        self._batch_size, self._seed, self._rank, self._world = batch_size, seed, rank, world
        self._max_side = max_side

    def __getitem__(self, step: int) -> tuple[Batch | None, dict[str, str]]:
        first = (step * self._world + self._rank) * self._batch_size
        broken: dict[str, str] = {}
        view = self._view
        if isinstance(view, PerBatch):
            view = view.for_batch(np.random.default_rng((self._seed, 2, step)))
        chosen = [self._read(first + k, broken, view) for k in range(self._batch_size)]
        found = [entry for entry in chosen if entry is not None]
        return (self._collate(found) if len(found) == len(chosen) else None), broken

    def _read(self, position: int, broken: dict[str, str], view: MakeView) -> tuple[int, View] | None:
        """The view at a place of the endless order; a random other image stands in for a broken one."""
        rng = np.random.default_rng((self._seed, 1, position))
        epoch, place = divmod(position, len(self._dataset))
        index = int(_order(self._seed, epoch, len(self._dataset))[place])
        for _ in range(_RETRIES):
            try:
                image = self._dataset.image(index, self._max_side)
                return index, _viewed(view, image, rng, self._label(index, image.shape[:2]))
            except DataError as error:
                broken[self._dataset.items[index].name] = str(error)
            index = int(rng.integers(len(self._dataset)))
        return None

    def _label(self, index: int, size: tuple[int, ...]) -> NDArray[Any] | None:
        if self._labels is None:
            return None
        name = self._dataset.items[index].name
        if isinstance(self._labels, Path):
            label: NDArray[Any] | None = read_indices(named_file(self._labels, name, ".png"))
        else:
            label = self._labels(name)
        if label is None:
            return np.full(size, IGNORE, np.uint8)
        if label.ndim == 3 and label.shape[1:] == size:
            return label
        if label.shape != size and self._max_side is not None and label.shape == self._dataset.size(index):
            label = np.array(Image.fromarray(label).resize((size[1], size[0]), Image.Resampling.NEAREST))
        wrong = label[(label > self._dataset.num_classes) & (label != IGNORE)]
        if label.shape != size or wrong.size:
            raise DataError(
                f"label of '{name}' is {label.shape[-1]} x {label.shape[-2]} with values to {label.max()}, "
                f"needed are {size[1]} x {size[0]} and 0 to {self._dataset.num_classes} or {IGNORE}"
            )
        return label

    def _collate(self, found: list[tuple[int, View]]) -> Batch:
        labels = [view.label for _, view in found if view.label is not None]
        images = torch.stack([view.image for _, view in found])
        boxes = torch.stack([view.box for _, view in found])
        whole = torch.tensor([0, images.shape[2], 0, images.shape[3]])
        return Batch(
            images=images,
            tags=torch.stack([self._dataset.tags(index) for index, _ in found]),
            names=tuple(self._dataset.items[index].name for index, _ in found),
            boxes=None if bool((boxes == whole).all()) else boxes,
            labels=torch.stack(labels) if labels else None,
        )


def _viewed(
    view: MakeView, image: NDArray[np.uint8], rng: np.random.Generator, label: NDArray[Any] | None
) -> View:
    """The view of one image; a view that gives another kind of image is named."""
    try:
        return view(image, rng, label)
    except ValueError as error:
        name = getattr(view, "__name__", type(view).__name__)
        raise ValueError(f"view {name}: {error}") from error


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, length: int) -> NDArray[np.int64]:
    """Random order of one epoch."""
    return np.random.default_rng((seed, 0, epoch)).permutation(length)


def eval_images(
    dataset: TagDataset, rank: int = 0, world: int = 1, prefetch: int = 0
) -> Iterator[tuple[int, Batch]]:
    """Every image of a data set once, whole, in order: (index, batch of one).

    Processes share them without repetition: process `rank` gets every `world`-th. An image nobody tagged
    has tags 0; `TagDataset.has_tags` tells it from a negative one.

    Args:
        dataset: The images.
        rank: Number of this process.
        world: Number of processes.
        prefetch: Images to decode ahead in a thread each; worth it where the device waits for them.

    Yields:
        The index in the data set and its `Batch`, B = 1.

    Raises:
        DataError: An image cannot be read; evaluation does not step over it.
    """
    indices = range(rank, len(dataset), world)
    if prefetch < 1:
        for index in indices:
            yield index, _whole(dataset, index)
        return
    with ThreadPoolExecutor(prefetch) as pool:
        waiting: deque[tuple[int, Future[Batch]]] = deque()
        for index in indices:
            waiting.append((index, pool.submit(_whole, dataset, index)))
            if len(waiting) > prefetch:
                done, future = waiting.popleft()
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()


def _whole(dataset: TagDataset, index: int) -> Batch:
    image = rgb_tensor(dataset.image(index))
    tags = dataset.tags(index) if dataset.has_tags(index) else torch.zeros(dataset.num_classes)
    return Batch(image[None], tags[None], (dataset.items[index].name,))

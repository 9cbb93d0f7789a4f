"""How long a run will take on this machine, measured on a few pictures before it begins."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tagmask.data import TagDataset
from tagmask.engine.lanes import in_lanes, lanes_for
from tagmask.engine.runtime import Runtime
from tagmask.errors import UserError
from tagmask.inference.views import image_maps, image_scores
from tagmask.methods.base import Method
from tagmask.models.trained import build_method
from tagmask.pipeline.config import RunConfig
from tagmask.steps.refine import RefineConfig, image_labels, labels_of_fit
from tagmask.training.config import TrainConfig
from tagmask.training.optim import build_optimizer
from tagmask.types import Batch

__all__ = ["FITTING", "Meter", "Speed", "measure"]

START = 30.0
"""Seconds, once a run: imports, building, loading, scores, the report."""
FITTING = 15.0
"""Seconds to fit linear classifiers to the tokens of all views together."""
_SLOW = 1.5
_LOOKED_AT = 5
_CLASSES = 2


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


class Meter:
    """Times single pieces of work of a run.

    What cannot be tried here (memory is short, a method needs more than a picture) takes None seconds.

    Args:
        config: Settings of the run.
        num_classes: K.
        side: Side of its images in pixels, where they are looked at in their own size.
    """

    def __init__(self, config: RunConfig, num_classes: int, side: int = 256) -> None:
        self.config, self.num_classes, self.side = config, num_classes, side
        self.runtime: Runtime = config.runtime.create()
        self._built: dict[str, Method] = {}

    def method(self, name: str, model: Mapping[str, Any]) -> Method:
        """A network with random weights, on which speed does not depend."""
        key = repr((name, sorted(model.items(), key=str)))
        if key not in self._built:
            built = build_method(name, {**model, "weights": "none"}, self.num_classes, "model")
            self._built[key] = built.to(self.runtime.device)
        return self._built[key]

    def update(self, name: str, model: Mapping[str, Any], train: TrainConfig) -> float | None:
        """Seconds of one update of the weights, reading left out."""

        def timed() -> float:
            method = self.method(name, model).train()
            batch = self._batch(train)
            optimizer = build_optimizer(method.optim_plan(train.iterations))

            def work(step: int) -> Tensor:
                with self.runtime.autocast():
                    loss: Tensor = method(batch, step).loss
                self.runtime.backward(loss)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                return loss

            # Losses set in one after the other, so early, middle and late updates are timed.
            steps = iter([0, *(share * train.iterations // 6 for share in (1, 3, 5))])
            return _timed(lambda: work(next(steps)), mean=True)

        return self._tried(timed)

    def maps(self) -> float | None:
        """Seconds for the maps of one image."""
        localize = self.config.localize

        def timed() -> float:
            method, picture = self._own().eval(), self._picture(localize.size)
            return self._each(
                lambda: next(iter(image_maps(method, picture, self.runtime, localize).values())), method
            )

        return self._tried(timed)

    def label(self) -> float | None:
        """Seconds for the label of one image of its own size."""
        refine: RefineConfig = self.config.refine
        return self._label(refine.model_copy(update={"background": 0.5}) if refine.fit else refine)

    def fit(self) -> float:
        """Seconds of the labels that a fit of the threshold tries, each on its own; 0 without a fit."""
        refine: RefineConfig = self.config.refine
        if not refine.fit:
            return 0.0
        return sum(count * (self._label(way, alone=True) or 0.0) for count, way in labels_of_fit(refine))

    def _label(self, refine: RefineConfig, alone: bool = False) -> float | None:
        def timed() -> float:
            picture = self._picture(None)
            maps = torch.rand(1, _CLASSES, *picture.shape[2:], device=self.runtime.device)
            keys = torch.arange(_CLASSES, device=self.runtime.device)[None]

            def work() -> Tensor:
                return image_labels(picture, maps, keys, refine)

            return _timed(work) if alone else self._each(work)

        return self._tried(timed)

    def mask(self) -> float | None:
        """Seconds for the mask of one image; None with a dense CRF, whose time depends on the image."""
        if self.config.segment.crf:
            return None

        def timed() -> float:
            method, picture = self._segmenter().eval(), self._picture(self.config.segment.size)
            views = self.config.segment.of(type(method))
            return self._each(lambda: image_scores(method, picture, self.runtime, views), method)

        return self._tried(timed)

    def _each(self, work: Callable[[], Tensor], network: Method | None = None) -> float:
        """Seconds of one image where as many are worked on at once as a run does."""
        lanes, alone = lanes_for(self.runtime.device, network), _timed(work)
        if lanes < 2 or alone > _SLOW:
            return alone
        start, count = time.perf_counter(), 3 * lanes
        for _ in in_lanes(lambda _: _answered(work()), range(count), lanes, lambda _: False):
            pass
        return min(alone, (time.perf_counter() - start) / count)

    def forget(self) -> None:
        """Let go of the networks."""
        self._built.clear()

    def _own(self) -> Method:
        return self.method(self.config.method, self.config.model)

    def _segmenter(self) -> Method:
        """Who does the step segment; the run's own network where that cannot be built by itself."""
        student = self.config.student
        if student is not None:
            with suppress(UserError):
                return self.method(student.method, network_of(self.config, "student"))
        return self._own()

    def _picture(self, side: int | None) -> Tensor:
        side = side or self.side
        return torch.rand(1, 3, side, side, device=self.runtime.device)

    def _batch(self, train: TrainConfig) -> Batch:
        device, count = self.runtime.device, train.batch_size
        images = torch.rand(count, 3, train.size, train.size, device=device)
        tags = torch.zeros(count, self.num_classes, device=device)
        tags[:, 0] = 1
        labels = torch.zeros(count, train.size, train.size, dtype=torch.int64, device=device)
        labels[:, train.size // 2 :] = 1
        return Batch(images, tags, tuple(map(str, range(count))), labels=labels)

    def _tried(self, timed: Callable[[], float]) -> float | None:
        with suppress(UserError, RuntimeError, MemoryError, AttributeError):
            # The run's own random numbers must not depend on whether somebody looked at the clock.
            devices = [self.runtime.device] if self.runtime.device.type == "cuda" else []
            with torch.random.fork_rng(devices):
                return timed()
        return None


def network_of(config: RunConfig, learner: str) -> dict[str, Any]:
    """Settings of the network of a learner, see `tagmask.steps.learners.Learner`."""
    part = getattr(config, learner)
    return {**(config.model if part.start == "model" else {}), **part.model}


def reading(dataset: TagDataset) -> tuple[float, int]:
    """Seconds to read one image, and the median side of a few.

    Raises:
        DataError: An image cannot be read.
    """
    places = sorted({i * len(dataset) // _LOOKED_AT for i in range(_LOOKED_AT)})
    seconds, sides = [], []
    for place in places:
        start = time.perf_counter()
        height, width = dataset.picture(place).shape[:2]
        seconds.append(time.perf_counter() - start)
        sides.append(round((height * width) ** 0.5))
    middle = len(places) // 2
    return sorted(seconds)[middle], sorted(sides)[middle]


def measure(config: RunConfig, dataset: TagDataset) -> Speed:
    """Time an update, the maps, the label and the mask of one picture; a few seconds in all.

    Args:
        config: Settings of the run.
        dataset: Images to learn from; a few of them are read.

    Raises:
        UserError: The settings do not fit together, memory is short, or an image cannot be read.
    """
    read, side = reading(dataset)
    meter = Meter(config, dataset.num_classes, side)
    meter.method(config.method, config.model)  # what is wrong with the settings is said by this
    first, maps, mask = meter.update(config.method, config.model, config.train), meter.maps(), meter.mask()
    second, batch = first, config.train.batch_size
    if config.student is not None and first is not None:
        student = config.student
        second = meter.update(student.method, network_of(config, "student"), student.train)
        batch = (batch + student.train.batch_size) // 2
    if first is None or maps is None or mask is None:
        raise UserError("the speed of this run cannot be measured on this machine; leave out --time")
    update = (first + (second or first)) / 2 + batch * read  # both trainings make equally many
    # What is read for a step is read again by the next, and what is written takes about as long.
    start = START + (FITTING if config.train.heads is not None else 0.0) + meter.fit()
    return Speed(start, update, maps + (meter.label() or 0.0) + 4 * read, mask + 2 * read)


def _answered(made: Tensor) -> None:
    """Wait for a value: only then has a GPU done its work."""
    float(made.detach().flatten()[0])


def _timed(work: Callable[[], Tensor], mean: bool = False) -> float:
    """Median (or mean) of three, after one that does not count; of one alone if it is slow."""
    found: list[float] = []
    for _ in range(4):
        start = time.perf_counter()
        _answered(work())
        found.append(time.perf_counter() - start)
        if found[-1] > _SLOW:
            return found[-1]
    return sum(found[1:]) / 3 if mean else sorted(found[1:])[1]

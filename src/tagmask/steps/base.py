"""What every step is given: where the run lies, what to compute on, what to show; and going over images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tagmask.data import TagDataset
from tagmask.data.loader import eval_images
from tagmask.data.parts import DataConfig
from tagmask.engine.log import Display
from tagmask.engine.runtime import Runtime
from tagmask.engine.signals import StopSignal
from tagmask.types import Batch

__all__ = ["Context", "each_image"]


@dataclass(frozen=True)
class Context:
    """What a stage works with.

    Attributes:
        folder: The run folder.
        runtime: Device, precision, processes.
        display: Progress.
        data: The data set.
    """

    folder: Path
    runtime: Runtime
    display: Display
    data: DataConfig


def each_image(
    context: Context,
    dataset: TagDataset,
    title: str,
    outputs: Callable[[str], Sequence[Path]],
    work: Callable[[int, Batch], None],
) -> None:
    """Do `work` for every image whose outputs are not there yet; processes share the images.

    Args:
        context: The run.
        dataset: The images.
        title: What the display says.
        outputs: Files `work` writes for an image name.
        work: (index in `dataset`, batch of one on the device).

    Raises:
        Stopped: A stop signal came; what is done is on disk.
        DataError: An image cannot be read.
    """
    runtime = context.runtime
    todo = [i for i, name in enumerate(dataset.names) if not all(p.exists() for p in outputs(name))]
    if not todo:
        return
    left, done = dataset.subset(todo), len(dataset) - len(todo)
    with StopSignal() as stop, context.display.task(title, len(dataset), done) as task:
        for position, batch in eval_images(left, runtime.rank, runtime.world, prefetch=1):
            work(todo[position], batch.to(runtime.device))
            task.advance(runtime.world)
            stop.check(f"{title} stopped; finished images are kept")

"""Masks for images, archives and videos of any size; unreadable inputs are listed and skipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tagmask.data.classes import class_file
from tagmask.engine.compute import Compute
from tagmask.engine.log import Display, Task
from tagmask.engine.signals import StopSignal
from tagmask.errors import printable
from tagmask.inference.pictures import Broken, each_picture
from tagmask.inference.summary import Summary
from tagmask.inference.whole import take_whole
from tagmask.inference.writer import PredictConfig, Work, begin, finish_all, outputs, take, work_key
from tagmask.models.trained import Trained
from tagmask.store.files import NameRefused, atomic_write, clear_partial, exclusive

__all__ = ["PredictConfig", "predict"]


def predict(
    config: PredictConfig,
    trained: Trained,
    compute: Compute,
    display: Display,
    inputs: Sequence[str],
    out: Path,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write masks, overlays, confidence and a summary of everything the inputs hold.

    The folder gets ``masks/``, ``overlays/``, ``confidence/``, ``summary.jsonl``, ``summary.csv``,
    ``failed.csv`` and ``classes.txt``. Pictures that were finished before, unchanged, are left alone.

    Args:
        config: How.
        trained: The model.
        compute: Device and precision.
        display: Progress, and a line for everything that fails.
        inputs: See `tagmask.inference.pictures.each_picture`.
        out: The folder.
        overwrite: Replace what other settings or another model wrote there.

    Returns:
        Figures: images, done before, failed.

    Raises:
        Stopped: A stop signal came; finished images are kept.
        UserError: Settings, tags or the folder do not allow it.
    """
    summary: Summary
    task: Task

    def done(row: dict[str, Any]) -> None:
        summary.add(row)
        task.advance()

    def failed(source: str, reason: str) -> None:
        source, reason = printable(source), printable(reason)
        summary.fail(source, reason)
        # Reasons that begin with the file's own name need it no second time.
        display.say(f"failed: {reason if reason.startswith(source) else f'{source}: {reason}'}")
        task.advance()

    work = begin(config, trained, compute, out, done, failed)
    with exclusive(out):
        clear_partial(out)
        summary = Summary(out, work_key(work, trained), overwrite)
        with atomic_write(out / "classes.txt") as target:
            target.write_text(class_file(trained.classes.names), encoding="utf-8", newline="")
        with StopSignal() as stop, display.task("predict") as task, summary:
            _run(
                work,
                summary,
                inputs,
                task.advance,
                lambda: stop.check("prediction stopped; finished images are kept"),
            )
        summary.finish(trained.classes)
    return {"images": len(summary.rows), "before": summary.before, "failed": len(summary.failed)}


def _run(
    work: Work,
    summary: Summary,
    inputs: Sequence[str],
    advance: Callable[[], None],
    check: Callable[[], None],
) -> None:
    config = work.config
    for found in each_picture(inputs, config.max_pixels, config.every, work.out, work.reading):
        check()
        if isinstance(found, Broken):
            work.failed(found.source, found.reason)
            continue
        try:
            done = summary.is_done(found, outputs(work, found))
        except NameRefused as error:
            work.failed(found.source, str(error))
            continue
        if done:
            advance()
        elif found.kind:
            take_whole(work, found)
        else:
            take(work, found)
    finish_all(work, check)

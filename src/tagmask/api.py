"""The Python face of tagmask: the command line's words as functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tagmask.engine.log import Display
from tagmask.model import Model, load
from tagmask.pipeline.config import RunConfig, read_config
from tagmask.pipeline.order import choose_steps
from tagmask.pipeline.run import Run
from tagmask.pipeline.run import run as run_steps

__all__ = ["evaluate", "localize", "refine", "run", "segment", "train", "write_report"]

Settings = Mapping[str, Any]


def train(
    data: str | Path | None = None,
    *,
    out: str | Path,
    method: str | None = None,
    tags: str | Path | None = None,
    classes: str | Path | Sequence[str] | None = None,
    masks: str | Path | None = None,
    recipe: str | Path | None = None,
    settings: Settings | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Model:
    """Learn from images and their tags.

    Args:
        data: Folder of the images.
        out: Run folder.
        method: Key of the method; "more" if neither it nor the recipe says otherwise.
        tags: Tag file, if not in the usual place.
        classes: Class names or a file of them, if not the data set's own.
        masks: Folder of true masks, for scoring on the way.
        recipe: Shipped recipe or YAML file to start from.
        settings: Any setting by its dotted name, for example ``{"train.iterations": 1000}``.
        resume: Go on with an unfinished training in `out`.
        overwrite: Replace a training with other settings in `out`.
        progress: Show progress on the terminal.

    Returns:
        The trained model.

    Raises:
        UserError: Something given cannot be used; the message says what to do.
    """
    flags = _flags(data, tags, classes, masks, method) | dict(settings or {})
    config = read_config(recipe, flags)
    display = Display(quiet=not progress)
    run_steps(config, Path(out), ("train",), resume=resume, overwrite=overwrite, display=display)
    return load(out, device=config.runtime.device, precision=config.runtime.precision)


def run(
    recipe: str | Path | RunConfig,
    data: str | Path | None = None,
    *,
    out: str | Path,
    tags: str | Path | None = None,
    classes: str | Path | Sequence[str] | None = None,
    masks: str | Path | None = None,
    settings: Settings | None = None,
    until: str | None = None,
    first: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Run:
    """All steps of a recipe; steps that are done are not done again.

    Args:
        recipe: Shipped recipe, YAML file, run folder, or settings made by `read_config`.
        data: Folder of the images.
        out: Run folder.
        tags: Tag file, if not in the usual place.
        classes: Class names or a file of them, if not the data set's own.
        masks: Folder of true masks, for scoring.
        settings: Any setting by its dotted name.
        until: Last step.
        first: First step.
        overwrite: Replace a training with other settings in `out`.
        progress: Show progress on the terminal.

    Returns:
        The run folder and the figures of its steps.

    Raises:
        UserError: Something given cannot be used; the message says what to do.
    """
    if isinstance(recipe, RunConfig):
        config = recipe
    else:
        config = read_config(recipe, _flags(data, tags, classes, masks, None) | dict(settings or {}))
    steps = choose_steps(until, first)
    return run_steps(config, Path(out), steps, overwrite=overwrite, display=Display(quiet=not progress))


def localize(run: str | Path, settings: Settings | None = None, progress: bool = True) -> Run:
    """Write the class maps of a run's images, see `tagmask.steps.localize`."""
    return _one("localize", run, settings, progress)


def refine(run: str | Path, settings: Settings | None = None, progress: bool = True) -> Run:
    """Turn a run's class maps into pseudo labels, see `tagmask.steps.refine`."""
    return _one("refine", run, settings, progress)


def segment(run: str | Path, settings: Settings | None = None, progress: bool = True) -> Run:
    """Write the masks of a run's images, see `tagmask.steps.segment`."""
    return _one("segment", run, settings, progress)


def evaluate(run: str | Path, settings: Settings | None = None, progress: bool = True) -> Run:
    """Score a run's maps, labels and masks against true masks, see `tagmask.steps.evaluate`."""
    return _one("evaluate", run, settings, progress)


def write_report(run: str | Path, settings: Settings | None = None, progress: bool = True) -> Run:
    """Write the page about a run, see `tagmask.steps.report`."""
    return _one("report", run, settings, progress)


def _one(step: str, folder: str | Path, settings: Settings | None, progress: bool) -> Run:
    config = read_config(folder, settings or {})
    display = Display(quiet=not progress)
    return run_steps(config, Path(folder), (step,), display=display, keep_settings=False)


def _flags(
    data: str | Path | None,
    tags: str | Path | None,
    classes: str | Path | Sequence[str] | None,
    masks: str | Path | None,
    method: str | None,
) -> dict[str, Any]:
    return {
        "data.root": data,
        "data.tags": None if tags is None else str(tags),
        "data.classes": classes,
        "data.masks": masks,
        "method": method,
    }

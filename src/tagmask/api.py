"""The Python face of tagmask: the command line's words as functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagmask.data.datasets.given import Tags
from tagmask.engine.log import Display
from tagmask.model import Model, load
from tagmask.pipeline.auto import run_settings
from tagmask.pipeline.config import RunConfig, check_exists, default_folder, read_config, training_base
from tagmask.pipeline.flags import Classes, background_settings, data_first, flag_settings, tags_as_file
from tagmask.pipeline.order import choose_steps
from tagmask.pipeline.pages import entropy, write_report, write_review
from tagmask.pipeline.run import Run
from tagmask.pipeline.run import run as run_steps
from tagmask.pipeline.single import (
    affinity,
    evaluate,
    localize,
    refine,
    segment,
    student,
    walk,
)
from tagmask.pipeline.teaching import TaughtRun, teach_run

if TYPE_CHECKING:
    from tagmask.methods.base import Method

__all__ = [
    "affinity",
    "entropy",
    "evaluate",
    "localize",
    "refine",
    "run",
    "segment",
    "student",
    "teach",
    "train",
    "walk",
    "write_report",
    "write_review",
]

Settings = Mapping[str, Any]


def train(
    data: str | Path | None = None,
    *,
    tags: Tags | None = None,
    classes: Classes | None = None,
    masks: str | Path | None = None,
    kind: str | None = None,
    split: str | None = None,
    holdout: bool | None = None,
    method: str | type[Method] | None = None,
    backbone: str | None = None,
    weights: str | Path | None = None,
    labels: str | Path | None = None,
    size: int | None = None,
    iterations: int | None = None,
    batch_size: int | None = None,
    device: str | int | None = None,
    precision: str | None = None,
    seed: int | None = None,
    recipe: str | Path | RunConfig | None = None,
    out: str | Path | None = None,
    corrections: str | Path | None = None,
    start: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    settings: Settings | None = None,
    callbacks: Sequence[Any] = (),
    loggers: Sequence[Any] = (),
    progress: bool = True,
) -> Model:
    """Learn from images and their tags, as ``tagmask train`` does.

    Args:
        data: Folder of the images.
        tags: Tag file, mapping of image names to class names, or data frame (columns image and tags).
        classes: Class names or a file of them, if not the data set's own.
        masks: Folder of true masks, for scoring on the way.
        kind: "folder", "voc", "coco" or "auto".
        split: Part to learn from.
        holdout: Hold out a tenth of the images for scoring tags where the data names no split; yes if None.
        method: Name of the method (its paper's settings unless a recipe is given), or a class.
        backbone: Network of the method.
        weights: Its pretrained weights: "hub", "none" or a file.
        labels: Folder of label images to learn from, NAME.png each.
        size: Side of the training views in pixels.
        iterations: Updates of the weights.
        batch_size: Images per update.
        device: "auto", "cpu", "mps", "cuda", "cuda:N" or N.
        precision: fp32, tf32, bf16 or fp16.
        seed: Random seed.
        recipe: Recipe, YAML file, run folder or settings; "small" if neither it nor a method is named.
        out: Run folder; ``runs/NAME``, or the next free number of it, if None.
        corrections: Corrected masks: folder, .zip or .json.
        start: Run or model to continue from, instead of a backbone.
        resume: Continue an unfinished training in `out`.
        overwrite: Replace a training with other settings in `out`.
        settings: Any setting by its dotted name, for example ``{"train.rate": 0.2}``, or nested.
        callbacks: Objects with some of the functions of `Callback`, for example ``EarlyStop(patience=3)``.
        loggers: "tensorboard", "wandb", "mlflow", ..., or objects with ``write(step, figures)``.
        progress: Show progress on the terminal.

    Returns:
        The trained model.

    Raises:
        UserError: Something given cannot be used; the message says what to do.
    """
    words: dict[str, Any] = {"data": data, "tags": tags_as_file(tags, out), "classes": classes}
    words |= {"masks": masks, "kind": kind, "split": split, "method": method, "backbone": backbone}
    words |= {"weights": weights, "labels": labels, "size": size, "iterations": iterations}
    words |= {"batch_size": batch_size, "device": device, "precision": precision, "seed": seed}
    words |= {"corrections": corrections, "start": start, "holdout": holdout}
    given = {**flag_settings("train", words), **(settings or {})}
    base = training_base(recipe, given.get("method"), resume, out)
    config = read_config(base, given)
    folder = default_folder(base, config, overwrite) if out is None else Path(out).expanduser()
    watch = _watch(callbacks, loggers, progress)
    run_steps(config, folder, ("train",), resume=resume, overwrite=overwrite, **watch)
    return load(folder, device=config.runtime.device, precision=config.runtime.precision)


def run(
    recipe: str | Path | RunConfig | None = None,
    data: str | Path | None = None,
    *,
    tags: Tags | None = None,
    classes: Classes | None = None,
    masks: str | Path | None = None,
    kind: str | None = None,
    holdout: bool | None = None,
    backbone: str | None = None,
    weights: str | Path | None = None,
    checkpoint: str | Path | None = None,
    iterations: int | None = None,
    batch_size: int | None = None,
    size: int | None = None,
    device: str | int | None = None,
    precision: str | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    time: str | None = None,
    has_background: bool | None = None,
    until: str | None = None,
    first: str | None = None,
    overwrite: bool = False,
    settings: Settings | None = None,
    callbacks: Sequence[Any] = (),
    loggers: Sequence[Any] = (),
    progress: bool = True,
) -> Run:
    """All steps of a recipe, as ``tagmask run`` does; completed steps are skipped.

    Args:
        recipe: Shipped recipe, YAML file, run folder, or settings made by `read_config`; whatever else is
            given here changes them. None, or a folder of images, means "auto", which finds its settings.
        data: Folder of the images.
        tags: See `train`, as what is not said here.
        classes: Class names or a file of them.
        masks: Folder of true masks, for scoring.
        kind: Kind of data.
        holdout: Hold out images for scoring tags.
        backbone: Network of the method.
        weights: Its pretrained weights.
        checkpoint: Model folder or published checkpoint, instead of training.
        iterations: Updates of the weights.
        batch_size: Images per update.
        size: Side of the training views in pixels.
        device: Where to compute.
        precision: How exactly.
        seed: Random seed.
        out: Run folder; ``runs/<recipe>``, or the next free number of it, if None.
        time: How long recipe "auto" may take: "90s", "10m", "1h".
        has_background: Whether some pixels belong to no class; recipe "auto" decides if None.
        until: Last step.
        first: First step (``--from``).
        overwrite: Replace a training with other settings in `out`.
        settings: Any setting by its dotted name.
        callbacks: What to do while the trainings run.
        loggers: Where their figures go besides the run folder.
        progress: Show progress on the terminal.

    Returns:
        The run folder and the figures of its steps.

    Raises:
        UserError: Something given cannot be used; the message says what to do.
    """
    recipe, data = data_first(recipe, data)
    words: dict[str, Any] = {"data": data, "tags": tags_as_file(tags, out), "classes": classes}
    words |= {"masks": masks, "kind": kind, "backbone": backbone, "weights": weights}
    words |= {"checkpoint": checkpoint, "iterations": iterations, "batch_size": batch_size, "size": size}
    words |= {"device": device, "precision": precision, "seed": seed, "holdout": holdout}
    given = flag_settings("run", words) | background_settings(has_background)
    steps = choose_steps(until, first)
    settled = run_settings(recipe, {**given, **(settings or {})}, (), time, out)
    config, watch = settled.config, _watch(callbacks, loggers, progress)
    for line in settled.lines:
        watch["display"].say(line)
    folder = default_folder(recipe, config, overwrite) if out is None else Path(out).expanduser()
    return run_steps(config, folder, steps, overwrite=overwrite, **watch)


def teach(
    run: str | Path,
    corrections: str | Path | None = None,
    *,
    seconds: float = 50,
    out: str | Path | None = None,
    device: str | int | None = None,
    precision: str | None = None,
    seed: int | None = None,
    settings: Settings | None = None,
    progress: Callable[[str, float], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> TaughtRun:
    """Teach the model of a run from corrected masks, as ``tagmask teach`` does.

    Args:
        run: Run folder.
        corrections: Corrected masks: folder, .zip or .json; what was accepted in the app if None.
        seconds: Time that it may take.
        out: Folder of the new models; ``RUN/taught`` if None.
        device: Where to compute.
        precision: How exactly.
        seed: Random seed.
        settings: Any setting by its dotted name, for this call.
        progress: Called with what is being done and the share of the time that has passed.
        stop: Asked often; True ends the work, and nothing is saved.

    Returns:
        Scores before and after on corrections held back, and the folder of the new model if it is better.

    Raises:
        UserError: Something given cannot be used; the message says what to do.
    """
    words: dict[str, Any] = {"device": device, "precision": precision, "seed": seed}
    folder = Path(run).expanduser()
    check_exists(folder)
    config = read_config(folder, {**flag_settings("teach", words), **(settings or {})})
    source = None if corrections is None else Path(corrections).expanduser()
    place = None if out is None else Path(out).expanduser()
    return teach_run(config, folder, source, seconds=seconds, out=place, progress=progress, stop=stop)


def _watch(callbacks: Sequence[Any], loggers: Sequence[Any], progress: bool) -> dict[str, Any]:
    return {"callbacks": callbacks, "loggers": loggers, "display": Display(quiet=not progress)}

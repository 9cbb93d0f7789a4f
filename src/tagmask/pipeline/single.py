"""The single steps of a run as functions: the commands' words as arguments; see pages.py for pages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tagmask.data.datasets.given import Tags
from tagmask.engine.log import Display
from tagmask.pipeline.config import RunConfig, check_exists, default_folder, read_config
from tagmask.pipeline.flags import Classes, Words, flag_settings, tags_as_file
from tagmask.pipeline.run import Run
from tagmask.pipeline.run import run as run_steps

__all__ = [
    "affinity",
    "evaluate",
    "localize",
    "refine",
    "segment",
    "single_step",
    "student",
    "walk",
]

Settings = Mapping[str, Any]


def localize(
    run: str | Path | RunConfig,
    settings: Settings | None = None,
    progress: bool = True,
    *,
    data: str | Path | None = None,
    tags: Tags | None = None,
    classes: Classes | None = None,
    kind: str | None = None,
    split: str | None = None,
    maps: Words | None = None,
    resize: int | None = None,
    device: str | int | None = None,
    precision: str | None = None,
    out: str | Path | None = None,
) -> Run:
    """Images and tags to class maps on disk, see `tagmask.steps.localize`.

    Args:
        run: Run folder; or a model folder or shipped recipe together with `out`.
        settings: Any setting by its dotted name, for this call.
        progress: Show progress on the terminal.
        data: Folder of the images, if not the run's.
        tags: Tag file, mapping or data frame, if not in the usual place.
        classes: Class names or a file of them, if not the data set's own.
        kind: Kind of data: "folder", "voc", "coco" or "auto".
        split: Part of the data to use.
        maps: Kinds of maps to make.
        resize: Resize images to squares of this side first.
        device: "auto", "cpu", "mps", "cuda", "cuda:N" or N.
        precision: fp32, tf32, bf16 or fp16.
        out: Run folder for the results; the run itself if it is one.

    Returns:
        The run folder and the figures of the step.

    Raises:
        UserError: Something given cannot be used; the message says what to do.
    """
    words: dict[str, Any] = {"data": data, "tags": tags, "classes": classes, "kind": kind}
    words |= {"split": split, "maps": maps, "resize": resize, "device": device, "precision": precision}
    return single_step("localize", run, words, settings, out, progress)


def refine(
    run: str | Path | RunConfig,
    settings: Settings | None = None,
    progress: bool = True,
    *,
    refinement: str | None = None,
    map_kind: str | None = None,
    background: float | None = None,
    crf: str | None = None,
    data: str | Path | None = None,
    kind: str | None = None,
    split: str | None = None,
    device: str | int | None = None,
) -> Run:
    """Class maps on disk to pseudo labels on disk, see `tagmask.steps.refine`.

    Args:
        run: Run folder.
        settings: Any setting by its dotted name, for this call.
        progress: Show progress on the terminal.
        refinement: "par", "crf" or "none".
        map_kind: Kind of maps to start from.
        background: One threshold.
        crf: Parameters of the CRF by name.
        data: See `localize`, as the rest.
        kind: Kind of data.
        split: Part of the data to use.
        device: Where to compute.

    Raises:
        UserError: Something given cannot be used; the message says what to do.
    """
    words: dict[str, Any] = {"refinement": refinement, "map_kind": map_kind, "background": background}
    words |= {"crf": crf, "data": data, "kind": kind, "split": split, "device": device}
    return single_step("refine", run, words, settings, None, progress)


def affinity(
    run: str | Path | RunConfig,
    settings: Settings | None = None,
    progress: bool = True,
    *,
    data: str | Path | None = None,
    device: str | int | None = None,
    precision: str | None = None,
    overwrite: bool = False,
) -> Run:
    """Learn from the pseudo labels which neighbouring pixels belong together; arguments as in `localize`."""
    words = {"data": data, "device": device, "precision": precision}
    return single_step("affinity", run, words, settings, None, progress, overwrite)


def walk(
    run: str | Path | RunConfig,
    settings: Settings | None = None,
    progress: bool = True,
    *,
    map_kind: str | None = None,
    background: float | None = None,
    crf: str | None = None,
    data: str | Path | None = None,
    split: str | None = None,
    device: str | int | None = None,
) -> Run:
    """Spread class maps along learned affinities, to labels on disk; arguments as in `refine`."""
    words: dict[str, Any] = {"map_kind": map_kind, "background": background, "crf": crf, "data": data}
    return single_step("walk", run, {**words, "split": split, "device": device}, settings, None, progress)


def student(
    run: str | Path | RunConfig,
    settings: Settings | None = None,
    progress: bool = True,
    *,
    data: str | Path | None = None,
    device: str | int | None = None,
    precision: str | None = None,
    overwrite: bool = False,
) -> Run:
    """Train the segmentation network on the labels of a run; arguments as in `localize`."""
    words = {"data": data, "device": device, "precision": precision}
    return single_step("student", run, words, settings, None, progress, overwrite)


def segment(
    run: str | Path | RunConfig,
    settings: Settings | None = None,
    progress: bool = True,
    *,
    data: str | Path | None = None,
    kind: str | None = None,
    split: str | None = None,
    tags: Tags | None = None,
    classes: Classes | None = None,
    resize: int | None = None,
    scales: Words | tuple[float, ...] | list[float] | None = None,
    flip: bool | str | None = None,
    crf: str | None = None,
    device: str | int | None = None,
    precision: str | None = None,
    out: str | Path | None = None,
) -> Run:
    """Images to masks on disk, see `tagmask.steps.segment`.

    Args:
        run: See `localize`, as what is not said here.
        settings: Any setting by its dotted name, for this call.
        progress: Show progress on the terminal.
        data: Folder of the images.
        kind: Kind of data.
        split: Part of the data to use.
        tags: Tags of the images.
        classes: Class names.
        resize: Resize images to squares of this side first.
        scales: Resize factors of the views.
        flip: Add the mirrored view.
        crf: Clean masks by this CRF.
        device: Where to compute.
        precision: How exactly.
        out: Run folder for the results.

    Raises:
        UserError: Something given cannot be used; the message says what to do.
    """
    words: dict[str, Any] = {"data": data, "kind": kind, "split": split, "tags": tags, "classes": classes}
    words |= {"resize": resize, "scales": scales, "flip": flip, "crf": crf}
    words |= {"device": device, "precision": precision}
    return single_step("segment", run, words, settings, out, progress)


def evaluate(
    run: str | Path | RunConfig,
    settings: Settings | None = None,
    progress: bool = True,
    *,
    what: Words | None = None,
    background: float | str | None = None,
    data: str | Path | None = None,
    masks: str | Path | None = None,
    kind: str | None = None,
    split: str | None = None,
) -> Run:
    """Score a run's maps, labels and masks against true masks, see `tagmask.steps.evaluate`.

    Args:
        run: Run folder.
        settings: Any setting by its dotted name, for this call.
        progress: Show progress on the terminal.
        what: What to score: "cam", "lam", "label", "segmentation", ...
        background: Threshold of the maps, or "best" (an oracle).
        data: See `localize`, as the rest.
        masks: Folder of true masks.
        kind: Kind of data.
        split: Part of the data to use.

    Raises:
        UserError: Something given cannot be used; the message says what to do.
    """
    words: dict[str, Any] = {"what": what, "background": background, "data": data, "masks": masks}
    return single_step("evaluate", run, {**words, "kind": kind, "split": split}, settings, None, progress)


def single_step(
    step: str,
    base: str | Path | RunConfig,
    words: Mapping[str, Any],
    settings: Settings | None,
    out: str | Path | None,
    progress: bool,
    overwrite: bool = False,
) -> Run:
    """One step of a run.

    Args:
        step: Its name.
        base: What the settings come from, see `read_config`.
        words: The words of its command.
        settings: Any setting by its dotted name, which wins over words.
        out: Run folder for the results; the run itself if it is one.
        progress: Show progress on the terminal.
        overwrite: Replace a training with other settings.

    Raises:
        UserError: Something given cannot be used.
    """
    check_exists(base)
    given = {**words, "tags": tags_as_file(words.get("tags"), out or _folder_of(base))}
    config = read_config(base, {**flag_settings(step, given), **(settings or {})})
    folder = default_folder(base, config) if out is None else Path(out).expanduser()
    display = Display(quiet=not progress)
    return run_steps(config, folder, (step,), overwrite=overwrite, display=display, keep_settings=False)


def _folder_of(base: str | Path | RunConfig) -> Path | None:
    """The run folder itself, if it is one; nothing is ever put into a model folder."""
    known = not isinstance(base, RunConfig) and (Path(base) / "settings.yaml").is_file()
    return Path(str(base)) if known else None

"""From flags to a run: settings from everywhere, the steps, then their scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagmask.cli.common import new_display, show_line
from tagmask.cli.manner import manner

if TYPE_CHECKING:
    from tagmask.pipeline.config import RunConfig

__all__ = ["do_step", "do_steps", "print_scores", "show_verdict"]


def do_step(
    step: str,
    base: Path,
    flags: dict[str, Any],
    settings: list[str] | None,
    out: Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Do one step of a run; what the flags say counts for this call.

    Args:
        step: Its name.
        base: Run folder, or a model folder together with `out`.
        flags: Dotted setting to value; None values are left out.
        settings: What was given to ``--set``.
        out: Run folder, if not `base`.
        overwrite: Replace a training with other settings.

    Returns:
        The run folder.

    Raises:
        UserError: Something given cannot be used; nothing was changed.
        Stopped: A stop signal came.
    """
    from tagmask.pipeline.config import check_exists

    check_exists(base)
    return do_steps(str(base), flags, settings, out, (step,), overwrite=overwrite, keep_settings=False)


def do_steps(
    base: str | Path | RunConfig | None,
    flags: dict[str, Any],
    settings: list[str] | None,
    out: Path | None,
    steps: tuple[str, ...],
    resume: bool = True,
    overwrite: bool = False,
    keep_settings: bool = True,
    budget: str | None = None,
    trackers: Sequence[str] = (),
    dry: bool = False,
    callbacks: Sequence[Any] = (),
) -> Path:
    """Do steps of a run and print the scores they gave.

    Args:
        base: Recipe, YAML file, run folder or model folder to start from.
        flags: Dotted setting to value; None values are left out.
        settings: What was given to ``--set``.
        out: Run folder; named after the base if None.
        steps: Which steps.
        resume: Resume an unfinished training.
        overwrite: Replace a training with other settings.
        keep_settings: Write the settings into the run folder.
        budget: Time that recipe "auto" may take, as people write it.
        trackers: Where the figures of trainings go besides the run folder.
        dry: Print what would be done, and do nothing.
        callbacks: What to do while trainings run.

    Returns:
        The run folder.

    Raises:
        UserError: Something given cannot be used.
        Stopped: A stop signal came.
    """
    from tagmask.data.readers.regular import read_text
    from tagmask.pipeline.auto import run_settings
    from tagmask.pipeline.config import default_folder
    from tagmask.pipeline.run import plan_run
    from tagmask.pipeline.run import run as run_steps

    given = {name: value for name, value in flags.items() if value is not None}
    settled = run_settings(base, given, settings or (), budget, out)
    config = settled.config
    for line in settled.lines:
        show_line(line)
    folder = out or default_folder(base, config, overwrite)
    if dry:
        plan = plan_run(config, folder, steps, overwrite=overwrite)
        show_line("", plan=plan.values())
        for line in plan.lines():
            show_line(line)
        return folder
    result = run_steps(
        config,
        folder,
        steps,
        resume=resume,
        overwrite=overwrite,
        display=new_display(),
        keep_settings=keep_settings,
        loggers=trackers,
        callbacks=callbacks,
    )
    show_line("", folder=folder, results=dict(result.results))
    if "evaluate" in result.results:
        files = sorted((folder / "scores").glob("*.json"))
        print_scores(result.scores, [json.loads(read_text(file)) for file in files])
    if result.results.get("verdict"):
        show_verdict(result.results["verdict"])
    return folder


def show_verdict(told: Mapping[str, Any]) -> None:
    """Print what can be said of the masks without true ones.

    Args:
        told: What the step verdict gave.
    """
    from tagmask.review.verdict import lines_of

    for line in lines_of(told):
        show_line(line)


def print_scores(scores: dict[str, float], records: list[dict[str, Any]]) -> None:
    """Print mean IoU by what was scored, and the IoU of every class.

    Args:
        scores: What to mean IoU.
        records: The score files.
    """
    from rich.console import Console
    from rich.table import Table

    by_what = {record["what"]: record for record in records}
    shown = [by_what[what] for what in scores if what in by_what]
    show_line("", scores=scores)
    if not shown or manner().json:
        return
    table = Table(title="IoU in percent")
    table.add_column("class")
    for record in shown:
        table.add_column(record["what"], justify="right")
    first = [("mean", [record["miou"] for record in shown])]
    rows = first + [(name, [record["iou"].get(name) for record in shown]) for name in shown[0]["classes"]]
    for name, values in rows:
        cells = ["-" if value is None else f"{100 * value:.1f}" for value in values]
        table.add_row(name, *cells, style="bold" if name == "mean" else None)
    Console(highlight=False).print(table)
    for record in shown:
        parts = [f"{record['images']} images of split {record['split']}", f"tags: {record['tags']}"]
        if record["threshold"] is not None:
            parts.append(f"threshold {record['threshold']:.2f} ({record['threshold_source']})")
        doubts = "".join(f"; {doubt}" for doubt in record.get("doubts", ()))
        show_line(f"{record['what']}: {', '.join(parts)}{doubts}")

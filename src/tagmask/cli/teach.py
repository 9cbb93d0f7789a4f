"""``tagmask teach``: a better model from corrected masks, within a minute."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from tagmask.cli.common import Device, Precision, Seed, Set, compute_flags, guarded, new_display, show_line
from tagmask.errors import ConfigError

__all__ = ["teach"]

_UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}


@guarded
def teach(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    corrections: Annotated[
        Path | None,
        typer.Option(
            "--corrections", help="Corrected masks: folder, .zip or .json; those of the app if not given."
        ),
    ] = None,
    time: Annotated[
        str, typer.Option("--time", help="How long it may train: 50s, 5m, without loading and saving.")
    ] = "50s",
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the new models; RUN/taught.")] = None,
    device: Device = None,
    precision: Precision = None,
    seed: Seed = None,
    settings: Set = None,
) -> None:
    """Learn from corrected masks within a minute; keep the new model if it is better on those held back."""
    from tagmask.engine.signals import Stopped, StopSignal
    from tagmask.pipeline.config import check_exists, read_config
    from tagmask.pipeline.teaching import teach_run

    seconds = _seconds(time)
    flags = compute_flags(device, precision, seed)
    check_exists(run)
    config = read_config(run, {k: v for k, v in flags.items() if v is not None}, settings or ())
    with StopSignal() as signal, new_display().task("teach", 100) as task:
        shown = 0

        def progress(what: str, share: float) -> None:
            nonlocal shown
            task.advance(int(100 * share) - shown)
            shown = int(100 * share)

        result = teach_run(
            config,
            run,
            corrections,
            seconds=seconds,
            out=out,
            progress=progress,
            stop=lambda: signal.requested is not None,
        )
    taught = result.taught
    if signal.requested is not None and taught.stopped:
        raise Stopped(signal.requested, taught.text)
    if result.left:
        show_line(f"left out: {result.left}")
    show_line(
        taught.text,
        before=taught.before,
        after=taught.after,
        better=taught.trained is not None,
        corrections=taught.corrections,
        held=taught.held,
        seconds=round(taught.seconds, 1),
    )
    if result.folder is not None:
        show_line(f"model: {result.folder}", model=result.folder)
        show_line(f"to use it: tagmask run {run} --from segment --set {result.use}")


def _seconds(text: str) -> float:
    """A length of time in words.

    Raises:
        ConfigError: It is none.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text)
    if found is None or found[2] not in _UNITS or not float(found[1]):
        raise ConfigError(f"--time {text}: write a number of seconds or minutes, such as 60s or 5m")
    return float(found[1]) * _UNITS[found[2]]

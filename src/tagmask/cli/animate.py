"""``tagmask animate``: maps and masks over the frames of a film."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tagmask.cli.common import Device, Precision, Set, guarded, show_line

__all__ = ["animate"]

Model = Annotated[Path, typer.Argument(help="Run folder or model folder.")]
Source = Annotated[Path, typer.Argument(help="Folder of frames, GIF or video.")]
Output = Annotated[Path, typer.Argument(help="Film to write (.gif, .mp4), or a folder for single frames.")]


@guarded
def animate(
    model: Model,
    source: Source,
    output: Output,
    panels: Annotated[
        str | None, typer.Option("--panels", help="image, map, mask; with commas, side by side.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option("--classes", help="Classes whose maps are shown; else those recognised.")
    ] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Frames per second.")] = None,
    every: Annotated[int | None, typer.Option("--every", help="Take every n-th frame only.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Only so many frames.")] = None,
    device: Device = None,
    precision: Precision = None,
    settings: Set = None,
) -> None:
    """Maps and masks over the frames of a film, as a GIF, a video or single pictures."""
    from tagmask.config import apply_overrides, validate
    from tagmask.engine.config import RuntimeConfig
    from tagmask.engine.log import Display
    from tagmask.inference.animate import AnimateConfig
    from tagmask.inference.animate import animate as make
    from tagmask.models.trained import load_trained

    flags: dict[str, Any] = {"rate": rate, "every": every, "limit": limit}
    flags |= {"panels": panels and panels.split(","), "tags": classes and classes.split(",")}
    given = {key: value for key, value in flags.items() if value is not None}
    config = validate(AnimateConfig, apply_overrides(given, settings or ()), "animate")
    compute = {"device": device, "precision": precision}
    where = validate(RuntimeConfig, {k: v for k, v in compute.items() if v is not None}, "animate")
    figures = make(config, load_trained(model), where.create(), Display(), source, output)
    show_line(f"{output}: {figures['frames']} frames, {figures['rate']:g} per second")

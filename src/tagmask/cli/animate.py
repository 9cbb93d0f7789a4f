"""``tagmask animate``: maps and masks over the frames of a video."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tagmask.cli.common import Device, Precision, Set, guarded, new_display, show_line

__all__ = ["animate"]

Model = Annotated[Path, typer.Argument(help="Run folder or model folder.")]
Source = Annotated[Path, typer.Argument(help="Folder of frames, GIF or video.")]
Output = Annotated[Path, typer.Argument(help="Video to write (.gif, .mp4), or a folder for single frames.")]


@guarded
def animate(
    model: Model,
    source: Source,
    output: Output,
    panels: Annotated[
        str | None, typer.Option("--panels", help="image, map, mask; with commas, side by side.")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option("--only", help="Classes whose maps are shown; those recognised if not given."),
    ] = None,
    fps: Annotated[float | None, typer.Option("--fps", help="Frames per second.")] = None,
    every: Annotated[int | None, typer.Option("--every", help="Take every n-th frame only.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Stop after this many frames.")] = None,
    device: Device = None,
    precision: Precision = None,
    settings: Set = None,
) -> None:
    """Maps and masks over the frames of a video, as a GIF, a video or single images."""
    from tagmask.config import apply_overrides, validate
    from tagmask.engine.config import RuntimeConfig
    from tagmask.inference.animate import AnimateConfig
    from tagmask.inference.animate import animate as make
    from tagmask.models.trained import load_trained

    flags: dict[str, Any] = {"rate": fps, "every": every, "limit": limit}
    flags |= {"panels": panels and panels.split(","), "tags": only and only.split(",")}
    given = {key: value for key, value in flags.items() if value is not None}
    config = validate(AnimateConfig, apply_overrides(given, settings or ()), "animate")
    compute = {"device": device, "precision": precision}
    where = validate(RuntimeConfig, {k: v for k, v in compute.items() if v is not None}, "animate")
    figures = make(config, load_trained(model), where.create(), new_display(), source, output)
    show_line(f"{output}: {figures['frames']} frames, {figures['rate']:g} per second", out=output, **figures)

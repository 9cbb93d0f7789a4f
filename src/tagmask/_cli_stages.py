"""The single stages as commands, each on a run folder (or a model folder together with ``--out``)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tagmask._cli_common import (
    Classes,
    Data,
    Device,
    Kind,
    Masks,
    Out,
    Precision,
    Set,
    Split,
    Tags,
    compute_flags,
    data_flags,
    guarded,
    show_line,
    split_flags,
)
from tagmask._cli_run import go

__all__ = ["evaluate", "localize", "refine", "report", "segment"]

RunFolder = Annotated[Path, typer.Argument(help="Run folder, or a model folder together with --out.")]


@guarded
def localize(
    run: RunFolder,
    data: Data = None,
    tags: Tags = None,
    classes: Classes = None,
    kind: Kind = None,
    split: Split = None,
    maps: Annotated[str | None, typer.Option("--maps", help="Kinds of maps, separated by commas.")] = None,
    size: Annotated[int | None, typer.Option("--size", help="Side of the square images become.")] = None,
    device: Device = None,
    precision: Precision = None,
    out: Out = None,
    settings: Set = None,
) -> None:
    """Images and tags to class maps on disk."""
    flags = data_flags(data, tags, classes, None, kind) | compute_flags(device, precision, None)
    flags |= {"localize.size": size, "localize.kinds": maps.split(",") if maps else None}
    flags |= split_flags(split, "localize")
    folder = go(str(run), flags, settings, out, ("localize",))
    show_line(f"maps: {folder / 'maps'}")


@guarded
def refine(
    run: RunFolder,
    method: Annotated[str | None, typer.Option("--method", help="par, crf or none.")] = None,
    maps: Annotated[str | None, typer.Option("--maps", help="Kind of maps to start from.")] = None,
    background: Annotated[float | None, typer.Option("--background", help="One threshold.")] = None,
    crf: Annotated[str | None, typer.Option("--crf", help="Parameters of the CRF by name.")] = None,
    data: Data = None,
    kind: Kind = None,
    split: Split = None,
    device: Device = None,
    settings: Set = None,
) -> None:
    """Class maps on disk to pseudo labels on disk."""
    flags = data_flags(data, None, None, None, kind) | compute_flags(device, None, None)
    flags |= {
        "refine.method": method,
        "refine.maps": maps,
        "refine.background": background,
        "refine.crf": crf,
    }
    folder = go(str(run), flags | split_flags(split, "refine"), settings, None, ("refine",))
    show_line(f"labels: {folder / 'labels'}")


@guarded
def segment(
    run: RunFolder,
    data: Data = None,
    kind: Kind = None,
    split: Split = None,
    tags: Tags = None,
    classes: Classes = None,
    size: Annotated[int | None, typer.Option("--size", help="Side of the square images become.")] = None,
    scales: Annotated[str | None, typer.Option("--scales", help="Resize factors, with commas.")] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Add the mirrored view.")] = False,
    crf: Annotated[str | None, typer.Option("--crf", help="Clean masks by this CRF.")] = None,
    device: Device = None,
    precision: Precision = None,
    out: Out = None,
    settings: Set = None,
) -> None:
    """Images to masks."""
    flags = data_flags(data, tags, classes, None, kind) | compute_flags(device, precision, None)
    flags |= {
        "segment.size": size,
        "segment.scales": scales.split(",") if scales else None,
        "segment.crf": crf,
    }
    flags |= {"segment.flip": "sum" if flip else None, **split_flags(split, "segment")}
    folder = go(str(run), flags, settings, out, ("segment",))
    show_line(f"masks: {folder / 'masks'}")


@guarded
def evaluate(
    run: RunFolder,
    what: Annotated[str | None, typer.Option("--what", help="cam, lam, fused, label, ...")] = None,
    background: Annotated[
        str | None, typer.Option("--background", help="Threshold of the maps, or 'best' (an oracle).")
    ] = None,
    data: Data = None,
    masks: Masks = None,
    kind: Kind = None,
    split: Split = None,
    settings: Set = None,
) -> None:
    """Score maps, labels and masks on disk against true masks."""
    flags = data_flags(data, None, None, masks, kind) | split_flags(split, "evaluate")
    flags |= {"evaluate.what": what.split(",") if what else None, "evaluate.background": background}
    go(str(run), flags, settings, None, ("evaluate",))


@guarded
def report(run: RunFolder, settings: Set = None) -> None:
    """Write one page about a run."""
    folder = go(str(run), {}, settings, None, ("report",))
    show_line(f"report: {folder / 'report.html'}")

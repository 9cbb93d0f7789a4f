"""The single steps as commands, each on a run folder (or a model folder together with ``--out``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tagmask.cli.common import (
    Classes,
    Data,
    Device,
    Kind,
    MapKind,
    Masks,
    Out,
    Overwrite,
    Precision,
    Resize,
    Set,
    Split,
    Tags,
    compute_flags,
    data_flags,
    guarded,
    show_line,
    split_flags,
)
from tagmask.cli.run import do_step

__all__ = [
    "affinity",
    "entropy",
    "evaluate",
    "localize",
    "refine",
    "report",
    "review",
    "segment",
    "student",
    "walk",
]

RunFolder = Annotated[Path, typer.Argument(help="Run folder, or a model folder together with --out.")]


@guarded
def localize(
    run: RunFolder,
    data: Data = None,
    tags: Tags = None,
    classes: Classes = None,
    kind: Kind = None,
    split: Split = None,
    maps: Annotated[str | None, typer.Option("--maps", help="Kinds of maps to make, with commas.")] = None,
    resize: Resize = None,
    device: Device = None,
    precision: Precision = None,
    out: Out = None,
    settings: Set = None,
) -> None:
    """Images and tags to class maps on disk."""
    flags = data_flags(data, tags, classes, None, kind) | compute_flags(device, precision, None)
    flags |= {"localize.size": resize, "localize.kinds": maps.split(",") if maps else None}
    flags |= split_flags(split, "localize")
    folder = do_step("localize", run, flags, settings, out)
    show_line(f"maps: {folder / 'maps'}")


@guarded
def refine(
    run: RunFolder,
    refinement: Annotated[str | None, typer.Option("--refinement", help="par, crf or none.")] = None,
    map_kind: MapKind = None,
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
        "refine.method": refinement,
        "refine.maps": map_kind,
        "refine.background": background,
        "refine.crf": crf,
    }
    folder = do_step("refine", run, flags | split_flags(split, "refine"), settings)
    show_line(f"labels: {folder / 'labels'}")


@guarded
def affinity(
    run: RunFolder,
    data: Data = None,
    device: Device = None,
    precision: Precision = None,
    overwrite: Overwrite = False,
    settings: Set = None,
) -> None:
    """Learn from the pseudo labels which neighbouring pixels belong together."""
    flags = data_flags(data, None, None, None, None)
    folder = do_step(
        "affinity", run, flags | compute_flags(device, precision, None), settings, overwrite=overwrite
    )
    show_line(f"model: {folder / 'affinity' / 'model'}")


@guarded
def walk(
    run: RunFolder,
    map_kind: MapKind = None,
    background: Annotated[float | None, typer.Option("--background", help="Score of the background.")] = None,
    crf: Annotated[str | None, typer.Option("--crf", help="Clean the labels by this CRF.")] = None,
    data: Data = None,
    split: Split = None,
    device: Device = None,
    settings: Set = None,
) -> None:
    """Spread class maps along learned affinities, to labels on disk."""
    flags = data_flags(data, None, None, None, None) | compute_flags(device, None, None)
    flags |= split_flags(split, "walk")
    flags |= {"walk.maps": map_kind, "walk.background": background, "walk.crf": crf}
    folder = do_step("walk", run, flags, settings)
    show_line(f"labels: {folder / 'walks'}")


@guarded
def student(
    run: RunFolder,
    data: Data = None,
    device: Device = None,
    precision: Precision = None,
    overwrite: Overwrite = False,
    settings: Set = None,
) -> None:
    """Train the segmentation network on the labels of a run."""
    flags = data_flags(data, None, None, None, None)
    folder = do_step(
        "student", run, flags | compute_flags(device, precision, None), settings, overwrite=overwrite
    )
    show_line(f"model: {folder / 'student' / 'model'}")


@guarded
def entropy(
    run: RunFolder,
    data: Data = None,
    tags: Tags = None,
    classes: Classes = None,
    kind: Kind = None,
    split: Split = None,
    device: Device = None,
    out: Out = None,
    settings: Set = None,
) -> None:
    """How far every block's attention spreads the maps (AReAM's layer-wise analysis)."""
    flags = data_flags(data, tags, classes, None, kind) | compute_flags(device, None, None)
    folder = do_step("entropy", run, flags | split_flags(split, "entropy"), settings, out)
    record = json.loads((folder / "entropy.json").read_text(encoding="utf-8"))
    rows = zip(record["entropy"], record["weights"], strict=True)
    for block, (bits, weight) in enumerate(rows, start=1):
        show_line(f"block {block:2d}  {bits:.4f} bits  weight {weight:.3f}")
    listed = ",".join(f"{bits:.6g}" for bits in record["entropy"])
    show_line(f"plot: {folder / 'entropy.svg'}")
    show_line(f"to train with these weights: --set 'model.entropy=[{listed}]'")


@guarded
def segment(
    run: RunFolder,
    data: Data = None,
    kind: Kind = None,
    split: Split = None,
    tags: Tags = None,
    classes: Classes = None,
    resize: Resize = None,
    scales: Annotated[str | None, typer.Option("--scales", help="Resize factors, with commas.")] = None,
    flip: Annotated[
        bool | None, typer.Option("--flip/--no-flip", help="Whether to add the mirrored view.")
    ] = None,
    crf: Annotated[str | None, typer.Option("--crf", help="Clean masks by this CRF.")] = None,
    device: Device = None,
    precision: Precision = None,
    out: Out = None,
    settings: Set = None,
) -> None:
    """Predict masks for the images of a run."""
    flags = data_flags(data, tags, classes, None, kind) | compute_flags(device, precision, None)
    flags |= {
        "segment.size": resize,
        "segment.scales": scales.split(",") if scales else None,
        "segment.crf": crf,
    }
    flags |= {"segment.flip": {None: None, True: "sum", False: "none"}[flip], **split_flags(split, "segment")}
    folder = do_step("segment", run, flags, settings, out)
    show_line(f"masks: {folder / 'masks'}")
    if (folder / "settings.yaml").is_file():
        do_step("verdict", folder, data_flags(data, tags, classes, None, kind), None)


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
    do_step("evaluate", run, flags, settings)


@guarded
def review(
    run: RunFolder,
    data: Data = None,
    tags: Tags = None,
    classes: Classes = None,
    kind: Kind = None,
    split: Split = None,
    device: Device = None,
    out: Out = None,
    settings: Set = None,
) -> None:
    """Which masks and tags to look at first; needs no true masks."""
    flags = data_flags(data, tags, classes, None, kind) | compute_flags(device, None, None)
    folder = do_step("review", run, flags | split_flags(split, "review"), settings, out)
    show_line(f"review: {folder / 'review' / 'index.html'}")


@guarded
def report(run: RunFolder, data: Data = None, settings: Set = None) -> None:
    """Write the report of a run as one page."""
    folder = do_step("report", run, data_flags(data, None, None, None, None), settings)
    show_line(f"report: {folder / 'report.html'}")

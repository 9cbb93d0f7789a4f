"""``tagmask predict``: masks for images, archives or videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tagmask.cli.common import (
    PARTLY,
    Device,
    Precision,
    Set,
    as_text,
    guarded,
    new_display,
    show_line,
)
from tagmask.cli.run import show_verdict

if TYPE_CHECKING:
    from tagmask.engine.config import RuntimeConfig
    from tagmask.inference.predict import PredictConfig

__all__ = ["predict"]

Engine = Literal["single", "ray"]


@guarded
def predict(
    model: Annotated[Path, typer.Argument(help="Run folder or model folder.")],
    inputs: Annotated[
        list[str], typer.Argument(help="Images, folders, 'patterns/*.jpg', zip archives, videos.")
    ],
    out: Annotated[str, typer.Option("--out", help="Folder for masks, overlays and the summary.")],
    tags: Annotated[Path | None, typer.Option("--tags", help="Tag file; restricts the classes.")] = None,
    scales: Annotated[str | None, typer.Option("--scales", help="Resize factors, with commas.")] = None,
    crf: Annotated[str | None, typer.Option("--crf", help="Clean masks by this CRF.")] = None,
    max_side: Annotated[
        int | None, typer.Option("--max-side", help="Shrink larger images to this side; no tiles.")
    ] = None,
    tile: Annotated[int | None, typer.Option("--tile", help="Side of the tiles of large images.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Images per batch.")] = None,
    every: Annotated[int | None, typer.Option("--every", help="Every n-th frame of videos.")] = None,
    engine: Annotated[
        Engine, typer.Option("--engine", help="ray: many workers, for millions of images.")
    ] = "single",
    address: Annotated[str, typer.Option("--address", help="Of Ray: local, auto or ray://...")] = "local",
    workers: Annotated[int | None, typer.Option("--workers", help="Workers of Ray.")] = None,
    chunk: Annotated[
        int | None, typer.Option("--chunk", help="With Ray: images that a worker takes at once.")
    ] = None,
    shards: Annotated[
        bool, typer.Option("--shards/--no-shards", help="With Ray: one tar archive of masks per chunk.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite/--no-overwrite", help="Replace masks of other settings.")
    ] = False,
    device: Device = None,
    precision: Precision = None,
    settings: Set = None,
) -> None:
    """Predict masks for images, archives or videos. Exit code 3 if some inputs failed."""
    from tagmask.config import apply_overrides, validate
    from tagmask.engine.config import RuntimeConfig
    from tagmask.errors import ConfigError
    from tagmask.inference.predict import PredictConfig
    from tagmask.inference.predict import predict as run
    from tagmask.models.trained import load_trained

    flags: dict[str, Any] = {"scales": scales and scales.split(","), "crf": crf, "tags": as_text(tags)}
    flags |= {"max_side": max_side, "tile": tile, "batch_size": batch_size, "every": every}
    given = {key: value for key, value in flags.items() if value is not None}
    config = validate(PredictConfig, apply_overrides(given, settings or ()), "predict")
    compute = {"device": device, "precision": precision}
    where = validate(RuntimeConfig, {k: v for k, v in compute.items() if v is not None}, "predict")
    trained = load_trained(model)
    if engine == "ray":
        who = {"address": address, "workers": workers, "chunk": chunk, "shards": shards}
        figures = _bulk(config, who, model, where, inputs, out, overwrite)
    else:
        if "://" in out or shards or chunk:
            raise ConfigError(
                "--shards, --chunk and a URL as --out need --engine ray; add it or leave them out"
            )
        figures = run(config, trained, where.create(), new_display(), inputs, Path(out), overwrite)
        if (model / "reviewed").is_dir():
            from tagmask.pipeline.trusted import expect

            show_line(expect(model, config, trained, where.create(), Path(out)))
    before = f", {figures['before']} of them done before" if figures["before"] else ""
    show_line(f"{out}: masks of {figures['images']} images{before}", out=out, **figures)
    archives = engine == "ray" and (shards or "://" in out)
    _judge(out, trained.classes.names, ("shards" if archives else "overlays") if config.overlays else "")
    if figures["failed"]:
        failed = "1 input" if figures["failed"] == 1 else f"{figures['failed']} inputs"
        show_line(f"{failed} failed, see {out.rstrip('/')}/failed.csv", error=True)
        raise typer.Exit(PARTLY)


def _judge(out: str, names: Sequence[str], overlays: str) -> None:
    """What can be said of the masks, below them."""
    from tagmask.inference.place import Place
    from tagmask.inference.summary import each_row
    from tagmask.review.predicted import judge_rows

    told = judge_rows(each_row(Place(out)), names, out.rstrip("/"), overlays)
    if told is not None:
        show_verdict(told.as_json())


def _bulk(
    config: PredictConfig,
    values: dict[str, Any],
    model: Path,
    where: RuntimeConfig,
    inputs: list[str],
    out: str,
    overwrite: bool,
) -> dict[str, Any]:
    from tagmask.config import validate
    from tagmask.inference.ray import BulkConfig, bulk

    chosen = validate(BulkConfig, {k: v for k, v in values.items() if v is not None}, "predict")
    figures = bulk(config, chosen, model, where, new_display(), inputs, out, overwrite)
    if figures["images_per_second"]:
        show_line(f"{figures['images_per_second']:.1f} images per second")
    return figures

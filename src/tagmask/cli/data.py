"""``tagmask data``: look at data sets and fetch them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tagmask.cli.common import (
    USER_ERROR,
    Classes,
    Kind,
    Masks,
    Split,
    Tags,
    guarded,
    new_display,
    show_line,
)
from tagmask.cli.manner import App
from tagmask.errors import ConfigError

if TYPE_CHECKING:
    from tagmask.data.parts import DataConfig

__all__ = ["app"]

app = App(help="Check data sets and download them.")


def _values(settings: Sequence[str]) -> DataConfig:
    """Which bands and values a run will take."""
    from tagmask.config import apply_overrides, validate
    from tagmask.data.parts import DataConfig

    given = apply_overrides({}, settings)
    data = given.pop("data", {})
    known = isinstance(data, dict) and data.keys() <= {"bands", "range"}
    if given or not known:
        raise ConfigError(
            f"data check takes --set data.bands=... and data.range=..., got {' '.join(settings)}"
        )
    return validate(DataConfig, data, "data")


@app.command("check")
@guarded
def check_data(
    path: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    kind: Kind = None,
    split: Split = None,
    tags: Tags = None,
    classes: Classes = None,
    masks: Masks = None,
    limit: Annotated[int, typer.Option(help="Most lines per kind of problem.")] = 20,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="data.bands=... or data.range=..., as the run will have them."),
    ] = None,
) -> None:
    """Read every image and mask; report every problem by file name. Exit code 2 if the data is unusable."""
    from tagmask.data.check import check

    values = _values(settings or ())
    with _progress("check") as advance:
        report = check(
            path,
            kind or "auto",
            split,
            tags=tags,
            classes=classes,
            masks=masks,
            bands=values.bands,
            range=values.range,
            progress=advance,
        )
    facts: dict[str, Any] = {
        "ok": report.ok,
        "kind": report.kind,
        "images": report.num_images,
        "masks": report.num_masks,
        "held_out": report.held_out,
    }
    problems = [f"{problem.kind} '{problem.name}': {problem.detail}" for problem in report.problems]
    show_line(report.text(limit), **facts, classes=dict(report.classes), problems=problems)
    if not report.ok:
        raise typer.Exit(USER_ERROR)


@app.command("download")
@guarded
def download_data(
    name: Annotated[str, typer.Argument(help="voc2012, sbd or coco2014.")],
    root: Annotated[Path, typer.Option("--root", help="Folder to put it in.")],
    mirror: Annotated[str | None, typer.Option(help="Address that holds the same files.")] = None,
    keep_archives: Annotated[
        bool, typer.Option("--keep-archives/--no-keep-archives", help="Keep the archives after unpacking.")
    ] = False,
) -> None:
    """Fetch a public data set; an interrupted download is resumed."""
    from tagmask.data.datasets.download import download

    with _progress("download") as advance:

        def bytes_done(file_name: str, done: int, total: int) -> None:
            advance(done, total)

        folder = download(name, root, mirror=mirror, keep_archives=keep_archives, progress=bytes_done)
    show_line(f"{name} is in {folder}", folder=folder)


@app.command("build-voc-aug")
@guarded
def build_aug(
    sbd: Annotated[Path, typer.Option("--sbd", help="The unpacked SBD.")],
    voc: Annotated[Path, typer.Option("--voc", help="The folder VOC2012.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder to make.")] = None,
) -> None:
    """Write SegmentationClassAug from VOC's and SBD's masks."""
    from tagmask.data.datasets.sbd import build_voc_aug

    with _progress("masks") as advance:
        folder = build_voc_aug(sbd, voc, out, advance)
    show_line(f"masks are in {folder}", folder=folder)


def _progress(title: str) -> AbstractContextManager[Callable[[int, int], None]]:
    """A bar as a function of (done, total)."""
    from contextlib import contextmanager

    @contextmanager
    def bar() -> Any:
        with new_display().task(title) as task:
            yield task.set

    return bar()

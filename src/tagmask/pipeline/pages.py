"""The pages and tables about a run as functions: the commands' words as arguments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tagmask.data.datasets.given import Tags
from tagmask.pipeline.config import RunConfig
from tagmask.pipeline.flags import Classes
from tagmask.pipeline.run import Run
from tagmask.pipeline.single import single_step

__all__ = ["entropy", "write_report", "write_review"]

Settings = Mapping[str, Any]


def write_review(
    run: str | Path | RunConfig,
    settings: Settings | None = None,
    progress: bool = True,
    *,
    data: str | Path | None = None,
    tags: Tags | None = None,
    classes: Classes | None = None,
    kind: str | None = None,
    split: str | None = None,
    device: str | int | None = None,
    out: str | Path | None = None,
) -> Run:
    """Which masks and tags to look at first; needs no true masks. Arguments as in `localize`."""
    words = {"data": data, "tags": tags, "classes": classes, "kind": kind, "split": split, "device": device}
    return single_step("review", run, words, settings, out, progress)


def entropy(
    run: str | Path | RunConfig,
    settings: Settings | None = None,
    progress: bool = True,
    *,
    data: str | Path | None = None,
    tags: Tags | None = None,
    classes: Classes | None = None,
    kind: str | None = None,
    split: str | None = None,
    device: str | int | None = None,
    out: str | Path | None = None,
) -> Run:
    """How far every block's attention spreads the maps (AReAM). Arguments as in `localize`."""
    words = {"data": data, "tags": tags, "classes": classes, "kind": kind, "split": split, "device": device}
    return single_step("entropy", run, words, settings, out, progress)


def write_report(
    run: str | Path | RunConfig,
    settings: Settings | None = None,
    progress: bool = True,
    *,
    data: str | Path | None = None,
) -> Run:
    """Write the page about a run, see `tagmask.steps.report`; arguments as in `localize`."""
    return single_step("report", run, {"data": data}, settings, None, progress)

"""The images of a run in the order in which a person should look at them, without any true mask."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from tagmask import __version__
from tagmask.config import Config
from tagmask.data import TagDataset
from tagmask.data.datasets.tagcells import join_tags
from tagmask.data.parts import Part
from tagmask.data.readers.regular import read_text
from tagmask.data.tables import csv_text
from tagmask.errors import DataError
from tagmask.inference.views import map_kinds
from tagmask.models.trained import Trained
from tagmask.report.panels import class_colours, label_picture, picture_uri
from tagmask.report.review_page import Entry, ReviewPage, TagLine, render_review
from tagmask.review.queue import Doubt, Row, rank, tag_doubts
from tagmask.steps.base import Context, Step, data_checksum, each_image
from tagmask.steps.opinions import Opinions
from tagmask.store.files import atomic_write, file_for

__all__ = ["REVIEW", "ReviewConfig", "read_row", "review"]

_PICTURE_SIDE = 240


class ReviewConfig(Config):
    """Which images, and how closely they are looked at."""

    split: Part = "auto"
    """Images to review: train, val, both, or auto for val if there is one."""
    max_side: int = Field(default=512, ge=32)
    """Signals are computed at this longer side."""
    kinds: tuple[str, ...] | None = None
    """Maps compared with the mask; those on disk, else CAM and LAM, if not given."""
    background: float = Field(default=0.45, ge=0, le=1)
    """Map values up to this are background in the comparison."""
    pictures: int = Field(default=150, ge=0)
    """So many images, from the worst, are shown on the page."""


@dataclass(frozen=True)
class _Plan:
    """What is known to be possible before the first image is looked at."""

    config: ReviewConfig
    trained: Trained
    dataset: TagDataset


def _reads(config: ReviewConfig, context: Context) -> dict[str, Any]:
    manifest = context.manifest
    inputs: dict[str, Any] = {name: manifest.checksum(context.folder / name) for name in ("maps", "labels")}
    model = context.models.checksum(context.models.segmenter_name)
    inputs |= {"model": model, "data": data_checksum(context, config.split)}
    return {**inputs, "masks": manifest.checksum(context.folder / "masks")}


def _prepare(config: ReviewConfig, context: Context) -> _Plan:
    trained = context.models.segmenter()
    map_kinds(trained.method, [k for k in config.kinds or () if not (context.folder / "maps" / k).is_dir()])
    return _Plan(config, trained, context.data.open(config.split))


def review(plan: _Plan, context: Context) -> dict[str, Any]:
    """Write ``review/``: ``index.html``, ``queue.csv`` (worst first), ``tag_doubts.csv``, ``signals/``.

    The mask in question is the one in ``masks/``; where there is none, what the model says now. The opinions
    it is compared with are the maps and labels in the run folder; maps that are not there are made.

    Args:
        plan: What `REVIEW.prepare` gave.
        context: The run.

    Returns:
        Figures: images, tag doubts, median score.

    Raises:
        Stopped: A stop signal came; finished images are kept.
        UserError: Images, masks or maps cannot be read.
    """
    config, dataset, out = plan.config, plan.dataset, context.out / "review"
    looker = Opinions(config, context, plan.trained, dataset)
    each_image(
        context, dataset, "review", lambda name: [file_for(out / "signals", name, ".json")], looker.look
    )
    context.runtime.barrier()
    if not context.runtime.is_main:
        return {}
    found = [read_row(file_for(out / "signals", name, ".json")) for name in dataset.names]
    names = dataset.classes.names
    rows = rank(found, names)
    doubts = tag_doubts(found)
    _write_queue(out / "queue.csv", rows, names)
    _write_doubts(out / "tag_doubts.csv", doubts, names)
    page = _page(config, context, dataset, looker, rows, doubts)
    with atomic_write(out / "index.html") as target:
        target.write_text(render_review(page), encoding="utf-8")
    median = float(np.median([row.score for row in rows]))
    return {"images": len(rows), "tag_doubts": len(doubts), "median_score": round(median, 4)}


def read_row(path: Path) -> Row:
    """What was noted about one image.

    Raises:
        DataError: The file is damaged.
    """
    try:
        record: Mapping[str, Any] = json.loads(read_text(path))
        areas = {int(key): float(area) for key, area in record["areas"].items()}
        tags = None if record["tags"] is None else tuple(record["tags"])
        return Row(record["name"], record["signals"], areas, tags, tuple(record["chances"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); delete it and run review again") from None


def _listed(keys: Sequence[int] | None, names: Sequence[str]) -> str:
    return join_tags([names[key] for key in keys or ()], names)


def _write_queue(path: Path, rows: Sequence[Row], names: Sequence[str]) -> None:
    kinds = sorted({kind for row in rows for kind in row.signals})
    table: list[list[Any]] = [["place", "name", "score", "why", "tags", "classes", *kinds]]
    for place, row in enumerate(rows, start=1):
        values = [round(row.signals[kind], 4) if kind in row.signals else "" for kind in kinds]
        classes = _listed(sorted(row.areas), names)
        table.append(
            [place, row.name, row.score, "; ".join(row.words), _listed(row.tags, names), classes, *values]
        )
    _write_csv(path, table)


def _write_doubts(path: Path, doubts: Sequence[Doubt], names: Sequence[str]) -> None:
    head = ["name", "tag", "perhaps", "doubt", "grade", "probability", "share of the mask"]
    lines = [[d.name, names[d.key], d.kind, d.doubt, _grade(d), d.chance, d.area] for d in doubts]
    _write_csv(path, [head, *lines])


def _grade(doubt: Doubt) -> str:
    return "strong" if doubt.strong else "weak"


def _write_csv(path: Path, table: Sequence[Sequence[Any]]) -> None:
    with atomic_write(path) as target:
        target.write_text(csv_text(table), encoding="utf-8", newline="")


def _page(
    config: ReviewConfig,
    context: Context,
    dataset: TagDataset,
    looker: Opinions,
    rows: Sequence[Row],
    doubts: Sequence[Doubt],
) -> ReviewPage:
    names = dataset.classes.names
    entries = []
    for place, row in enumerate(rows):
        index = dataset.position(row.name)
        pictures = _pictures(dataset, looker, index) if place < config.pictures else ()
        entries.append(Entry(place + 1, row.name, row.score, row.words, _listed(row.tags, names), pictures))
    lines = [TagLine(d.name, names[d.key], d.kind, d.doubt, _grade(d), d.area) for d in doubts]
    return ReviewPage(
        title=f"Review of {context.folder.resolve().name}",
        images=len(rows),
        split=dataset.split,
        entries=entries,
        doubts=lines,
        chips=list(zip(names, class_colours(len(names)), strict=True)),
        footer=f"Written by tagmask {__version__}. This file holds everything it shows.",
    )


def _pictures(dataset: TagDataset, looker: Opinions, index: int) -> tuple[str, ...]:
    image, mask = dataset.picture(index), looker.mask(index)
    found = [picture_uri(image, _PICTURE_SIDE)]
    if mask is not None and mask.shape == image.shape[:2]:
        found.append(picture_uri(label_picture(image, mask), _PICTURE_SIDE))
    return tuple(found)


REVIEW = Step("review", ("review",), reads=_reads, prepare=_prepare, work=review)
"""Which masks and tags to look at first."""

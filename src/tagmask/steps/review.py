"""The images of a run in the order in which a person should look at them, without any true mask."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
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
from tagmask.review.calibration import FEWEST, Trust, calibrate
from tagmask.review.queue import Doubt, Row, rank, tag_doubts
from tagmask.review.tables import by_trust, doubt_table, grade, queue_table, trust_values
from tagmask.steps.base import Context, Step, data_checksum, each_image, plain
from tagmask.steps.opinions import Opinions
from tagmask.steps.trust import CHECKED, checked_masks
from tagmask.store.files import atomic_write, file_for, write_json
from tagmask.store.ledger import fingerprint

__all__ = ["REVIEW", "ReviewConfig", "listed", "read_row", "review", "write_csv"]

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
    """This many images, from the worst on, are shown on the page."""


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
    checked = context.folder / CHECKED
    inputs["checked"] = fingerprint(checked)["sha256"] if checked.is_dir() else None
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
    looker.known = _known_signals(config, context)
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
    trust = _trust(context, looker, rows)
    rows = by_trust(rows, trust)
    write_csv(out / "queue.csv", queue_table(rows, names, partial(listed, names=names), trust))
    write_csv(out / "tag_doubts.csv", doubt_table(doubts, names))
    page = _page(config, context, dataset, looker, rows, doubts)
    with atomic_write(out / "index.html") as target:
        target.write_text(render_review(page), encoding="utf-8")
    median = float(np.median([row.score for row in rows]))
    figures = {"images": len(rows), "tag_doubts": len(doubts), "median_score": round(median, 4)}
    if trust is None:
        return figures
    write_json(out / "trust.json", trust_values(trust, ("background", *names)))
    context.display.say(trust.text)
    return figures | {"checked": trust.checked, "iou": round(trust.iou, 4), "miou": round(trust.miou, 4)}


def _trust(context: Context, looker: Opinions, rows: Sequence[Row]) -> Trust | None:
    """What the masks that a person accepted or mended say about the others; None if they are too few."""

    def own(name: str) -> NDArray[np.uint8] | None:
        return looker.mask(looker.dataset.position(name))

    checked = checked_masks(context.folder, [row.name for row in rows], own)
    if len(checked) < FEWEST:
        if checked:
            context.display.say(
                f"{len(checked)} masks checked; from {FEWEST} on the others get a predicted IoU"
            )
        return None
    return calibrate(rows, checked, looker.dataset.num_classes)


def _known_signals(config: ReviewConfig, context: Context) -> Path | None:
    """Signals of an earlier review, if nothing has changed since but what a person checked."""
    before = context.manifest.steps.get("review", {})
    old, new = (dict(inputs) for inputs in (before.get("inputs", {}), _reads(config, context)))
    old.pop("checked", None), new.pop("checked", None)
    same = before.get("status") == "done" and old == new and before.get("settings") == plain(config)
    return (
        context.folder / "review" / "signals" if same and not context.manifest.differences("review") else None
    )


def read_row(path: Path) -> Row:
    """What was noted about one image.

    Raises:
        DataError: The file is damaged.
    """
    try:
        record: Mapping[str, Any] = json.loads(read_text(path))
        areas = {int(key): float(area) for key, area in record["areas"].items()}
        tags = None if record["tags"] is None else tuple(record["tags"])
        said = {
            int(key): (float(hit), float(mass)) for key, (hit, mass) in record.get("expected", {}).items()
        }
        return Row(record["name"], record["signals"], areas, tags, tuple(record["chances"]), expected=said)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); delete it and run review again") from None


def listed(keys: Sequence[int] | None, names: Sequence[str]) -> str:
    """Names of 0-based classes as one text that the tag reader reads back."""
    return join_tags([names[key] for key in keys or ()], names)


def write_csv(path: Path, table: Sequence[Sequence[Any]]) -> None:
    """Write a table, atomically; no cell of it is run by a spreadsheet."""
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
        tags = None if row.tags is None else listed(row.tags, names)
        entries.append(Entry(place + 1, row.name, row.score, row.words, tags, pictures))
    lines = [TagLine(d.name, names[d.key], d.kind, d.doubt, grade(d), d.area) for d in doubts]
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


REVIEW = Step("review", ("review",), reads=_reads, prepare=_prepare, work=review, beside=True)
"""Which masks and tags to look at first."""

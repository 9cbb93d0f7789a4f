"""One page about a run, from what its steps left on disk."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from tagmask import __version__
from tagmask.config import Config
from tagmask.data import TagDataset
from tagmask.data.parts import Part
from tagmask.data.readers.regular import read_text
from tagmask.errors import DataError
from tagmask.inference.views import MapConfig
from tagmask.models.trained import Trained
from tagmask.report.figures import Curve, curves
from tagmask.report.page import Cell, Figure, Page, Table, render
from tagmask.review.verdict import read_verdict
from tagmask.steps.base import Context, Step
from tagmask.steps.panels import examples, kind_title, token_plane
from tagmask.store.files import atomic_write

__all__ = ["REPORT", "ReportConfig", "report"]

_IN_SCORES = {"what", "miou", "classes", "iou", "images", "split", "tags", "threshold"} | {
    *("scales", "flip", "crf")
}
_NO_LOSS = {"step", "lr", "skipped", "steps_per_second", "images_per_second"}


class ReportConfig(Config):
    """What is on the page."""

    examples: int = Field(default=8, ge=0, le=16)
    """Images shown with everything that was made of them: typical ones, the worst and the best."""
    tokens: int = Field(default=100, ge=0)
    """Images whose class tokens are drawn, for methods that have class tokens."""


@dataclass(frozen=True)
class _Plan:
    """What the page is made of."""

    config: ReportConfig
    settings: Mapping[str, Any]
    steps: Mapping[str, Mapping[str, Any]]
    dataset: TagDataset
    trained: Trained | None


def _reads(config: ReportConfig, context: Context) -> dict[str, Any]:
    manifest = context.manifest
    return {
        name: {output: manifest.on_disk(output) for output in step["outputs"]} if "outputs" in step else None
        for name, step in manifest.steps.items()
        if name != "report"
    }


def _prepare(config: ReportConfig, context: Context) -> _Plan:
    settings = context.settings.model_dump(mode="json")
    split = settings["localize"]["split"]
    part: Part = "auto" if split == "both" else split
    dataset = context.data.open(part, masks=context.data.has_masks(part))
    there = settings["checkpoint"] or (context.folder / "model").is_dir()
    return _Plan(config, settings, context.manifest.steps, dataset, context.models.get() if there else None)


def report(plan: _Plan, context: Context) -> dict[str, Any]:
    """Write ``report.html``: one file without anything from outside.

    Args:
        plan: What `REPORT.prepare` gave.
        context: The run.

    Returns:
        The size of the page in bytes.

    Raises:
        UserError: What is on disk cannot be read, or the page cannot be written.
    """
    if not context.runtime.is_main:
        return {}
    config, settings, steps, folder = plan.config, plan.settings, plan.steps, context.folder
    dataset, trained = plan.dataset, plan.trained
    records = [_score(path) for path in sorted((folder / "scores").glob("*.json"))]
    records.sort(key=lambda record: _ORDER.index(record["what"]) if record["what"] in _ORDER else 9)
    shown = examples(folder, dataset, config.examples) if config.examples else []
    tokens = None
    if trained is not None and trained.method.has_class_tokens and config.tokens:
        size = MapConfig(size=settings["localize"]["size"])
        tokens = token_plane(context, dataset, trained, size, config.tokens)
    page = Page(
        title=f"{_method_name(settings, trained)} on {Path(str(settings['data']['root'])).name}",
        lead=_lead(steps, records[0]["images"] if records else len(dataset), dataset.split),
        verdict=read_verdict(folder / "verdict.json", images=bool(shown)),
        headline=[
            ("; ".join([f"mean IoU, {_title(r)}", *r.get("doubts", ())]), f"{100 * r['miou']:.1f}")
            for r in records
        ],
        settings=_settings(settings, steps),
        losses=_losses(folder / "train" / "log.csv"),
        scores=[*_score_curves(folder / "train" / "scores.csv", steps), *_threshold_curves(records)],
        tables=_tables(records),
        examples=shown,
        embedding=tokens,
        embedding_note=_TOKEN_NOTE,
        footer=f"Written by tagmask {__version__}. This file holds everything it shows.",
        details={"All settings": yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)},
    )
    text = render(page)
    with atomic_write(context.out / "report.html") as target:
        target.write_text(text, encoding="utf-8")
    return {"bytes": len(text.encode())}


_ORDER = ("segmentation", "label", "walk", "cam", "lam", "fused")
_TOKEN_NOTE = (
    "Each point is the token of a tagged class in one image, scaled to length 1, along the two widest "
    "directions of all of them. Classes that the model tells apart form separate clouds."
)
_ARTIFACT_NOTE = (
    "Precision: share of the marked pixels that are right. Recall: share of the true pixels that are marked. "
    "Confusion: wrong pixels per right one (0 is perfect); artifacts, that is attention outside the class, "
    "raise it."
)


def _score(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(read_text(path))
        if not isinstance(record, dict) or not record.keys() >= _IN_SCORES:
            raise ValueError("unexpected content")
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); delete it and run evaluate again") from None
    return record


def _method_name(settings: Mapping[str, Any], trained: Trained | None) -> str:
    return type(trained.method).__name__ if trained is not None else str(settings["method"])


def _title(record: Mapping[str, Any]) -> str:
    return kind_title(str(record["what"]))


def _lead(steps: Mapping[str, Mapping[str, Any]], images: int, split: str) -> str:
    count = steps.get("train", {}).get("results", {}).get("iterations")
    learned = f"Trained for {count} iterations on image tags. " if count else ""
    tags = steps.get("train", {}).get("results", {}).get("tags")
    if tags:
        learned += (
            f"The tags of {tags['images']:.0f} images kept aside: mAP {100 * tags['map']:.1f}, "
            f"F1 {100 * tags['f1']:.1f}. "
        )
    return f"{learned}Shown and scored on {images} images of split {split}."


def _settings(settings: Mapping[str, Any], steps: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    model, train, data = settings["model"], settings["train"], settings["data"]
    rows = [
        ("Method", settings["method"]),
        *((key.capitalize(), str(model[key])) for key in ("backbone", "weights") if key in model),
        ("Data", str(data["root"])),
        ("Iterations", f"{train['iterations']} of {train['batch_size']} images at {train['size']} px"),
        ("View", train["view"]),
        ("Precision", settings["runtime"]["precision"]),
        ("Seed", str(settings["runtime"]["seed"])),
    ]
    for name, step in steps.items():
        if step.get("status") == "done" and name != "report":
            rows.append((f"Time, {name}", f"{step['seconds']:.0f} s"))
    versions: dict[str, str] = next((s["versions"] for s in steps.values() if "versions" in s), {})
    return [*rows, *versions.items()]


def _read(path: Path) -> dict[str, Curve]:
    """Columns of a log as curves over the step; rows without a value are left out."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in (rows[0] if rows else ()) if name not in ("step", "doubts")]
    found: dict[str, Curve] = {}
    for name in names:
        try:
            kept = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{path} is damaged ({error}); delete it, and the page has no such curve"
            ) from None
        if kept:
            found[name] = ([x for x, _ in kept], [y for _, y in kept])
    return found


def _losses(path: Path) -> list[Figure]:
    figures = []
    for name, curve in _read(path).items():
        if name not in _NO_LOSS and any(curve[1]):
            uri = curves({name: curve}, "iteration", "", (2.9, 1.9))
            shown, (x, y) = name.replace("_", " "), curve
            alt = f"{shown} from {y[0]:.3g} at iteration {x[0]} to {y[-1]:.3g} at iteration {x[-1]}"
            figures.append(Figure(uri, shown, alt))
    return figures


def _score_curves(path: Path, steps: Mapping[str, Mapping[str, Any]]) -> list[Figure]:
    lines = {kind_title(name): (x, [100 * v for v in y]) for name, (x, y) in _read(path).items()}
    if not lines:
        return []
    last = ", ".join(f"{name} {y[-1]:.1f}" for name, (_, y) in lines.items())
    uri = curves(lines, "iteration", "mean IoU (%)")
    doubts = steps.get("train", {}).get("results", {}).get("doubts", [])
    return [Figure(uri, "Mean IoU while training", "; ".join([f"Mean IoU at the end: {last}", *doubts]))]


def _threshold_curves(records: Sequence[Mapping[str, Any]]) -> list[Figure]:
    found = {_title(record): record["curve"] for record in records if "curve" in record}
    if not found:
        return []
    lines = {name: (curve["thresholds"], [100 * v for v in curve["miou"]]) for name, curve in found.items()}
    points = [(name, 100 * curve["best_miou"], curve["best_threshold"]) for name, curve in found.items()]
    best = ", ".join(f"{name} {miou:.1f} at {threshold:.2f}" for name, miou, threshold in points)
    best = "; ".join(
        dict.fromkeys([best, *(doubt for record in records for doubt in record.get("doubts", ()))])
    )
    uri = curves(lines, "background threshold", "mean IoU (%)")
    return [Figure(uri, "Maps at every threshold", f"Best, an oracle chosen on these masks: {best}")]


def _tables(records: Sequence[Mapping[str, Any]]) -> list[Table]:
    if not records:
        return []
    head = ["class", *(_title(record) for record in records)]
    rows = [("mean", [_percent(record["miou"]) for record in records])]
    for name in records[0]["classes"]:
        rows.append((name, [_percent(record["iou"].get(name)) for record in records]))
    scores = Table("IoU in percent", head, rows, [_where(record) for record in records])
    maps = [record for record in records if "curve" in record]
    return [scores, _artifacts(maps)] if maps else [scores]


def _artifacts(records: Sequence[Mapping[str, Any]]) -> Table:
    """What part of a map is outside its class."""
    measures = ("precision", "recall", "confusion")
    head = [f"{_title(record)} {measure}" for record in records for measure in measures]
    rows: dict[str, list[Cell]] = {name: [] for name in ("mean", *records[0]["classes"][1:])}
    for record in records:
        for measure in measures:
            values = {name: record[measure][name] for name in rows if name != "mean"}
            finite = [value for value in values.values() if isinstance(value, (int, float))]
            values["mean"] = sum(finite) / len(finite) if finite else None
            for name, value in values.items():
                rows[name].append(_ratio(value) if measure == "confusion" else _percent(value))
    thresholds = ", ".join(f"{_title(record)} {record['threshold']:.2f}" for record in records)
    notes = [_ARTIFACT_NOTE, f"Thresholds: {thresholds}. Means leave out classes without a figure."]
    return Table("Artifacts of the maps", ["class", *head], list(rows.items()), notes)


def _ratio(value: float | str | None) -> Cell:
    return Cell("-" if value is None else value if isinstance(value, str) else f"{value:.2f}")


def _percent(value: float | None) -> Cell:
    return Cell("-") if value is None else Cell(f"{100 * value:.1f}", max(0.0, min(1.0, value)))


def _where(record: Mapping[str, Any]) -> str:
    parts = [
        f"{_title(record)}: {record['images']} images of split {record['split']}",
        f"tags {record['tags']}",
    ]
    if record["threshold"] is not None:
        parts.append(f"threshold {record['threshold']:.2f} ({record['threshold_source']})")
    if record.get("undecided_pixels"):
        parts.append(f"undecided pixels count as {record['undecided_pixels'].replace('_', ' ')}")
    parts.append(f"scales {', '.join(f'{scale:g}' for scale in record['scales'])}")
    parts.append("mirrored views too" if record["flip"] else "no mirrored views")
    parts.append("CRF" if record["crf"] else "no CRF")
    return "; ".join([", ".join(parts), *record.get("doubts", ())]) + "."


REPORT = Step("report", ("report.html",), reads=_reads, prepare=_prepare, work=report, anew=True)
"""One page about a run; asked for by name it is written again, since its looks are not among its inputs."""

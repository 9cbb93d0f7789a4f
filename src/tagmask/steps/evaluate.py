"""Maps, labels and masks on disk against the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from tagmask import __version__, methods
from tagmask.config import Config
from tagmask.data import TagDataset
from tagmask.data.parts import Part
from tagmask.engine.signals import StopSignal
from tagmask.errors import ConfigError, DataError, nearest
from tagmask.metrics.confusion import Absent
from tagmask.metrics.seeds import percent_steps
from tagmask.steps.base import Context, Step, data_checksum
from tagmask.steps.scoring import PICTURES, MapScorer, PictureScorer, Scorer
from tagmask.store.files import file_for, write_json

__all__ = ["EVALUATE", "EvaluateConfig", "evaluate"]

_TAG_SOURCES = {
    "dataset": "ground truth",
    "classifier": "predicted by the classifier",
    "mask": "predicted by the segmentation",
    "none": "none",
}
_MAKERS = {"label": "refine", "walk": "walk", "segmentation": "segment"}


class EvaluateConfig(Config):
    """What is scored against which masks."""

    what: tuple[str, ...] | None = None
    """Kinds of maps, "fused", "label", "walk", "segmentation"; everything that is on disk if not given."""
    split: Part = "auto"
    """Images to score on: train, val, or auto for val if there is one."""
    background: float | Literal["best"] = 0.5
    """Map values up to this are background; "best" takes the threshold that these very masks favour."""
    thresholds: tuple[float, ...] = percent_steps(0, 100)
    """Thresholds of the curve every map score comes with."""
    absent: Absent = "skip_truth"
    """How absent classes count in the mean, see tagmask.metrics.confusion."""
    undecided: Literal["background", "leave_out"] = "background"
    """How pseudo labels count where they say 255; leaving them out flatters the score."""
    limit: int | None = Field(default=None, ge=1)
    """Use only this many images, from the first on."""


@dataclass(frozen=True)
class _Plan:
    """What is known to be possible before the first score is written."""

    config: EvaluateConfig
    dataset: TagDataset
    wanted: tuple[str, ...]
    about: Mapping[str, Any]
    changed: Mapping[str, int]


def _check(config: EvaluateConfig, context: Context) -> None:
    context.data.open(config.split, masks=True)
    known = (*methods.get(context.settings.method).map_kinds, "fused", *PICTURES)
    there = [path.name for path in (context.folder / "maps").glob("*")]
    for what in config.what or ():
        if what not in (*known, *there):
            raise ConfigError(f"evaluate.what: nothing is called '{what}'. {nearest(what, known)}")


def _needless(context: Context) -> str | None:
    part = context.settings.model_dump(mode="json")["evaluate"]["split"]
    return None if context.data.has_masks(part) else "there are no true masks"


def _reads(config: EvaluateConfig, context: Context) -> dict[str, Any]:
    manifest = context.manifest
    inputs: dict[str, Any] = {
        name: manifest.checksum(context.folder / name) for name in ("maps", "labels", "walks", "masks")
    }
    return {**inputs, "truth": data_checksum(context, config.split, masks=True)}


def _prepare(config: EvaluateConfig, context: Context) -> _Plan:
    dataset = context.data.open(config.split, masks=True)
    if config.limit is not None and config.limit < len(dataset):
        dataset = dataset.subset(range(config.limit))
    manifest = context.manifest
    changed = {name: len(manifest.differences(name)) for name in ("localize", "refine", "walk", "segment")}
    return _Plan(config, dataset, tuple(_wanted(config, context, dataset)), _about(context), changed)


def _about(context: Context) -> dict[str, Any]:
    """What the scores say about where the predictions came from."""
    steps = context.manifest.steps
    made = {name: steps.get(name, {}) for name in ("localize", "refine", "walk", "segment")}
    about: dict[str, Any] = {name: step.get("settings") for name, step in made.items()}
    about["localize"] = {**(about["localize"] or {}), **made["localize"].get("results", {})}
    about["method"] = context.settings.method
    models = [made[name].get("inputs", {}).get("model") for name in ("localize", "segment")]
    about["model"], about["segmenter"] = models[0] or models[1], models[1] or models[0]
    return about


def evaluate(plan: _Plan, context: Context) -> dict[str, Any]:
    """Score what is in the run folder; one file ``scores/<split>-<what>.json`` each.

    Args:
        plan: What `EVALUATE.prepare` gave.
        context: The run.

    Returns:
        {what: mIoU}.

    Raises:
        Stopped: A stop signal came.
        UserError: A prediction or a mask is missing, damaged or of another size.
    """
    config, dataset, runtime = plan.config, plan.dataset, context.runtime
    background = None if config.background == "best" else float(config.background)
    results: dict[str, Any] = {}
    for what in plan.wanted:
        scorer: Scorer
        pictures = _is_picture(what, context, dataset)
        if pictures:
            scorer = PictureScorer(what, context.folder, dataset, config.undecided)
        else:
            scorer = MapScorer(what, context.folder, dataset, background, config.thresholds)
        with StopSignal() as stop, context.display.task(f"score {what}", len(dataset)) as task:
            for index in range(runtime.rank, len(dataset), runtime.world):
                scorer.add(index)
                task.advance(runtime.world)
                stop.check("scoring stopped")
        record = scorer.record(runtime.reduce(scorer.counts()).cpu(), config.absent)
        record |= _provenance(what, pictures, context, dataset, plan.about)
        maker = _MAKERS[what] if pictures else "localize"
        # Masks that a person corrected are worth scoring, but they are not what the model said.
        record["changed_files"] = plan.changed[maker]
        if runtime.is_main:
            write_json(context.out / "scores" / f"{dataset.split}-{what}.json", _ordered(record))
        results[what] = record["miou"]
    return results


def _wanted(config: EvaluateConfig, context: Context, dataset: TagDataset) -> list[str]:
    maps = context.folder / "maps"
    on_disk = [p.name for p in sorted(maps.glob("*")) if _any(p, dataset, ".npz")]
    on_disk += ["fused"] if {"cam", "lam"} <= set(on_disk) and "fused" not in on_disk else []
    on_disk += [what for what in PICTURES if _is_picture(what, context, dataset) and what not in on_disk]
    if not (config.what or on_disk):
        raise DataError(
            f"nothing to score in {context.folder} for split '{dataset.split}'; run localize, refine or "
            "segment on these images first"
        )
    for what in config.what or ():
        if what not in on_disk:
            raise ConfigError(
                f"no '{what}' on disk for split '{dataset.split}' (there are: {', '.join(on_disk) or 'none'})"
            )
    return list(config.what or on_disk)


def _is_picture(what: str, context: Context, dataset: TagDataset) -> bool:
    """Whether it is there as label images. "walk" is a kind of maps, too: AFA's, and not PSA's labels."""
    return what in PICTURES and _any(context.folder / PICTURES[what], dataset, ".png")


def _any(folder: Path, dataset: TagDataset, suffix: str) -> bool:
    """Whether a folder holds the file of any image; where others are missing, scoring says which."""
    return folder.is_dir() and any(file_for(folder, name, suffix).exists() for name in dataset.names)


def _provenance(
    what: str, pictures: bool, context: Context, dataset: TagDataset, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Where a score came from, so that it can be compared, or not, with another."""
    step = {"label": "refine", "walk": "walk"}.get(what) if pictures else None
    refined = dict(about.get(step) or {}) if step else {}
    if what == "segmentation":
        seen = dict(about.get("segment") or {})
        tags = _TAG_SOURCES[seen.get("tags", "none")]
    else:
        settings = dict(about.get("localize") or {})
        kind = refined.get("maps", "cam") if step else what
        seen = settings | (settings.get("views") or {}).get("cam" if kind == "fused" else kind, {})
        tags = _TAG_SOURCES[seen.get("tags", "dataset")]
    return {
        "what": what,
        "split": dataset.split,
        "images": len(dataset),
        "tags": tags,
        "tag_source": dataset.about.get("tags"),
        "truth": dataset.about.get("masks"),
        "scales": list(seen.get("scales") or [1.0]),
        "flip": seen.get("flip", "none") != "none",
        "size": seen.get("size") or "image",
        "refined": refined or None,
        "crf": bool(refined.get("method") == "crf" or (what != "label" and (refined or seen).get("crf"))),
        "classes": list(dataset.classes.labels),
        "method": about.get("method"),
        "model": about.get("segmenter" if what == "segmentation" else "model"),
        "compute": context.runtime.about(),
        "version": __version__,
    }


def _ordered(record: Mapping[str, Any]) -> dict[str, Any]:
    first = ("what", "split", "images", "miou", "threshold", "threshold_source", "tags", "absent_policy")
    return {k: record[k] for k in first} | {k: v for k, v in record.items() if k not in first}


EVALUATE = Step(
    "evaluate",
    writes=("scores",),
    reads=_reads,
    prepare=_prepare,
    work=evaluate,
    check=_check,
    needless=_needless,
)
"""Maps, labels and masks to scores."""

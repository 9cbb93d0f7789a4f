"""What can be said of a run's masks without true ones, at the end of a run and on top of its report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from tagmask.config import Config
from tagmask.data import TagDataset
from tagmask.data.loader import eval_images
from tagmask.data.parts import Part
from tagmask.data.readers.regular import read_text
from tagmask.errors import DataError, UserError
from tagmask.inference.views import tag_chances
from tagmask.metrics.tags import multilabel_f1
from tagmask.review.verdict import Facts, judge
from tagmask.steps.base import Context, Step, data_checksum
from tagmask.steps.cuts import outline_evidence
from tagmask.store.files import file_for, write_json
from tagmask.store.labels import read_mask

__all__ = ["VERDICT", "VerdictConfig", "agreement", "verdict"]

_PRESENT = 0.002
_FULL = 0.98


class VerdictConfig(Config):
    """Which masks are looked at."""

    images: int = Field(default=200, ge=1)
    """At most this many, evenly spread."""
    split: Part = "auto"
    """Part of the data: train, val, both, or auto for val if there is one."""


@dataclass(frozen=True)
class _Plan:
    """Images whose masks are there."""

    dataset: TagDataset
    background: bool


@dataclass
class _Seen:
    """What one pass over the images collects."""

    found: list[Tensor]
    tags: list[Tensor]
    tagged: list[bool]
    share: list[float]
    edges: dict[str, list[float]]


def _needless(context: Context) -> str | None:
    return None if context.manifest.steps.get("segment") or _segments(context) else ""


def _segments(context: Context) -> bool:
    from tagmask import methods

    settings = context.settings
    return settings.student is not None or methods.get(settings.method).segments


def _reads(config: VerdictConfig, context: Context) -> dict[str, Any]:
    manifest = context.manifest
    found = {name: manifest.checksum(context.folder / name) for name in ("masks", "labels")}
    return {**found, "data": data_checksum(context, config.split), "checked": _checked(context)}


def _checked(context: Context) -> tuple[int, float, float, float] | None:
    """What the last review found out from checked masks, if the masks are still those it looked at."""
    path, manifest = context.folder / "review" / "trust.json", context.manifest
    seen = manifest.steps.get("review", {}).get("inputs", {}).get("masks")
    if not path.is_file() or seen != manifest.checksum(context.folder / "masks"):
        return None
    try:
        told = json.loads(read_text(path))
        return int(told["checked"]), float(told["iou"]), float(told["low"]), float(told["high"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); delete it and run review again") from None


def _prepare(config: VerdictConfig, context: Context) -> _Plan:
    dataset = context.data.open(config.split)
    there = [i for i, n in enumerate(dataset.names) if file_for(context.folder / "masks", n, ".png").exists()]
    count = min(config.images, len(there))
    chosen = [there[i * len(there) // count] for i in range(count)]
    fitted = context.manifest.steps.get("refine", {}).get("results", {}).get("fitted")
    refine = context.settings.model_dump(mode="json")["refine"]
    none_asked = not refine["fit"] and refine["background"] == 0
    background = not none_asked and not (fitted and fitted["threshold"] == 0)
    return _Plan(dataset.subset(chosen), background)


def verdict(plan: _Plan, context: Context) -> dict[str, Any]:
    """Look at masks, labels and the classifier; write ``verdict.json``.

    Args:
        plan: What `VERDICT.prepare` gave.
        context: The run.

    Returns:
        The verdict: level, lines, advice, next, facts.

    Raises:
        UserError: A mask or an image cannot be read.
    """
    if not context.runtime.is_main or not len(plan.dataset):
        return {}
    seen = _look(plan, context)
    told = judge(_facts(plan, context, seen), str(context.folder))
    write_json(context.out / "verdict.json", told.as_json())
    return told.as_json()


def _look(plan: _Plan, context: Context) -> _Seen:
    dataset, seen = plan.dataset, _Seen([], [], [], [], {})
    for index, batch in eval_images(dataset):
        name, (height, width) = batch.names[0], batch.images.shape[2:]
        mask = read_mask(file_for(context.folder / "masks", name, ".png"))
        counts = np.bincount(mask[mask != 255], minlength=dataset.num_classes + 1)
        shares = counts[1 : dataset.num_classes + 1] / max(1, mask.size)
        seen.found.append(torch.from_numpy(shares > _PRESENT))
        seen.tags.append(batch.tags[0])
        seen.tagged.append(dataset.has_tags(index))
        seen.share.append(float(shares.sum()))
        if plan.background and bool(batch.tags.any()):
            cuts = {"masks": mask, "box": _box(height, width)}
            label = file_for(context.folder / "labels", name, ".png")
            if label.exists():
                cuts["labels"] = read_mask(label)
            for what, cut in cuts.items():
                inside = torch.from_numpy((cut > 0) & (cut != 255))
                seen.edges.setdefault(what, []).append(outline_evidence(inside.float(), batch.images))
    return seen


def _box(height: int, width: int) -> NDArray[np.uint8]:
    box = np.zeros((height, width), np.uint8)
    box[height // 4 : height - height // 4, width // 4 : width - width // 4] = 1
    return box


def _facts(plan: _Plan, context: Context, seen: _Seen) -> Facts:
    names = plan.dataset.classes.names
    found, tags = torch.stack(seen.found).float(), torch.stack(seen.tags).float()
    share, known = torch.tensor(seen.share), torch.tensor(seen.tagged)
    every = known.all() and bool(tags.any())
    never = tuple(n for k, n in enumerate(names) if int(tags[:, k].sum()) >= 3 and not found[:, k].any())
    return Facts(
        images=len(found),
        empty=float((found.sum(1) == 0).float().mean()),
        full=float((share > _FULL).float().mean()) if plan.background else None,
        untagged=float((tags.sum(1) == 0)[known].float().mean()) if known.any() else 0.0,
        never=never,
        agreement=agreement(tags, found) if every else None,
        tag_auc=_ranked(plan.dataset, context, tags) if every else None,
        edges={what: sum(v) / len(v) for what, v in seen.edges.items()},
        confused=_untold(tags, names),
        checked=_checked(context),
    )


def agreement(tags: Tensor, found: Tensor) -> float | None:
    """How far tags and the classes of masks agree beyond chance.

    Args:
        tags: 0 or 1, (B, K).
        found: 0 or 1, (B, K).

    Returns:
        Mean F1 of both sets, shifted and scaled: 0 as with the tags of other images, 1 always the same. None
        where all images have the same tags, or there are fewer than 4.
    """

    def mean(truth: Tensor) -> float:
        same = (truth.sum(1) + found.sum(1)) == 0
        return float(
            torch.where(same, torch.ones(len(same), dtype=torch.float64), multilabel_f1(truth, found)).mean()
        )

    if len(tags) < 4 or bool((tags == tags[0]).all()):
        return None
    rolls = range(1, len(tags), max(1, len(tags) // 10))
    chance = sum(mean(tags.roll(shift, 0)) for shift in rolls) / len(rolls)
    return None if chance > 0.98 else (mean(tags) - chance) / (1 - chance)


def _ranked(dataset: TagDataset, context: Context, tags: Tensor) -> float | None:
    """Area under the ROC curve of the classifier, mean over classes that some images have and others lack."""
    try:
        trained = context.models.get()
    except UserError:
        return None
    if not trained.method.map_kinds:
        return None
    runtime = context.runtime
    method = trained.method.to(runtime.device).eval()
    images = (batch.to(runtime.device).images for _, batch in eval_images(dataset))
    chances = torch.cat([tag_chances(method, image, runtime) for image in images])
    areas = []
    for k in range(tags.shape[1]):
        positive, negative = chances[tags[:, k] > 0, k], chances[tags[:, k] == 0, k]
        if len(positive) >= 3 and len(negative) >= 3:
            wins = positive[:, None] - negative[None]
            areas.append(float(((wins > 0).float() + 0.5 * (wins == 0).float()).mean()))
    return sum(areas) / len(areas) if areas else None


def _untold(tags: Tensor, names: tuple[str, ...]) -> tuple[str, ...]:
    """What tags cannot tell: classes that every image has, pairs that always come together."""
    always = [n for k, n in enumerate(names) if bool(tags[:, k].all())]
    told = [f"every image is tagged {n}: its outline rests on contrast alone" for n in always]
    for a in range(len(names)):
        for b in range(a + 1, len(names)):
            same = bool((tags[:, a] == tags[:, b]).all()) and int(tags[:, a].sum()) >= 5
            if same and not bool(tags[:, a].all()):
                told.append(f"{names[a]} and {names[b]} always come together: tags cannot tell them apart")
    return tuple(told)


VERDICT = Step(
    "verdict",
    writes=("verdict.json",),
    reads=_reads,
    prepare=_prepare,
    work=verdict,
    needless=_needless,
    made=("masks", "labels"),
)
"""What can be said of the masks without true ones."""

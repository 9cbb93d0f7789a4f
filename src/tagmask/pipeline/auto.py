"""Recipe "auto": what it decides from the images, their tags and the machine before the first update.

What needs maps (which kind, cut where, whether there is a background) is decided later, by the step refine.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagmask.data import TagDataset
from tagmask.data.parts import Parts
from tagmask.engine.compute import native_bf16
from tagmask.errors import ConfigError
from tagmask.models.trained import build_method
from tagmask.pipeline.config import RunConfig, read_config, with_absolute_paths
from tagmask.pipeline.flags import AUTO
from tagmask.pipeline.speed import Speed, measure

__all__ = ["Decision", "Settled", "parse_time", "run_settings", "settle"]

_LOOKED_AT = 64
_SIDES = (224, 320)
_SHRINK, _REFINED = 2, 320
"""Pixel-adaptive refinement reaches some pixels: it runs at half the size, on large images at this side."""
_UPDATES = (200, 400)
_VIEWS = (100, 240)
_FEWEST = 40
_CROWDED = 0.4
_DEPTH = 12
"""Blocks of the backbone that the recipe's own numbers are for."""


@dataclass(frozen=True)
class Decision:
    """One setting that was found.

    Attributes:
        key: Dotted name.
        value: What it becomes.
        reason: Why, in words.
    """

    key: str
    value: Any
    reason: str

    def line(self) -> str:
        """For the terminal."""
        return f"auto: {self.key} = {self.value}: {self.reason}"


def decide(config: RunConfig, given: Collection[str], budget: float | None = None) -> list[Decision]:
    """Settings that fit the data and the machine.

    Args:
        config: Recipe "auto" with what the user gave.
        given: Dotted names of what the user gave; these are left alone.
        budget: Seconds that the run may take, if it is limited.

    Raises:
        UserError: The data cannot be opened, or the time is too short for its images.
    """
    data = Parts(config.data)
    train = data.open("train")
    found = [*_blocks(config), *_sizes(train), *_updates(train), *_background(train), *_one_class(train)]
    if native_bf16(config.runtime.device):
        found.append(
            Decision("runtime.precision", "bf16", "this machine computes it natively, about twice as fast")
        )
    found = [decision for decision in found if decision.key not in given]
    if budget is None:
        return found
    settled = read_config(config, {decision.key: decision.value for decision in found})
    counts = _Counts(len(train), len(data.open("both")), len(data.open(settled.segment.split)))
    return [*found, *_within(budget, counts, measure(settled, train), given)]


@dataclass(frozen=True)
class Settled:
    """Recipe "auto" with everything decided.

    Attributes:
        config: The settings.
        lines: What was decided and why; empty where a run continues.
    """

    config: RunConfig
    lines: tuple[str, ...]


def settle(
    given: Mapping[str, Any],
    overrides: Iterable[str] = (),
    budget: float | None = None,
    out: Path | None = None,
) -> Settled:
    """Settings of recipe "auto" for somebody's data.

    Args:
        given: What the user gave, dotted name to value; it is never decided about.
        overrides: As given to ``--set``.
        budget: Seconds that the run may take, if it is limited.
        out: Run folder; where it holds a run of "auto" on the same data with the same time, its decisions
            count again, so that the same command continues.

    Raises:
        UserError: The data cannot be opened, or a setting or the time cannot be used.
    """
    overrides, given = list(overrides), dict(given)
    if (count := given.get("train.iterations")) is not None:
        given.setdefault("student.train.iterations", count)
    config = read_config(AUTO, given, overrides)
    taken = {*given, *(text.split("=", 1)[0] for text in overrides)}
    before = None if out is None else _earlier(out, config, budget)
    if before is not None:
        values, decided = before
        values = {key: value for key, value in values.items() if key not in taken}
        again = read_config(AUTO, {**values, **given}, overrides)
        return Settled(again.model_copy(update={"decided": decided}), ())
    found = decide(config, taken, budget)
    values = {decision.key: decision.value for decision in found}
    decided = {decision.key: decision.reason for decision in found} | {"time": _told(budget)}
    settled = read_config(AUTO, {**values, **given}, overrides).model_copy(update={"decided": decided})
    kept = {decision.key: decision for decision in found}  # a later decision replaces an earlier one
    return Settled(settled, tuple(decision.line() for decision in kept.values()))


def run_settings(
    recipe: str | Path | RunConfig | None,
    given: Mapping[str, Any],
    overrides: Iterable[str] = (),
    time: str | None = None,
    out: str | Path | None = None,
) -> Settled:
    """Settings of a run by any recipe; "auto" decides what was not given.

    Args:
        recipe: What the run starts from.
        given: Dotted name to value.
        overrides: As given to ``--set``.
        time: How long recipe "auto" may take, see `parse_time`.
        out: Run folder, if it was named.

    Raises:
        UserError: See `settle`; or a time was given for another recipe.
    """
    if recipe != AUTO:
        if time is not None:
            raise ConfigError(
                "a time is for recipe auto, which chooses its updates; here give the iterations"
            )
        return Settled(read_config(recipe, given, overrides), ())
    folder = Path(out or Path("runs") / AUTO).expanduser()
    return settle(given, overrides, None if time is None else parse_time(time), folder)


def _earlier(
    folder: Path, config: RunConfig, budget: float | None
) -> tuple[dict[str, Any], dict[str, str]] | None:
    """What "auto" decided when the run in a folder began, if that is about the same data and time."""
    if not (folder / "settings.yaml").is_file():
        return None
    before = read_config(folder)
    if before.decided.get("time") != _told(budget) or before.data != with_absolute_paths(config).data:
        return None
    values = before.model_dump(mode="json")
    found = {key: _value(values, key) for key in before.decided if key != "time"}
    return found, dict(before.decided)


def parse_time(text: str) -> float:
    """Seconds in "90s", "10m", "1.5h" or plain minutes, "10".

    Raises:
        ConfigError: It is none of these.
    """
    matched = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|sec|m|min|h)?", text.strip().lower())
    seconds = 0.0
    if matched:
        unit = {"s": 1, "sec": 1, "h": 3600}.get(matched[2] or "m", 60)
        seconds = float(matched[1]) * unit
    if not seconds:
        raise ConfigError(f"--time {text}: give it as 90s, 10m or 1.5h")
    return seconds


def _told(budget: float | None) -> str:
    return "any" if budget is None else f"{budget:.0f} s"


def _value(values: Any, key: str) -> Any:
    for name in key.split("."):
        values = values[name]
    return values


def _blocks(config: RunConfig) -> list[Decision]:
    """For a backbone of another depth: classifiers read the same share of it, and the same share learns."""
    values = {**config.model, "weights": "none", "aux_block": -1, "train_blocks": 0}
    depth = len(build_method(config.method, values, 1).get_submodule("encoder.blocks"))  # type: ignore[arg-type]
    if depth == _DEPTH:
        return []
    reason = f"{config.model['backbone']} has {depth} blocks"
    return [
        Decision("model.aux_block", max(0, 3 * depth // 4 - 1), f"{reason}; three quarters of the way up"),
        Decision("student.model.train_blocks", max(1, depth // 3), f"{reason}; the upper third learns"),
    ]


def _sizes(train: TagDataset) -> list[Decision]:
    step = max(1, len(train) // _LOOKED_AT)
    long = statistics.median(max(train.size(i)) for i in range(0, len(train), step))
    side = max(_SIDES[0], min(_SIDES[1], 32 * round(2 * long / 32)))
    reason = f"twice the images' longer side of {long:.0f} pixels (median), {_SIDES[0]} to {_SIDES[1]}"
    found = [Decision("localize.size", side, reason), Decision("segment.size", side, reason)]
    shrink = round(long / _REFINED)
    if shrink > _SHRINK:
        reason = f"labels of large images are refined at {long / shrink:.0f} pixels"
        found.append(Decision("refine.shrink", shrink, reason))
    return found


def _updates(train: TagDataset) -> list[Decision]:
    wanted = 10 * round(3 * len(train) / 160)
    found = []
    for key, (fewest, most) in (("train.iterations", _VIEWS), ("student.train.iterations", _UPDATES)):
        reason = f"{len(train)} images, about three looks at each, {fewest} to {most} batches"
        found.append(Decision(key, max(fewest, min(most, wanted)), reason))
    return found


def _background(train: TagDataset) -> list[Decision]:
    """No background where every image carries many of the classes, as with land cover."""
    tagged = [train.tags(i) for i in range(len(train)) if train.has_tags(i)]
    if len(tagged) < len(train) or not tagged:
        return []
    counts = [int(tags.sum()) for tags in tagged]
    mean, classes = sum(counts) / len(counts), train.num_classes
    if min(counts) == 0 or mean < 2 or mean < _CROWDED * classes:
        return []
    reason = f"every image is tagged, with {mean:.1f} of {classes} classes on average (or give --background)"
    values = {
        "refine.fit": False,
        "refine.background": 0.0,
        "refine.method": "none",
        "train.heads.whiten": 0.0,
    }
    return [Decision(key, value, reason) for key, value in values.items()]


def _one_class(train: TagDataset) -> list[Decision]:
    """Masks of one class where no image carries two tags."""
    counts = [int(train.tags(i).sum()) for i in range(len(train)) if train.has_tags(i)]
    if train.num_classes < 2 or max(counts, default=0) != 1:
        return []
    key, none = "student.model.classes_per_image", counts.count(0)
    if none:
        reason = f"of {len(counts)} tagged images {none} have no tag and the others one; so have masks"
        return [Decision(key, "at_most_one", reason)]
    return [Decision(key, "one", f"each of the {len(counts)} tagged images has one tag; so have masks")]


@dataclass(frozen=True)
class _Counts:
    """Images: to learn from, of all parts, to make masks of."""

    train: int
    every: int
    masks: int


def _within(budget: float, counts: _Counts, speed: Speed, given: Collection[str]) -> list[Decision]:
    """Fewer or more updates, and maps of fewer images if need be."""
    train, maps, found = counts.train, counts.every, []
    masks = counts.masks * speed.mask
    fixed = speed.start + maps * speed.maps + masks
    if fixed > 0.6 * budget and train < maps:
        reason = f"maps of all {maps} images would take {maps * speed.maps / 60:.1f} minutes"
        found = [Decision("localize.split", "train", reason), Decision("refine.split", "train", reason)]
        fixed = speed.start + train * speed.maps + masks
    count = int((0.95 * budget - fixed) / (2 * speed.update))
    if count < _FEWEST:
        least = (fixed + 2 * _FEWEST * speed.update) / 0.95
        raise ConfigError(
            f"--time {budget / 60:.1f}m is too short for {train} images on this machine; give at least "
            f"{least / 60:.1f}m, or fewer images"
        )
    count = min(count, 3 * _UPDATES[1])
    expected = fixed + 2 * count * speed.update
    reason = f"fits the time: about {expected / 60:.1f} of {budget / 60:.1f} minutes"
    found += [
        Decision("train.iterations", count, reason),
        Decision("student.train.iterations", count, reason),
    ]
    return [decision for decision in found if decision.key not in given]

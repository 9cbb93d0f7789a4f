"""Everything a run is made of, and where it comes from: recipe, flags, ``--set``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from tagmask import methods
from tagmask.config import Config, apply_overrides, read_yaml, validate
from tagmask.data.parts import DataConfig
from tagmask.engine.config import RuntimeConfig
from tagmask.errors import ConfigError
from tagmask.models.checkpoint import read_header, weight_file
from tagmask.recipes import find_recipe, names
from tagmask.steps.entropy import EntropyConfig
from tagmask.steps.evaluate import EvaluateConfig
from tagmask.steps.localize import LocalizeConfig
from tagmask.steps.refine import RefineConfig
from tagmask.steps.report import ReportConfig
from tagmask.steps.review import ReviewConfig
from tagmask.steps.segment import SegmentConfig
from tagmask.steps.train import TrainConfig
from tagmask.steps.walk import WalkConfig

__all__ = ["Learner", "RunConfig", "read_config"]


class Learner(Config):
    """A second network of a multi-stage method, trained on labels that earlier steps wrote."""

    method: str
    """Key of the method."""
    model: dict[str, Any] = Field(default_factory=dict)
    """Settings of the method, see `tagmask show METHOD`."""
    checkpoint: Path | None = None
    """Use this model folder, or this published checkpoint of the method, instead of training."""
    labels: Literal["label", "walk"] = "label"
    """What to learn from: the labels of refine, or of the random walk."""
    train: TrainConfig = TrainConfig()
    """How it is trained."""


class RunConfig(Config):
    """Everything a run is made of."""

    data: DataConfig = DataConfig()
    """Images, tags, masks for scoring."""
    method: str = "more"
    """Key of the method, see `tagmask list`."""
    model: dict[str, Any] = Field(default_factory=dict)
    """Settings of the method, see `tagmask show METHOD`."""
    checkpoint: Path | None = None
    """Use this model folder, or this published checkpoint of the method, instead of training."""
    runtime: RuntimeConfig = RuntimeConfig()
    """Device, precision, seed."""
    train: TrainConfig = TrainConfig()
    """Step train."""
    localize: LocalizeConfig = LocalizeConfig()
    """Step localize: maps to disk."""
    refine: RefineConfig = RefineConfig()
    """Step refine: maps to pseudo labels."""
    entropy: EntropyConfig = EntropyConfig()
    """Command entropy: how far every block's attention spreads the maps."""
    review: ReviewConfig = ReviewConfig()
    """Command review: which masks and tags to look at first."""
    affinity: Learner | None = None
    """Step affinity: learns from the labels of refine which neighbouring pixels belong together."""
    walk: WalkConfig = WalkConfig()
    """Step walk: maps spread along the learned affinities, to labels."""
    student: Learner | None = None
    """Step student: the segmentation network at the end of a multi-stage method; it then does segment."""
    segment: SegmentConfig = SegmentConfig()
    """Step segment: images to masks."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Step evaluate: scores."""
    report: ReportConfig = ReportConfig()
    """Step report: the page."""


def read_config(
    recipe: str | Path | None = None, flags: Mapping[str, Any] | None = None, overrides: Iterable[str] = ()
) -> RunConfig:
    """Settings from a recipe, then single values, then ``a.b=c`` texts; later ones win.

    Args:
        recipe: Name of a shipped recipe, a YAML file, a run folder (its settings) or a model folder.
        flags: Dotted key to value, for example ``{"train.iterations": 1000}``; None values are left out.
        overrides: As given to ``--set``.

    Raises:
        ConfigError: A name, key or value is unknown or does not fit; the message names the nearest.
    """
    values, where = _base(recipe)
    for key, value in (flags or {}).items():
        if value is not None:
            _put(values, key, value)
    config = validate(RunConfig, apply_overrides(values, overrides), where)
    for place, part in (("", config), ("affinity.", config.affinity), ("student.", config.student)):
        if part is not None:
            kind = methods.get(part.method)
            validate(kind.config_class, part.model, f"{where}: {place}model ({part.method})")
    return config


def _base(recipe: str | Path | None) -> tuple[dict[str, Any], str]:
    """Values to start from, and what the user knows them as."""
    if recipe is None:
        return {}, "settings"
    folder = Path(recipe)
    if (folder / "settings.yaml").is_file():
        return read_yaml(folder / "settings.yaml"), str(folder / "settings.yaml")
    if not folder.is_dir() or not weight_file(folder).is_file():
        if folder.is_dir() and str(recipe) not in names():  # a folder may bear a recipe's name by chance
            raise ConfigError(f"{folder} is neither a run folder (settings.yaml) nor a model folder")
        path = find_recipe(str(recipe))
        return read_yaml(path), str(path)
    header = read_header(folder)
    use = header.get("extra", {}).get("use", {})
    values = {"method": header["method"], "model": header["settings"], "checkpoint": str(folder)}
    values |= {stage: dict(use[stage]) for stage in ("localize", "segment") if stage in use}
    return values, str(folder)


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, leaf = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
    values[leaf] = value

"""Everything a run is made of, and where it comes from: recipe, flags, ``--set``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
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
from tagmask.steps.learners import Learner
from tagmask.steps.localize import LocalizeConfig
from tagmask.steps.refine import RefineConfig
from tagmask.steps.report import ReportConfig
from tagmask.steps.review import ReviewConfig
from tagmask.steps.segment import SegmentConfig
from tagmask.steps.walk import WalkConfig
from tagmask.store.files import atomic_write
from tagmask.training.config import TrainConfig

__all__ = ["Learner", "RunConfig", "read_config", "with_absolute_paths", "write_settings"]


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


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """The same settings, with paths that mean the same wherever the next command is given."""
    data, train = config.data, config.train
    values: dict[str, Any] = {
        key: _absolute(getattr(data, key))
        for key in ("root", "val_root", "masks", "classes", "tags", "val_tags", "mask_values")
    }
    changed: dict[str, Any] = {"data": data.model_copy(update=values)}
    given = {key: _absolute(getattr(train, key)) for key in ("labels", "corrections", "start")}
    changed["train"] = train.model_copy(update=given)
    changed["checkpoint"] = _absolute(config.checkpoint)
    for name in ("affinity", "student"):
        learner: Learner | None = getattr(config, name)
        if learner is not None:
            changed[name] = learner.model_copy(update={"checkpoint": _absolute(learner.checkpoint)})
    return config.model_copy(update=changed)


def _absolute(value: Any) -> Any:
    """A path as an absolute one; words, mappings and lists of names as they are."""
    if isinstance(value, Path):
        return value.absolute()
    # Tags and mask values may be words of a kind of data; what is a path is there, or has a placeholder.
    if isinstance(value, str) and (Path(value).exists() or ("{split}" in value and "/" in value)):
        return str(Path(value).absolute())
    return value


def write_settings(config: RunConfig, folder: Path) -> None:
    """Write ``settings.yaml``, atomically.

    Raises:
        DataError: It cannot be written.
    """
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    path = folder / "settings.yaml"
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    with atomic_write(path) as target:
        target.write_text(text, encoding="utf-8")

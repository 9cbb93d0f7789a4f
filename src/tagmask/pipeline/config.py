"""Everything a run is made of, and where it comes from: recipe, flags, ``--set``."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field

from tagmask import methods
from tagmask.config import Config, apply_overrides, read_yaml, validate
from tagmask.data.parts import DataConfig
from tagmask.engine.config import RuntimeConfig
from tagmask.errors import ConfigError
from tagmask.models.checkpoint import read_header, weight_file
from tagmask.names import deprecated
from tagmask.pipeline.method_settings import scaled, shortened, with_own_views
from tagmask.recipes import find_recipe, names
from tagmask.steps.entropy import ENTROPY, EntropyConfig
from tagmask.steps.evaluate import EVALUATE, EvaluateConfig
from tagmask.steps.learners import AFFINITY, STUDENT, Learner
from tagmask.steps.localize import LOCALIZE, LocalizeConfig
from tagmask.steps.refine import REFINE, RefineConfig
from tagmask.steps.report import REPORT, ReportConfig
from tagmask.steps.review import REVIEW, ReviewConfig
from tagmask.steps.segment import SEGMENT, SegmentConfig
from tagmask.steps.train import TRAIN
from tagmask.steps.verdict import VERDICT, VerdictConfig
from tagmask.steps.walk import WALK, WalkConfig
from tagmask.store.files import atomic_write
from tagmask.training.config import TrainConfig

__all__ = [
    "Learner",
    "RunConfig",
    "check_exists",
    "default_folder",
    "read_config",
    "training_base",
    "with_absolute_paths",
    "write_settings",
]


class RunConfig(Config):
    """Everything a run is made of; sections that name a step stand in the order of the steps."""

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
    train: Annotated[TrainConfig, TRAIN] = TrainConfig()
    """Step train."""
    localize: Annotated[LocalizeConfig, LOCALIZE] = LocalizeConfig()
    """Step localize: maps to disk."""
    refine: Annotated[RefineConfig, REFINE] = RefineConfig()
    """Step refine: maps to pseudo labels."""
    entropy: Annotated[EntropyConfig, ENTROPY] = EntropyConfig()
    """Command entropy: how far every block's attention spreads the maps."""
    review: Annotated[ReviewConfig, REVIEW] = ReviewConfig()
    """Command review: which masks and tags to look at first."""
    affinity: Annotated[Learner | None, AFFINITY] = None
    """Step affinity: learns from the labels of refine which neighbouring pixels belong together."""
    walk: Annotated[WalkConfig, WALK] = WalkConfig()
    """Step walk: maps spread along the learned affinities, to labels."""
    student: Annotated[Learner | None, STUDENT] = None
    """Step student: the segmentation network at the end of a multi-stage method; it then does segment."""
    segment: Annotated[SegmentConfig, SEGMENT] = SegmentConfig()
    """Step segment: images to masks."""
    evaluate: Annotated[EvaluateConfig, EVALUATE] = EvaluateConfig()
    """Step evaluate: scores."""
    verdict: Annotated[VerdictConfig, VERDICT] = VerdictConfig()
    """Step verdict: what can be said of the masks without true ones."""
    report: Annotated[ReportConfig, REPORT] = ReportConfig()
    """Step report: the page."""
    decided: dict[str, str] = Field(default_factory=dict)
    """Which settings recipe "auto" found, and why; the values are in their own places."""


@deprecated("0.2", arguments={"flags": "settings"})
def read_config(
    recipe: str | Path | RunConfig | None = None,
    settings: Mapping[str, Any] | None = None,
    overrides: Iterable[str] = (),
) -> RunConfig:
    """Settings from a recipe, then single values, then ``a.b=c`` texts; later ones win.

    Args:
        recipe: Name of a shipped recipe, a YAML file, a run folder (its settings), a model folder, or
            settings that were read before.
        settings: Dotted key to value, for example ``{"train.iterations": 1000}``, or nested as in a recipe; a
            mapping changes what it names and leaves the rest. None is YAML's null.
        overrides: As given to ``--set``.

    Raises:
        ConfigError: A name, key or value is unknown or does not fit; the message names the nearest.
    """
    values, where = _base(recipe)
    base = copy.deepcopy(values)
    for key, value in (settings or {}).items():
        _put(values, key, value)
    config = validate(RunConfig, apply_overrides(values, overrides), where)
    config = scaled(base, shortened(base, config, where), where)
    config = with_own_views(config, where)
    for place, part in (("", config), ("affinity.", config.affinity), ("student.", config.student)):
        if part is not None:
            kind = methods.get(part.method)
            validate(kind.config_class, part.model, f"{where}: {place}model ({part.method})")
    return config


def training_base(
    recipe: str | Path | RunConfig | None, method: str | None, resume: bool, out: str | Path | None
) -> str | Path | RunConfig | None:
    """What a training starts from: what was named, the run that continues, else the recipe "small".

    Who names a method gets its paper's settings; who names nothing gets what suits a few thousand images.

    Args:
        recipe: What was named.
        method: Name of the method, if one was given.
        resume: Whether an unfinished training in `out` continues.
        out: Run folder.
    """
    if recipe is not None:
        return recipe
    # A job that is queued again and again says "resume" from the first time on.
    if resume and out is not None and (Path(out).expanduser() / "settings.yaml").is_file():
        return Path(out).expanduser()
    return "small" if method is None else None


def check_exists(run: str | Path | RunConfig) -> None:
    """Say so if the run that a step or a page shall look at is nowhere.

    Raises:
        ConfigError: There is no such folder or file, and no recipe of that name.
    """
    if isinstance(run, RunConfig) or str(run) in names() or Path(run).expanduser().exists():
        return
    raise ConfigError(f"{run} does not exist; give the folder of a run ('tagmask run' makes one) or a model")


def default_folder(base: str | Path | RunConfig | None, config: RunConfig, overwrite: bool = False) -> Path:
    """Where results go if nobody says: the run that was given, or a folder below ``runs``.

    That is the first of runs/NAME, runs/NAME-2, ... that is free or holds a run with the same data, method
    and training.

    Args:
        base: What the settings came from.
        config: The settings.
        overwrite: A training with other settings may be replaced, so the first one will do.

    Raises:
        ConfigError: A model folder was given; nothing is written into that.
    """
    known = None if base is None or isinstance(base, RunConfig) else Path(base)
    if known is not None and (known / "settings.yaml").is_file():
        return known
    if known is not None and known.is_dir() and str(base) not in names():
        raise ConfigError(f"{known} is a model folder; say where the results go: --out DIR")
    name = config.method if known is None else known.with_suffix("").as_posix().strip("./").replace("/", "-")
    folder = Path("runs") / name
    number = 1
    while not overwrite and _taken(folder, config):
        number += 1
        folder = folder.with_name(f"{name}-{number}")
    return folder


def _taken(folder: Path, config: RunConfig) -> bool:
    """Whether a folder holds a run of something else."""
    file = folder / "settings.yaml"
    if not file.is_file():
        return folder.is_dir() and any(folder.iterdir())
    try:
        other = read_config(folder)
    except ConfigError:
        return True
    mine, theirs = (_core(with_absolute_paths(c)) for c in (config, other))
    return mine != theirs


def _core(config: RunConfig) -> dict[str, Any]:
    """What decides about a training."""
    data = config.data.model_dump(
        mode="json", include={"root", "kind", "split", "tags", "classes", "holdout"}
    )
    return {
        **config.model_dump(mode="json", include={"method", "model", "train", "checkpoint"}),
        "data": data,
    }


def _base(recipe: str | Path | RunConfig | None) -> tuple[dict[str, Any], str]:
    """Values to start from, and what the user knows them as."""
    if recipe is None:
        return {}, "settings"
    if isinstance(recipe, RunConfig):
        return recipe.model_dump(mode="json"), "settings"
    folder = Path(recipe)
    if (folder / "settings.yaml").is_file():
        return _as_begun(read_yaml(folder / "settings.yaml")), str(folder / "settings.yaml")
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


def _as_begun(values: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run; one that began before images were held out for scoring tags continues without."""
    data = values.get("data")
    if isinstance(data, dict):
        data.setdefault("holdout", 0.0)
    return values


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set what a dotted key names; a mapping joins the mapping that is there."""
    *parents, leaf = key.split(".")
    for parent in parents:
        inner = values.get(parent)
        if inner is None:
            inner = values[parent] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"setting '{key}': '{parent}' is a value, not a group of settings")
        values = inner
    # What the numbers of masks mean is one value, although it is a mapping.
    if isinstance(value, Mapping) and leaf != "mask_values":
        if not isinstance(values.get(leaf), dict):
            values[leaf] = {}
        for inner_key, inner_value in value.items():
            _put(values[leaf], str(inner_key), inner_value)
    else:
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

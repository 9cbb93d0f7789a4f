"""What has a flag: the words of the command line and of Python, and the settings behind them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tagmask import methods
from tagmask.data.datasets.given import Tags, write_tags
from tagmask.data.datasets.hub import PREFIX
from tagmask.data.holdout import SHARE
from tagmask.errors import ConfigError
from tagmask.models.checkpoint import weight_file
from tagmask.recipes import names

__all__ = [
    "AUTO",
    "Classes",
    "Words",
    "background_settings",
    "data_first",
    "flag_settings",
    "split_settings",
    "tags_as_file",
]

Words = str | Sequence[str]
"""Several names: a list, or one text with commas."""
Classes = str | Path | Sequence[str]
"""Class names, or a file of them."""

AUTO = "auto"
"""Name of the recipe that fits itself to the data."""

_COMMON = {
    "data": "data.root",
    "tags": "data.tags",
    "classes": "data.classes",
    "masks": "data.masks",
    "kind": "data.kind",
    "holdout": "data.holdout",
    "device": "runtime.device",
    "precision": "runtime.precision",
    "seed": "runtime.seed",
    "method": "method",
    "backbone": "model.backbone",
    "weights": "model.weights",
    "checkpoint": "checkpoint",
    "size": "train.size",
    "iterations": "train.iterations",
    "batch_size": "train.batch_size",
    "labels": "train.labels",
    "corrections": "train.corrections",
    "start": "train.start",
}
"""Words that mean the same in every command that has them."""
_OF_STEP = {
    "train": {"split": "data.split"},
    "localize": {"maps": "localize.kinds", "resize": "localize.size"},
    "refine": {
        "refinement": "refine.method",
        "map_kind": "refine.maps",
        "background": "refine.background",
        "crf": "refine.crf",
    },
    "walk": {"map_kind": "walk.maps", "background": "walk.background", "crf": "walk.crf"},
    "segment": {
        "resize": "segment.size",
        "scales": "segment.scales",
        "flip": "segment.flip",
        "crf": "segment.crf",
    },
    "evaluate": {"what": "evaluate.what", "background": "evaluate.background"},
}
_LISTS = ("maps", "scales", "what")


def flag_settings(step: str, words: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted settings behind the words of a command; words that were not given (None) are left out.

    Args:
        step: The command.
        words: Word to value, as a program or the command line gives it.

    Raises:
        ConfigError: A value cannot be a setting.
    """
    places = {**_COMMON, **_OF_STEP.get(step, {})}
    found: dict[str, Any] = {}
    for word, value in words.items():
        if value is None:
            continue
        if word == "split" and step != "train":
            found |= split_settings(str(value), step)
        else:
            found[places[word]] = _plain(word, value)
    return found


def split_settings(split: str, step: str) -> dict[str, Any]:
    """Train and val mean the run's own parts; any other name is a split of the data set."""
    if split in ("auto", "train", "val", "both"):
        return {f"{step}.split": split}
    return {f"{step}.split": "val", "data.val_split": split}


def background_settings(has_background: bool | None) -> dict[str, Any]:
    """What --background and --no-background mean: cut maps off, or give every pixel its strongest class."""
    if has_background is None:
        return {}
    if has_background:
        return {"refine.fit": True, "refine.method": "par"}
    return {"refine.fit": False, "refine.background": 0.0, "refine.method": "none"}


def data_first(recipe: Any, data: Any) -> tuple[Any, Any]:
    """Recipe and data of a run; a folder of images or hf:NAME in the recipe's place is data, for "auto".

    Raises:
        ConfigError: There are two data sets then.
    """
    if recipe is None:
        return AUTO, data
    if isinstance(recipe, str) and recipe.startswith(PREFIX):
        if data is not None:
            raise ConfigError(f"'{recipe}' and --data {data} are two data sets; name one, and a recipe")
        return AUTO, recipe
    if data is None and isinstance(recipe, str | Path) and _names_data(str(recipe)):
        return AUTO, recipe
    return recipe, data


def _names_data(text: str) -> bool:
    path = Path(text).expanduser()
    if text in names() or not path.is_dir():
        return False
    return not (path / "settings.yaml").is_file() and not weight_file(path).is_file()


def tags_as_file(tags: Tags | None, out: str | Path | None) -> str | None:
    """Tags as a run can note them: a file or a word as they are, others written beside the run's results.

    The name follows from the content, so that the same call finds its own work again.

    Raises:
        DataError: These are no tags.
    """
    if tags is None or isinstance(tags, (str, Path)):
        return None if tags is None else str(Path(tags).expanduser() if isinstance(tags, Path) else tags)
    folder = Path("runs" if out is None else out)
    path = write_tags(tags, folder / "tags.jsonl.new")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return str(path.replace(folder / f"tags-{digest}.jsonl"))


def _plain(word: str, value: Any) -> Any:
    if word == "method":
        return methods.name_of(value)
    if word == "device":
        return _device(value)
    if word == "flip" and isinstance(value, bool):
        return "sum" if value else "none"
    if word == "holdout":
        return SHARE if value else 0.0
    if word in _LISTS:
        return value.split(",") if isinstance(value, str) else list(value)
    return str(value.expanduser()) if isinstance(value, Path) else value


def _device(value: Any) -> str:
    """A device by name, by number or as PyTorch has it."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        if type(value).__module__ != "torch":
            raise ConfigError(f"a device is a name or a number, got {value!r}; use --device auto")
        return str(value)
    return f"cuda:{value}" if isinstance(value, int) else value

"""Settings of a run changed for good: nothing is written before all of them fit together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tagmask.data.parts import Parts
from tagmask.engine.log import Display
from tagmask.errors import ConfigError
from tagmask.pipeline.config import read_config, with_absolute_paths, write_settings
from tagmask.pipeline.order import ALL_STEPS, STEPS
from tagmask.steps.base import Context
from tagmask.steps.models import Models
from tagmask.store.files import exclusive

__all__ = ["change_settings"]


def change_settings(folder: Path, values: Sequence[str]) -> list[str]:
    """Change settings of a run for good.

    Args:
        folder: The run folder.
        values: ``a.b=c`` texts.

    Returns:
        One line for each changed setting.

    Raises:
        ConfigError: There is no run, or a key, value, choice or path does not fit; nothing was changed.
    """
    if not (folder / "settings.yaml").is_file():
        raise ConfigError(f"{folder} is no run folder: it has no settings.yaml")
    before = read_config(folder)
    config = with_absolute_paths(read_config(folder, overrides=values))
    data = Parts(config.data)
    runtime = config.runtime.create()
    context = Context(
        folder, runtime, Display(quiet=True), data, config, Models(config, folder, data), out=folder
    )
    for name in STEPS:
        step = ALL_STEPS[name]
        if step.needless(context) is None:
            step.check(getattr(config, name), context)
    with exclusive(folder):
        write_settings(config, folder)
    old, new = (_flat(c.model_dump(mode="json")) for c in (before, config))
    return [f"{key}: {old.get(key)!r} -> {new[key]!r}" for key in new if old.get(key) != new[key]]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found

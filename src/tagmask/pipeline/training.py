"""Keeping trainings in a run folder: where a new one goes, and when it is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tagmask.errors import ConfigError
from tagmask.steps.base import Context, Step
from tagmask.store.manifest import filled

__all__ = ["choose_place", "guard_settings", "guard_training"]


def has_states(step: Step, folder: Path) -> bool:
    """Whether saved states of a training are in the run folder."""
    return any((folder / step.private[0]).glob("checkpoints/step-*"))


def guard_settings(
    step: Step,
    settings: Mapping[str, Any],
    defaults: Mapping[str, Any],
    context: Context,
    overwrite: bool,
) -> None:
    """Refuse other settings of a training before the first step of the run begins.

    Raises:
        ConfigError: A training with other settings is in the folder.
    """
    known = context.manifest.steps.get(step.name, {})
    if overwrite or "settings" not in known or not has_states(step, context.folder):
        return
    if changed := _changes(step, filled(known["settings"], defaults), settings):
        _refuse(context.folder, changed)


def guard_training(
    step: Step,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Any],
    defaults: Mapping[str, Any],
    context: Context,
    same: bool,
    resume: bool,
) -> None:
    """A long training is not lost because one of its settings, or the data, changed.

    One that learned from what an earlier step of this run made is of no use once that was made anew.

    Raises:
        ConfigError: A training is in the folder that the user did not ask to continue with, or to replace.
    """
    folder = context.folder
    if not has_states(step, folder):
        return
    known = context.manifest.steps.get(step.name)
    if known is None:
        raise ConfigError(
            f"{folder} holds a training of which run.json says nothing; replace it with --overwrite, or "
            "choose another --out"
        )
    if not same:
        changed = _changes(step, filled(known.get("settings", {}), defaults), settings)
        before = known.get("inputs", {})
        others = {name for name, value in inputs.items() if before.get(name) != value}
        if not changed and others and others <= set(step.made):
            return
        _refuse(folder, changed[:4] or [f"the {' and '.join(sorted(others))}" if others else "the data"])
    if not resume:
        raise ConfigError(
            f"{folder} holds an unfinished training; continue with --resume, or replace it with --overwrite"
        )


def _changes(step: Step, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of settings that differ, with the value that was there; what may change does not count."""
    names = [name for name in {**before, **now} if name not in step.free]
    return [f"{name} (was {before.get(name)!r})" for name in names if before.get(name) != now.get(name)]


def _refuse(folder: Path, changed: list[str]) -> None:
    raise ConfigError(
        f"{folder} holds a training that differs in {', '.join(changed[:4])}; choose another --out, or "
        "replace it with --overwrite"
    )


def choose_place(step: Step, folder: Path, staged: Path, goes_on: bool, same: bool) -> tuple[Path, bool]:
    """Where a training writes, and whether it continues from what is there.

    The first training of a folder, and one that continues, write in its place, where people watch the curves;
    one that replaces another is kept apart until it is complete.
    """
    if goes_on:
        return staged, True
    if same:
        return folder, True
    if has_states(step, folder) or (folder / step.writes[0]).exists():
        return staged, False
    # An attempt that ended before its first saved state has left nothing but logs.
    return folder, False

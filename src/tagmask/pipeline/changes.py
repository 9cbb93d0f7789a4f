"""Outputs that are no longer what a step made: named, kept where a person made them, checked on request."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from tagmask.data.parts import Parts
from tagmask.engine.log import Display
from tagmask.errors import ConfigError, DataError, UserError
from tagmask.pipeline.config import RunConfig
from tagmask.pipeline.order import ALL_STEPS
from tagmask.steps.base import Context, Step
from tagmask.steps.models import Models
from tagmask.store.labels import read_mask
from tagmask.store.ledger import is_whole, tree_files
from tagmask.store.manifest import Manifest
from tagmask.store.staging import UNFINISHED, Staging

__all__ = ["CHANGED", "check_run", "keep_changed", "name_changed_inputs", "name_own_changes"]

CHANGED = "changed"
"""Folder in a run folder for label images that a person changed and a step made again."""
_SHOWN = 3
_READ = {
    "refine": ("localize",),
    "walk": ("localize", "affinity"),
    "affinity": ("refine",),
    "student": ("refine", "walk"),
    "evaluate": ("localize", "refine", "walk", "segment"),
    "review": ("localize", "refine", "segment"),
}


def name_own_changes(step: Step, manifest: Manifest, display: Display) -> None:
    """Say which files of a step, done before, it finds changed and makes again."""
    if own := manifest.differences(step.name):
        display.say(f"{step.name}: {_listed(own)}; made again")


def name_changed_inputs(step: Step, manifest: Manifest, display: Display) -> None:
    """Say which files that a step reads are not what earlier steps made; they are used as they are."""
    others = manifest.steps if step.name == "report" else _READ.get(step.name, ())
    for name in others:
        found = {} if name == step.name else manifest.differences(name, private=step.name == "report")
        if found:
            display.say(f"{step.name}: {_listed(found)} since {name} made them; used as they are")


def _listed(found: Mapping[str, str]) -> str:
    shown = [f"{name} ({what})" for name, what in list(found.items())[:_SHOWN]]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{len(found)} file{'s' * (len(found) > 1)} changed or missing: {', '.join(shown)}{more}"


def keep_changed(step: Step, context: Context, made: Path) -> None:
    """Set aside label images that a person changed before a step puts new ones in their place."""
    folder, manifest = context.folder, context.manifest
    if not manifest.differences(step.name):
        return
    known = manifest.files(step.name)
    kept = []
    for output in step.writes:
        for file in tree_files(folder / output) if (folder / output).exists() else ():
            row = file.relative_to(folder).as_posix()
            if row in known and is_whole(file, known[row]):
                continue
            if _readable(file) and not _equal(file, made / row):
                kept.append(_aside(file, folder / CHANGED / row))
    if kept:
        context.display.say(
            f"{step.name}: {len(kept)} changed by hand, kept in {folder / CHANGED}: "
            f"{', '.join(path.name for path in kept[:_SHOWN])}; 'tagmask train --corrections "
            f"{folder / CHANGED / step.writes[0]}' learns from them"
        )


def _readable(file: Path) -> bool:
    try:
        return bool(read_mask(file).size)
    except DataError:
        return False


def _equal(first: Path, second: Path) -> bool:
    return second.is_file() and first.read_bytes() == second.read_bytes()


def _aside(file: Path, target: Path) -> Path:
    place, number = target, 1
    while place.exists() and not _equal(file, place):
        number += 1
        place = target.with_stem(f"{target.stem}-{number}")
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(file, place)
    return place


def check_run(folder: Path, config: RunConfig) -> list[str]:
    """What is not whole in a run folder: one line for each file or step, none if everything is.

    Args:
        folder: The run folder.
        config: Its settings.

    Raises:
        ConfigError: It is no run folder.
        DataError: ``run.json`` is damaged.
    """
    if not (folder / "settings.yaml").is_file():
        raise ConfigError(f"{folder} is no run folder: it has no settings.yaml")
    manifest = Manifest(folder)
    lines = [f"{folder / 'run.json'}: missing; no step is known to be done"] if not manifest.steps else []
    for name, record in manifest.steps.items():
        if record.get("status") != "done":
            reason = f" ({record['reason']})" if record.get("reason") else ""
            lines.append(f"{name}: {record.get('status', 'unknown')}{reason}; not finished")
            continue
        lines += [f"{file}: {what}" for file, what in manifest.differences(name, private=True).items()]
        lines += [f"{name}: {what} is not what it was made from" for what in _stale(manifest, name, config)]
    for path in sorted((folder / UNFINISHED).glob("*")):
        record = Staging(folder, path.name).record()
        reason = f" ({record['reason']})" if record.get("reason") else ""
        lines.append(f"{path.name}: begun and not finished{reason}; repeat the command to continue")
    return lines


def _stale(manifest: Manifest, name: str, config: RunConfig) -> Iterable[str]:
    """Labels of inputs made in this run that are not what the step read."""
    folder, inputs = manifest.folder, manifest.steps[name].get("inputs", {})
    for output in ("maps", "labels", "walks", "masks"):
        source = output
        if output == "labels" and name == "student" and config.student is not None:
            source = {"label": "labels", "walk": "walks"}[config.student.labels]
        known = inputs.get(output) if name != "train" else None
        if known is not None and manifest.checksum(folder / source) != known:
            yield source
    if name == "report":
        for step, outputs in inputs.items():
            now = {output: manifest.on_disk(output) for output in outputs or {}}
            if any(state is None or state["sha256"] != outputs[key]["sha256"] for key, state in now.items()):
                yield f"what {step} made"
    if name in ALL_STEPS and "model" in inputs:
        models = Models(config, folder, Parts(config.data))
        learner = {"walk": "affinity", "segment": models.segmenter_name, "review": models.segmenter_name}
        try:
            if models.checksum(learner.get(name)) != inputs["model"]:
                yield "model"
        except UserError as error:
            yield f"model ({error})"

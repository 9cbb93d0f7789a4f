"""``run.json``: what each step of a run read, wrote and used, so that finished steps are not done twice."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any

from tagmask import __version__
from tagmask.data.readers.regular import read_text
from tagmask.errors import DataError
from tagmask.store.files import digest, write_json
from tagmask.store.ledger import (
    FileState,
    file_state,
    fingerprint,
    is_whole,
    read_list,
    stat_digest,
    tree_files,
    write_list,
)

__all__ = ["LISTS", "Manifest", "filled", "new_record"]

LISTS = ".checksums"
"""Folder in a run folder with one list of files a step."""
_FORMAT = 1
_PACKAGES = ("torch", "torchvision", "timm", "accelerate", "numpy", "pillow")


class Manifest:
    """The steps of one run folder.

    Args:
        folder: The run folder; its ``run.json`` is read if there is one.

    Raises:
        DataError: ``run.json`` is damaged or of a newer format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "run.json"
        self.steps: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            self.steps = self._read()

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            content = json.loads(read_text(self.path))
            number, steps = content["format"], content["steps"]
            if not isinstance(number, int) or (number <= _FORMAT and not _sound(steps)):
                raise ValueError("unexpected content")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(
                f"{self.path} is damaged ({error}); delete it and do every step again with 'tagmask run "
                "... --overwrite', or choose another --out"
            ) from None
        if number > _FORMAT:
            raise DataError(f"{self.path} comes from a newer tagmask; update tagmask or choose another --out")
        return dict(steps)

    def is_done(
        self,
        name: str,
        settings: Mapping[str, Any],
        inputs: Mapping[str, Any],
        defaults: Mapping[str, Any] | None = None,
        places: Iterable[str] = (),
    ) -> bool:
        """Whether a step was finished with these settings and inputs and its outputs are unchanged.

        Args:
            name: Name of the step.
            settings: Everything that decides about the result, as plain values.
            inputs: Label to checksum (or other plain value) of what the step reads.
            defaults: Values of settings that the record does not know: it may be older than they are.
            places: Settings that name files, whose content is among the inputs: where they are is all one.
        """
        step = self.steps.get(name, {})
        if step.get("status") != "done" or not self.same_work(name, settings, inputs, defaults, places):
            return False
        return not self.differences(name)

    def same_work(
        self,
        name: str,
        settings: Mapping[str, Any],
        inputs: Mapping[str, Any],
        defaults: Mapping[str, Any] | None = None,
        places: Iterable[str] = (),
    ) -> bool:
        """Whether the last attempt at a step, finished or not, had these settings and inputs."""
        step = self.steps.get(name)
        if step is None or not isinstance(step.get("settings"), dict):
            return False
        left_out = set(places)
        before = {k: v for k, v in filled(step["settings"], defaults or {}).items() if k not in left_out}
        now = {k: v for k, v in settings.items() if k not in left_out}
        return digest([before, step.get("inputs")]) == digest([now, dict(inputs)])

    def differences(self, name: str, private: bool = False) -> dict[str, str]:
        """What is no longer as a finished step left it.

        Args:
            name: The step.
            private: Look at the files that it wrote for itself, too.

        Returns:
            Path in the run folder to "missing", "changed" or "not from this step". Where the record does
            not know single files, the path of the whole output.
        """
        record = self.steps.get(name, {})
        if record.get("status") != "done":
            return {}
        known = {**record.get("outputs", {}), **(record.get("private", {}) if private else {})}
        found: dict[str, str] = {}
        rows: dict[str, FileState] | None = None
        for output, state in known.items():
            path = self.folder / output
            if path.exists() and stat_digest(path) == state["stat"]:
                continue
            rows = self.files(name) if rows is None else rows
            found |= self._differences(output, state, rows)
        return found

    def _differences(
        self, output: str, state: Mapping[str, Any], rows: Mapping[str, FileState]
    ) -> dict[str, str]:
        path = self.folder / output
        parent = PurePosixPath(output).parent
        own = {row: known for row, known in rows.items() if PurePosixPath(row).is_relative_to(output)}
        named = {PurePosixPath(row).relative_to(parent).as_posix(): known for row, known in own.items()}
        if fingerprint(path, named)["sha256"] != state["sha256"]:
            # The list is from an older version, lost or damaged: only the whole is known.
            if not path.exists():
                return {output: "missing"}
            return {} if fingerprint(path)["sha256"] == state["sha256"] else {output: "changed"}
        found = {}
        for row, known in own.items():
            file = self.folder / row
            if not is_whole(file, known):
                found[row] = "changed" if file.exists() else "missing"
        for file in tree_files(path):
            row = file.relative_to(self.folder).as_posix()
            if row not in own:
                found[row] = "not from this step"
        return found

    def files(self, name: str) -> dict[str, FileState]:
        """The files that a finished step made, by their path in the run folder, as far as they are listed."""
        return read_list(self.folder / LISTS / f"{name}.jsonl")

    def begin(self, name: str, settings: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
        """Note that a step starts; one that was finished like this stays so until there is a new result."""
        if self.steps.get(name, {}).get("status") == "done" and self.same_work(name, settings, inputs):
            return
        self.steps[name] = new_record(settings, inputs)
        self._write()

    def finish(
        self,
        name: str,
        outputs: Iterable[Path],
        seconds: float,
        results: Mapping[str, Any],
        *,
        record: Mapping[str, Any] | None = None,
        rows: Mapping[str, FileState] | None = None,
        private: Iterable[Path] = (),
    ) -> None:
        """Note that a step is done, with the checksums of what it wrote.

        Args:
            name: The step.
            outputs: Files and folders inside the run folder.
            seconds: How long it took.
            results: Figures worth reading later.
            record: What was noted when it began, if not what `begin` noted.
            rows: Files that were made, by their path in the run folder; read from the disk if None.
            private: Further files and folders that the step wrote for itself.
        """
        outputs, private = list(outputs), list(private)
        if rows is None:
            made = [file for path in (*outputs, *private) for file in tree_files(path)]
            rows = {file.relative_to(self.folder).as_posix(): file_state(file) for file in made}
        self.steps[name] = {
            **(record or self.steps[name]),
            "status": "done",
            "seconds": round(seconds, 1),
            "outputs": {self._key(path): self._fingerprint(path, rows) for path in outputs},
            "private": {self._key(path): self._fingerprint(path, rows) for path in private},
            "results": dict(results),
        }
        self.steps[name].pop("reason", None)
        write_list(self.folder / LISTS / f"{name}.jsonl", rows)
        self._write()

    def _key(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _fingerprint(self, path: Path, rows: Mapping[str, FileState]) -> dict[str, Any]:
        output = PurePosixPath(self._key(path))
        own = {
            PurePosixPath(row).relative_to(output.parent).as_posix(): state
            for row, state in rows.items()
            if PurePosixPath(row).is_relative_to(output)
        }
        return fingerprint(path, own)

    def stop(self, name: str, status: str, reason: str) -> None:
        """Note that a step ended early ("stopped" by the user or the system, or "failed")."""
        if self.steps.get(name, {}).get("status", "done") != "done":
            self.steps[name] |= {"status": status, "reason": reason}
            self._write()

    def maker(self, output: str) -> str | None:
        """The step whose record knows an output."""
        return next((n for n, step in self.steps.items() if output in step.get("outputs", {})), None)

    def on_disk(self, output: str) -> dict[str, Any] | None:
        """Checksum, quick digest and count of an output as it is now; None if there is none.

        What a record says is believed only while sizes and times are what they were.
        """
        path = self.folder / output
        if not path.exists():
            return None
        maker = self.maker(output)
        known: dict[str, Any] = self.steps[maker]["outputs"][output] if maker else {}
        if known and stat_digest(path) == known["stat"]:
            return known
        seen = fingerprint(path)
        return known if known and known["sha256"] == seen["sha256"] else seen

    def checksum(self, path: Path) -> str | None:
        """Checksum of what is at a path now; None if nothing does, or it is not in the run folder."""
        if not path.is_relative_to(self.folder):
            return None
        found = self.on_disk(path.relative_to(self.folder).as_posix())
        return None if found is None else str(found["sha256"])

    def _write(self) -> None:
        write_json(self.path, {"format": _FORMAT, "tagmask": __version__, "steps": self.steps})


def filled(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Noted settings with the defaults of those that came later, also inside groups of settings."""
    result = {**defaults, **settings}
    for key, default in defaults.items():
        if isinstance(default, Mapping) and isinstance(result[key], Mapping):
            result[key] = filled(result[key], default)
    return result


def new_record(settings: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a step that starts now."""
    return {
        "status": "running",
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "settings": dict(settings),
        "inputs": dict(inputs),
        "versions": _versions(),
    }


def _sound(steps: Any) -> bool:
    """Whether what a file says about steps has the form it was written in."""
    if not isinstance(steps, dict) or not all(isinstance(step, dict) for step in steps.values()):
        return False
    keys = ("settings", "inputs", "results", "outputs", "private")
    parts = [step.get(key, {}) for step in steps.values() for key in keys]
    if not all(isinstance(part, dict) for part in parts):
        return False
    files = [step.get(key, {}) for step in steps.values() for key in ("outputs", "private")]
    known = [state for part in files for state in part.values()]
    return all(isinstance(state, dict) and {"sha256", "stat"} <= state.keys() for state in known)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "tagmask": __version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found

"""``run.json``: what each step of a run read, wrote and used, so that finished steps are not done twice."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tagmask import __version__
from tagmask.data.readers.regular import read_text
from tagmask.errors import DataError
from tagmask.store.files import digest, sha256, write_json

__all__ = ["Manifest"]

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
                f"{self.path} is damaged ({error}); delete it to do every step again, or choose another --out"
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
    ) -> bool:
        """Whether a step was finished with these settings and inputs and its outputs are unchanged.

        Args:
            name: Name of the step.
            settings: Everything that decides about the result, as plain values.
            inputs: Label to checksum (or other plain value) of what the step reads.
            defaults: Values of settings that the record does not know: it may be older than they are.
        """
        step = self.steps.get(name, {})
        if step.get("status") != "done" or not self.same_work(name, settings, inputs, defaults):
            return False
        return all(self._unchanged(path, known) for path, known in step.get("outputs", {}).items())

    def same_work(
        self,
        name: str,
        settings: Mapping[str, Any],
        inputs: Mapping[str, Any],
        defaults: Mapping[str, Any] | None = None,
    ) -> bool:
        """Whether the last attempt at a step, finished or not, had these settings and inputs."""
        step = self.steps.get(name)
        if step is None or not isinstance(step.get("settings"), dict):
            return False
        before = {**(defaults or {}), **step["settings"]}
        return digest([before, step.get("inputs")]) == digest([dict(settings), dict(inputs)])

    def begin(self, name: str, settings: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
        """Note that a step starts."""
        self.steps[name] = {
            "status": "running",
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "settings": dict(settings),
            "inputs": dict(inputs),
            "versions": _versions(),
        }
        self._write()

    def finish(self, name: str, outputs: list[Path], seconds: float, results: Mapping[str, Any]) -> None:
        """Note that a step is done, with the checksums of what it wrote.

        Args:
            name: The step.
            outputs: Files and folders inside the run folder.
            seconds: How long it took.
            results: Figures worth reading later.
        """
        self.steps[name] |= {
            "status": "done",
            "seconds": round(seconds, 1),
            "outputs": {path.relative_to(self.folder).as_posix(): fingerprint(path) for path in outputs},
            "results": dict(results),
        }
        self._write()

    def stop(self, name: str, status: str, reason: str) -> None:
        """Note that a step ended early ("stopped" by the user or the system, or "failed")."""
        if name in self.steps:
            self.steps[name] |= {"status": status, "reason": reason}
            self._write()

    def checksum(self, path: Path) -> str | None:
        """Checksum of an output that some finished step recorded, or None."""
        key = path.relative_to(self.folder).as_posix() if path.is_relative_to(self.folder) else None
        for step in self.steps.values():
            if key in step.get("outputs", {}):
                return str(step["outputs"][key]["sha256"])
        return None

    def _unchanged(self, path: str, known: Mapping[str, Any]) -> bool:
        target = self.folder / path
        if not target.exists():
            return False
        # Names, sizes and times first: reading gigabytes again is needed only when these differ.
        same = _stat_digest(target) == known["stat"] or fingerprint(target)["sha256"] == known["sha256"]
        return bool(same)

    def _write(self) -> None:
        write_json(self.path, {"format": _FORMAT, "tagmask": __version__, "steps": self.steps})


def _sound(steps: Any) -> bool:
    """Whether what a file says about steps has the form it was written in."""
    if not isinstance(steps, dict) or not all(isinstance(step, dict) for step in steps.values()):
        return False
    parts = [
        step.get(key, {}) for step in steps.values() for key in ("settings", "inputs", "results", "outputs")
    ]
    if not all(isinstance(part, dict) for part in parts):
        return False
    outputs = [known for step in steps.values() for known in step.get("outputs", {}).values()]
    return all(isinstance(known, dict) and {"sha256", "stat"} <= known.keys() for known in outputs)


def fingerprint(path: Path) -> dict[str, Any]:
    """Checksum over the content of a file or folder, quick digest of names, sizes and times, and count."""
    files = _files(path)
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file.relative_to(path.parent).as_posix()} {sha256(file)}\n".encode())
    return {"sha256": total.hexdigest(), "stat": _stat_digest(path), "files": len(files)}


def _stat_digest(path: Path) -> str:
    rows = [
        (f.relative_to(path.parent).as_posix(), f.stat().st_size, f.stat().st_mtime_ns) for f in _files(path)
    ]
    return digest(rows)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(f for f in path.rglob("*") if f.is_file() and ".partial" not in f.parts)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "tagmask": __version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found

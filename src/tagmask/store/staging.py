"""Where a step's new outputs are until they are complete, and how they take the place of the old ones."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tagmask.errors import DataError
from tagmask.store.files import digest, write_json
from tagmask.store.ledger import FileState, Ledger, file_state, read_list, tree_files, write_list
from tagmask.store.manifest import Manifest, new_record

__all__ = ["UNFINISHED", "Staging", "recover"]

UNFINISHED = ".unfinished"
"""Folder in a run folder with one folder a step that was begun and not finished."""
_ATTEMPT = "attempt.json"
_COMPLETE = "complete.json"
_MADE = "made.jsonl"
_OLD = "replaced"


class Staging:
    """The unfinished work of one step, in ``.unfinished/<step>/`` of the run folder.

    Args:
        run: The run folder.
        step: Name of the step.
    """

    def __init__(self, run: Path, step: str) -> None:
        self.run, self.step = run, step
        self.root = run / UNFINISHED / step

    def goes_on(self, settings: Mapping[str, Any], inputs: Mapping[str, Any]) -> bool:
        """Whether what is here is the beginning of this very work."""
        before = _read(self.root / _ATTEMPT)
        wanted = digest([dict(settings), dict(inputs)])
        return bool(before) and digest([before.get("settings"), before.get("inputs")]) == wanted

    def begin(self, settings: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
        """Throw away other unfinished work and note what this one is.

        Raises:
            DataError: The disk refuses.
        """
        self.clear()
        write_json(self.root / _ATTEMPT, new_record(settings, inputs))

    def stop(self, status: str, reason: str) -> None:
        """Note that the work ended early ("stopped" by the user or the system, or "failed")."""
        if record := self.record():
            write_json(self.root / _ATTEMPT, {**record, "status": status, "reason": reason})

    def clear(self) -> None:
        """Remove everything that is here."""
        shutil.rmtree(self.root, ignore_errors=True)
        with suppress(OSError):
            self.root.parent.rmdir()

    def adopt(self, rows: Mapping[str, FileState], damaged: Iterable[str]) -> None:
        """Take over the whole files of a finished step, so that only the damaged ones are made again."""
        bad = set(damaged)
        good = [row for row in rows if row not in bad]
        for row in good:
            target = self.root / row
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(self.run / row, target)
            except OSError:  # no links here, or between these file systems
                shutil.copy2(self.run / row, target)
        Ledger(self.root).note(self.root / row for row in good)

    def rows(self, names: Iterable[str]) -> dict[str, FileState]:
        """Files below the named outputs, as they were when they were made."""
        known = Ledger(self.root).known
        found = {}
        for name in names:
            for file in tree_files(self.root / name) if (self.root / name).exists() else ():
                row = file.relative_to(self.root).as_posix()
                found[row] = known[row] if row in known else file_state(file)
        return found

    def record(self) -> dict[str, Any]:
        """What was noted when the work began."""
        return _read(self.root / _ATTEMPT)

    def complete(self, names: Iterable[str], private: Iterable[str], finish: Mapping[str, Any]) -> None:
        """Put the new outputs in the place of the old ones and note the step as done.

        From the moment `complete.json` is there the new result counts: whatever ends the program then, the
        next one that works in the folder finishes it (`recover`).

        Args:
            names: Outputs of the step, relative to the run folder.
            private: What it wrote for itself.
            finish: "seconds" and "results".

        Raises:
            DataError: The disk refuses; the old result is still there.
        """
        names, private = list(names), list(private)
        write_list(self.root / _MADE, self.rows([*names, *private]))
        write_json(self.root / _COMPLETE, {"outputs": names, "private": private, **finish})
        self.place()

    def place(self) -> None:
        """The second half of `complete`; may be done again after it was cut off."""
        told = _read(self.root / _COMPLETE)
        names, private = told["outputs"], told["private"]
        for name in (*names, *private):
            self._swap(name)
        Manifest(self.run).finish(
            self.step,
            [self.run / name for name in names if (self.run / name).exists()],
            told["seconds"],
            told["results"],
            record=self.record(),
            rows=read_list(self.root / _MADE),
            private=[self.run / name for name in private if (self.run / name).exists()],
        )
        self.clear()

    def _swap(self, name: str) -> None:
        new, target, old = self.root / name, self.run / name, self.root / _OLD / name
        if not new.exists():
            return  # placed before the program was cut off, or not made at all
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if target.is_dir() and not target.is_symlink():
                old.parent.mkdir(parents=True, exist_ok=True)
                os.rename(target, old)
            os.replace(new, target)
        except OSError as error:
            if not target.exists() and old.exists():
                os.rename(old, target)
            raise DataError(f"cannot put {new} in the place of {target}: {error.strerror}") from None


def recover(run: Path) -> None:
    """Finish what a killed program had complete but not in its place; call it holding the folder.

    Raises:
        DataError: The disk refuses.
    """
    for folder in sorted((run / UNFINISHED).glob("*")):
        staging = Staging(run, folder.name)
        if _read(folder / _COMPLETE):
            staging.place()
        elif not (folder / _ATTEMPT).is_file():
            staging.clear()


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}

"""What a person decided about masks: one small file per image, a table of all, and the accepted masks."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict, deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmask.app.journal import Change, Journal
from tagmask.data.datasets.tagcells import join_tags
from tagmask.data.datasets.writing import write_whole
from tagmask.data.readers.regular import read_bytes, read_text
from tagmask.data.tables import csv_text
from tagmask.errors import ConfigError, DataError
from tagmask.store.files import file_for
from tagmask.store.labels import mask_bytes, write_mask

__all__ = ["KEPT", "VERDICTS", "Decision", "Decisions"]

VERDICTS = ("", "accepted", "rejected")
"""An empty verdict is a note about an image that is not decided yet."""
KEPT = ("", "mask", "pseudo label", "mended", "scribbles")
"""What is kept of an accepted image; "scribbles" leaves every pixel that was not marked undecided."""
_MAX_NOTE = 4000
_REMEMBERED = 50


@dataclass(frozen=True)
class Decision:
    """What is known about one image.

    Attributes:
        name: Of the image.
        verdict: One of `VERDICTS`.
        note: In the person's words.
        kept: What was accepted, one of `KEPT`.
        tags: Names of the classes it was accepted with.
        settings: Thresholds and refinement at that moment.
        when: Local time with its offset, ISO 8601.
    """

    name: str
    verdict: str = ""
    note: str = ""
    kept: str = ""
    tags: tuple[str, ...] = ()
    settings: tuple[tuple[str, str | float], ...] = ()
    when: str = ""


class Decisions:
    """Decisions in a folder: ``decisions/NAME.json``, ``decisions.csv``, ``masks/NAME.png``, ``downloads/``.

    Every change is on disk, whole, when a call returns: `tagmask.app.journal` waits for the disk once. Calls
    may come from several threads.

    Args:
        folder: Made when something is written.

    Raises:
        DataError: An earlier decision is damaged, or the folder leads elsewhere.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._journal = Journal(folder)
        self._journal.recover()
        self._lock = threading.Lock()
        self._before: defaultdict[str, deque[tuple[int, Decision, bytes | None]]] = defaultdict(
            lambda: deque(maxlen=_REMEMBERED)
        )
        self._versions: defaultdict[str, int] = defaultdict(int)
        self._known = {
            decision.name: decision
            for path in sorted((folder / "decisions").rglob("*.json"))
            for decision in [_read(path)]
        }

    def get(self, name: str) -> Decision:
        """The decision about an image; an empty one if there is none."""
        return self._known.get(name, Decision(name))

    def count(self, verdict: str) -> int:
        """How many images have a verdict."""
        return sum(decision.verdict == verdict for decision in list(self._known.values()))

    def known(self) -> dict[str, Decision]:
        """All decisions by the name of their image."""
        with self._lock:
            return dict(self._known)

    def version(self, name: str) -> int:
        """A number that grows with every change of an image; 0 before the first."""
        return self._versions[name]

    def mask(self, name: str) -> Path | None:
        """The kept mask of an image, if there is one."""
        path = self._path("masks", name, ".png")
        return path if path.is_file() else None

    def put(
        self,
        decision: Decision,
        mask: NDArray[np.uint8] | None,
        palette: NDArray[np.uint8],
        merge: bool = False,
    ) -> int:
        """Write a decision; an accepted mask is kept, that of a rejected image removed.

        Args:
            decision: Its time is set here.
            mask: Labels (H, W) of an accepted image; None leaves a kept mask as it is.
            palette: Colours of the mask file, (256, 3).
            merge: One step for `undo` with the change before, such as the strokes of one mending.

        Returns:
            The image's new version.

        Raises:
            ConfigError: The verdict is unknown or the note too long.
            DataError: It cannot be written; what was there before is unchanged.
        """
        if decision.verdict not in VERDICTS:
            raise ConfigError(f"'{decision.verdict}' is no verdict; accepted or rejected are")
        if decision.kept not in KEPT:
            raise ConfigError(f"'{decision.kept}' cannot be kept; one of {', '.join(KEPT[1:])} can")
        if len(decision.note) > _MAX_NOTE:
            raise ConfigError(f"a note has at most {_MAX_NOTE} characters, this one {len(decision.note)}")
        values = {**asdict(decision), "when": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        kept = self._path("masks", decision.name, ".png")
        picture = None if mask is None else mask_bytes(mask, palette)
        with self._lock:
            before = self._state(decision.name, kept)
            files: dict[Path, bytes | None] = {} if picture is None else {kept: picture}
            if decision.verdict == "rejected":
                files = {kept: None}
            self._write(Decision(**values), files)
            if not (merge and self._before[decision.name]):
                self._before[decision.name].append(before)
            return self._versions[decision.name]

    def _write(self, decision: Decision, files: dict[Path, bytes | None]) -> None:
        """Change the record of an image and some files in one step, and the table after it."""
        record = self._path("decisions", decision.name, ".json")
        empty = decision == Decision(decision.name)
        values = {**asdict(decision), "settings": dict(decision.settings)}
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        changed = {**files, record: None if empty else text.encode()}
        self._journal.add(Change({p.relative_to(self.folder).as_posix(): c for p, c in changed.items()}))
        if empty:
            self._known.pop(decision.name, None)
        else:
            self._known[decision.name] = decision
        self._write_table()
        self._versions[decision.name] += 1

    def settle(self) -> None:
        """Wait until everything is on the disk by itself; the next start then has nothing to look at."""
        with self._lock:
            self._journal.settle()

    def _state(self, name: str, kept: Path) -> tuple[int, Decision, bytes | None]:
        content = read_bytes(kept) if kept.is_file() else None
        return self._versions[name], self.get(name), content

    def undo(self, name: str, version: int) -> Decision:
        """Take the last change of an image back, with its mask.

        Args:
            name: The image.
            version: The version that the person sees.

        Raises:
            ConfigError: There is nothing to take back, or somebody else changed the image since.
            DataError: It cannot be written.
        """
        with self._lock:
            if self._versions[name] != version:
                raise ConfigError(f"'{name}' was changed from another window; open it again first")
            if not self._before[name]:
                raise ConfigError(f"there is no change of '{name}' to take back")
            _, decision, content = self._before[name][-1]
            self._write(decision, {self._path("masks", name, ".png"): content})
            self._before[name].pop()
            return decision

    def download(self, name: str, what: str, mask: NDArray[np.uint8], palette: NDArray[np.uint8]) -> Path:
        """Write a mask to ``downloads/`` and say where."""
        with self._lock:
            path = self._path("downloads", f"{name}-{what.replace(' ', '-')}", ".png")
            write_mask(path, mask, palette)
            return path

    def _path(self, part: str, name: str, suffix: str) -> Path:
        """Where a file goes; a link in between that leads out of the folder is an error."""
        path = file_for(self.folder / part, name, suffix)
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise DataError(
                f"{part}/{name}{suffix} would be written outside {self.folder.name}; remove the link"
            )
        return path

    def _write_table(self) -> None:
        known = sorted({tag for decision in self._known.values() for tag in decision.tags})
        table: list[list[str]] = [["name", "verdict", "kept", "tags", "note", "when"]]
        for name in sorted(self._known):
            d = self._known[name]
            table.append([d.name, d.verdict, d.kept, join_tags(d.tags, known), d.note, d.when])
        # Not forced to the disk as the decisions are, from which it is made again at every change.
        write_whole(self.folder / "decisions.csv", csv_text(table).encode())


def _read(path: Path) -> Decision:
    try:
        values: dict[str, Any] = json.loads(read_text(path))
        values["tags"] = tuple(values["tags"])
        values["settings"] = tuple(values["settings"].items())
        return Decision(**values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({error}); delete it to decide again") from None

"""What one person does at the page: open, toggle tags, decide, take away. No Gradio in here."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tagmask.app.decisions import Decision, Decisions
from tagmask.app.lab import Controls, Lab, View, enlarged
from tagmask.app.library import Library
from tagmask.data.classes import voc_palette
from tagmask.data.readers.regular import Inside, irregular, read_bytes
from tagmask.errors import ConfigError, DataError
from tagmask.inference.reading import read_by

__all__ = ["Desk", "Visit"]

_MAX_UPLOADS = 200


@dataclass(frozen=True)
class Visit:
    """What belongs to one visitor alone.

    Attributes:
        view: The open image.
        uploads: (name, file) of what the visitor brought.
    """

    view: View | None = None
    uploads: tuple[tuple[str, Path], ...] = ()


class Desk:
    """Everything the page can do; every method gives the visitor's next state and changes no shared one.

    Args:
        lab: The model.
        library: Images of the run.
        out: Folder that gets ``reviewed/``.
        inbox: Folder that uploads are in.
    """

    def __init__(self, lab: Lab, library: Library, out: Path, inbox: Path) -> None:
        self.lab, self.library, self.inbox = lab, library, inbox.resolve()
        self.decisions = Decisions(out / "reviewed")
        self.own = Decisions(out / "reviewed" / "uploads")

    def open(self, visit: Visit, name: str, controls: Controls) -> Visit:
        """Open an image of the run, or one that this visitor uploaded.

        Raises:
            UserError: It is unknown or cannot be read.
        """
        uploads = dict(visit.uploads)
        if name in uploads:
            view = self.lab.open(name, uploads[name], None, None, controls)
        else:
            tags, mask = self.library.tags(name), self.library.mask(name)
            view = self.lab.open(name, self.library.image(name), tags, mask, controls)
        return dataclasses.replace(visit, view=view)

    def upload(self, visit: Visit, files: Sequence[Path]) -> tuple[Visit, list[str], list[str]]:
        """Take in pictures.

        Returns:
            The next state, names of those that can be opened, a sentence for each that cannot.
        """
        taken, problems = dict(visit.uploads), []
        names = []
        for file in files:
            try:
                name = self._take(file)
                if name not in taken and len(taken) >= _MAX_UPLOADS:
                    raise DataError(f"at most {_MAX_UPLOADS} pictures at once; reload the page to begin anew")
                taken[name] = file
                names.append(name)
            except DataError as error:
                problems.append(str(error))
        return dataclasses.replace(visit, uploads=tuple(taken.items())), names, problems

    def _take(self, file: Path) -> str:
        if Inside([self.inbox], allowed=()).reason(file) is not None or irregular(file) is not None:
            raise DataError(f"'{file.name}' was not uploaded here")
        content = read_bytes(file)
        read_by(self.lab.model.reading, file.name, content=content)
        return f"{file.stem}-{hashlib.sha256(content).hexdigest()[:8]}"

    def retag(self, visit: Visit, words: Sequence[str], controls: Controls) -> Visit:
        """Choose the classes that may appear."""
        if visit.view is None:
            return visit
        tags = sorted(self.lab.classes.index(word) for word in words if word in self.lab.classes)
        return dataclasses.replace(visit, view=self.lab.retag(visit.view, tags, controls))

    def relabel(self, visit: Visit, controls: Controls) -> Visit:
        """Make the pseudo label anew."""
        if visit.view is None:
            return visit
        return dataclasses.replace(visit, view=self.lab.relabel(visit.view, controls))

    def decision(self, visit: Visit, name: str) -> Decision:
        """What is known about an image."""
        return self._store(visit, name).get(name)

    def decide(
        self, visit: Visit, name: str, verdict: str, note: str, use: str, controls: Controls
    ) -> Decision:
        """Accept or reject an image; it is written at once.

        Args:
            visit: The visitor.
            name: The image on the page; must be the open one.
            verdict: "accepted" or "rejected".
            note: In the person's words.
            use: "mask" or "pseudo label": what is kept of an accepted image.
            controls: The thresholds in use.

        Raises:
            UserError: Another image is open, or it cannot be written.
        """
        view = self._open_view(visit, name)
        words = tuple(self.lab.classes[key] for key in view.tags)
        mask = self._chosen(view, use) if verdict == "accepted" else None
        kept = use if verdict == "accepted" else ""
        settings = tuple(asdict(controls).items()) if kept == "pseudo label" else ()
        store = self._store(visit, name)
        store.put(Decision(name, verdict, note.strip(), kept, words, settings), mask, voc_palette())
        return store.get(name)

    def note(self, visit: Visit, name: str, note: str) -> bool:
        """Write a note and leave the verdict; says whether anything was new."""
        store = self._store(visit, name)
        before = store.get(name)
        if before.note == note.strip():
            return False
        store.put(dataclasses.replace(before, note=note.strip()), None, voc_palette())
        return True

    def download(self, visit: Visit, name: str, use: str) -> tuple[str, bytes]:
        """Name and content of a mask file; a copy is kept in ``reviewed/downloads``."""
        view = self._open_view(visit, name)
        path = self._store(visit, name).download(name, use, self._chosen(view, use), voc_palette())
        return path.name, path.read_bytes()

    def _store(self, visit: Visit, name: str) -> Decisions:
        if name in dict(visit.uploads):
            return self.own
        self.library.place(name)
        return self.decisions

    def _open_view(self, visit: Visit, name: str) -> View:
        if visit.view is None or visit.view.name != name:
            raise DataError("the picture is still being opened; try again in a moment")
        return visit.view

    def _chosen(self, view: View, use: str) -> NDArray[np.uint8]:
        if use == "mask":
            return enlarged(view.mask, view.size)
        if use != "pseudo label" or view.label is None:
            raise ConfigError(f"there is no '{use}' of this image; keep its mask")
        return enlarged(view.label, view.size)

    def beside(self, name: str, step: int) -> str | None:
        """The image `step` places further in the queue; None at its ends."""
        if name not in self.library:
            return self.library.entries[0].name if self.library.entries else None
        place = self.library.place(name) + step
        return self.library.entries[place].name if 0 <= place < len(self.library.entries) else None

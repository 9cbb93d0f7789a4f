"""What a person does at the page: open, correct, decide, take back, bring pictures. No network in here."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tagmask.app.decisions import Decision, Decisions
from tagmask.app.lab import Controls, Lab, View
from tagmask.app.library import Library
from tagmask.app.pack import pack
from tagmask.app.pictures import enlarged, jpeg, shrunk_maps, thumbnail
from tagmask.app.visitors import Visitors
from tagmask.data.classes import CLASS_COLOURS, class_palette
from tagmask.data.levels import for_people
from tagmask.data.readers.images import read_size
from tagmask.data.readers.pixels import pixel_size
from tagmask.data.readers.regular import read_bytes
from tagmask.data.readers.stack import people_picture
from tagmask.errors import ConfigError, DataError
from tagmask.inference.reading import read_by
from tagmask.ops.resize import resize_bilinear
from tagmask.store.files import atomic_write, file_for
from tagmask.store.labels import read_mask
from tagmask.store.maps import load_maps
from tagmask.types import IGNORE

__all__ = ["Desk"]

Labels = NDArray[np.uint8]
_PICTURE_SIDE = 1600
_THUMB_SIDE = 128


class Desk:
    """Everything the page can do with images; safe to use from several threads.

    Args:
        lab: The model.
        library: Images of the run.
        out: Folder that gets ``reviewed/``.
        inbox: Folder that uploads are kept in.
    """

    def __init__(self, lab: Lab, library: Library, out: Path, inbox: Path) -> None:
        self.lab, self.library, self.inbox = lab, library, inbox.resolve()
        self.decisions = Decisions(out / "reviewed")
        self.own = Decisions(out / "reviewed" / "uploads")
        self.visitors: Visitors[View] = Visitors()
        self.palette = class_palette()

    def overview(self) -> dict[str, Any]:
        """The classes, and every image with what is known about it, as columns."""
        entries, known = self.library.entries, self.decisions.known()
        places = {name: key for key, name in enumerate(self.lab.classes)}
        shown = [[places[one] for one in entry.shown if one in places] for entry in entries]
        return {
            "classes": list(self.lab.classes),
            "colours": [CLASS_COLOURS[key % len(CLASS_COLOURS)] for key in range(len(self.lab.classes))],
            "kinds": list(dict.fromkeys([*self.library.kinds, *self.lab.kinds])),
            "reviewed": self.library.reviewed,
            "names": [entry.name for entry in entries],
            "scores": [entry.score for entry in entries],
            "parts": [entry.part for entry in entries],
            "shown": shown,
            "tags": [self.library.tags(entry.name) for entry in entries],
            "verdicts": {name: [one.verdict, one.kept] for name, one in known.items()},
        }

    def image(self, visitor: str, name: str) -> bytes:
        """What is stored of an image, packed: labels, maps as bytes, what was decided.

        Raises:
            UserError: It is unknown, or a file of it cannot be read.
        """
        file, own = self._file(visitor, name)
        store = self.own if own else self.decisions
        arrays: dict[str, Labels] = {}
        keys: dict[str, list[int]] = {}
        if not own:
            arrays |= {folder: read_mask(path) for folder, path in self.library.labels(name).items()}
            for kind, path in self.library.maps(name).items():
                found = load_maps(path, len(self.lab.classes))
                arrays[f"map:{kind}"] = shrunk_maps(found.maps, self.lab.max_side)
                keys[kind] = found.keys.tolist()
        stored = bool(arrays)
        if (kept := store.mask(name)) is not None:
            arrays["corrected"] = read_mask(kept)
        return pack({**self._head(name, file, own, store), "keys": keys, "stored": stored}, arrays)

    def _head(self, name: str, file: Path, own: bool, store: Decisions) -> dict[str, Any]:
        entry = None if own else self.library.entries[self.library.place(name)]
        decision = store.get(name)
        return {
            "name": name,
            "size": self._size(name, file, own),
            "upload": own,
            "tags": None if own else self.library.tags(name),
            "score": None if entry is None else entry.score,
            "why": "" if entry is None else entry.why,
            "verdict": decision.verdict,
            "kept": decision.kept,
            "note": decision.note,
            "version": store.version(name),
        }

    def picture(self, visitor: str, name: str) -> bytes:
        """The image as JPEG, at most 1600 pixels on its longer side."""
        return jpeg(Image.fromarray(self.pixels(visitor, name, _PICTURE_SIDE)))

    def thumb(self, visitor: str, name: str) -> bytes:
        """A small picture with the kept mask over it, or else the run's."""
        _, own = self._file(visitor, name)
        labels = (self.own if own else self.decisions).mask(name)
        if labels is None and not own:
            labels = next(iter(self.library.labels(name).values()), None)
        picture = Image.fromarray(self.pixels(visitor, name, _THUMB_SIDE))
        return thumbnail(picture, None if labels is None else read_mask(labels), self.palette, _THUMB_SIDE)

    def look(self, visitor: str, name: str, tags: list[int] | None, quick: bool) -> bytes:
        """What the model says now, packed like `image`: its mask and maps.

        Args:
            visitor: Who asks.
            name: The image.
            tags: Classes that may appear; those of the image, or else the classifier's if None.
            quick: From one view of the model's own size alone.
        """
        file, own = self._file(visitor, name)
        if tags is None and not own:
            known = self.library.tags(name)
            tags = None if known is None else list(known)
        if tags is not None and any(not 0 <= key < len(self.lab.classes) for key in tags):
            raise DataError(f"tags are numbers from 0 to {len(self.lab.classes) - 1}")
        view = self.lab.look(name, file, tags, quick)
        self.visitors.remember(visitor, name, view)
        arrays = {"now": np.asarray(view.mask, np.uint8)}
        arrays |= {f"map:{kind}": shrunk_maps(maps, self.lab.max_side) for kind, maps in view.maps.items()}
        head = {"name": name, "quick": quick, "tags": list(view.tags)}
        return pack({**head, "keys": {kind: list(view.keys) for kind in view.maps}}, arrays)

    def refine(self, visitor: str, name: str, controls: Controls, now: bool) -> bytes:
        """The pseudo label of some thresholds and refinement, packed.

        Args:
            visitor: Who asks.
            name: The image.
            controls: How.
            now: From the maps that `look` gave last instead of the stored ones.
        """
        view = self.visitors.seen(visitor, name) if now else self._stored(visitor, name, controls.maps)
        if view is None:
            raise DataError("the maps of this picture are no longer here; open it again")
        found = self.lab.relabel(view, controls).label
        if found is None:
            raise ConfigError(f"'{name}' has no maps; run localize first")
        return pack({"name": name}, {"label": found})

    def _stored(self, visitor: str, name: str, kind: str) -> View:
        """The stored maps of one kind as a view, at the image's size or the lab's."""
        path = None if self._file(visitor, name)[1] else self.library.maps(name).get(kind)
        if path is None:
            raise ConfigError(f"'{name}' has no stored {kind} maps; run localize first")
        found = load_maps(path, len(self.lab.classes))
        dataset = self.library.dataset
        assert dataset is not None  # there are maps
        levels = dataset.image(dataset.position(name), self.lab.max_side)
        size = (levels.shape[0], levels.shape[1])
        maps = found.maps
        if maps.shape[1:] != size:
            maps = resize_bilinear(torch.from_numpy(maps)[None], size)[0].numpy()
        keys = tuple(found.keys.tolist())
        blank = np.zeros(size, np.uint8)
        kept = {kind: maps.astype(np.float16)}
        return View(name, for_people(levels), levels, found.size, keys, keys, kept, blank, True)

    def decide(
        self, visitor: str, decision: Decision, mask: Labels | None, merge: bool = False
    ) -> dict[str, Any]:
        """Accept, reject or save a correction; it is written when this returns.

        Args:
            visitor: Who decides.
            decision: What; a kept "mask" without labels is the run's own.
            mask: Labels of the image's size, or of a smaller one in the same shape.
            merge: One step for `undo` with the change before.

        Raises:
            UserError: The labels do not fit, or it cannot be written.
        """
        file, own = self._file(visitor, decision.name)
        store = self.own if own else self.decisions
        if mask is not None:
            mask = self._fitting(mask, self._size(decision.name, file, own), decision.name)
        elif decision.verdict == "accepted" and decision.kept == "mask":
            stored = None if own else self.library.mask(decision.name)
            if stored is None:
                raise ConfigError(f"the run has no mask of '{decision.name}'; wait until one is shown")
            mask, size = read_mask(stored), self._size(decision.name, file, own)
            if mask.shape != size:
                raise DataError(
                    f"the mask of '{decision.name}' is {mask.shape}, the image {size}; make it again"
                )
        elif decision.verdict == "accepted" and store.mask(decision.name) is None:
            raise ConfigError(f"there is no {decision.kept or 'mask'} of '{decision.name}' to keep yet")
        note = decision.note.strip()
        version = store.put(dataclasses.replace(decision, note=note), mask, self.palette, merge)
        return {"name": decision.name, "version": version, "when": store.get(decision.name).when}

    def _fitting(self, mask: Labels, size: tuple[int, int], name: str) -> Labels:
        if mask.ndim != 2 or 0 in mask.shape:
            raise DataError(f"the mask of '{name}' must be (height, width), got {mask.shape}")
        wrong = [v for v in np.unique(mask).tolist() if v > len(self.lab.classes) and v != IGNORE]
        if wrong:
            raise DataError(f"the mask of '{name}' holds the label {wrong[0]}, which no class has")
        height, width = mask.shape
        alike = abs(height * size[1] - width * size[0]) <= max(size)
        if height > size[0] or width > size[1] or not alike:
            raise DataError(f"the mask of '{name}' is {mask.shape}, the image {size}; open it again")
        return enlarged(np.ascontiguousarray(mask), size)

    def undo(self, visitor: str, name: str, version: int) -> dict[str, Any]:
        """Take the last change of an image back, see `Decisions.undo`."""
        _, own = self._file(visitor, name)
        store = self.own if own else self.decisions
        decision = store.undo(name, version)
        return {
            "name": name,
            "verdict": decision.verdict,
            "kept": decision.kept,
            "note": decision.note,
            "version": store.version(name),
        }

    def note(self, visitor: str, name: str, note: str) -> dict[str, Any]:
        """Write a note and leave the verdict."""
        _, own = self._file(visitor, name)
        store = self.own if own else self.decisions
        before = store.get(name)
        if before.note != note.strip():
            store.put(dataclasses.replace(before, note=note.strip()), None, self.palette)
        return {"name": name, "version": store.version(name)}

    def upload(self, visitor: str, file_name: str, content: bytes) -> dict[str, Any]:
        """Take in a picture.

        Raises:
            DataError: It is no picture, or the visitor brought too many.
        """
        picture = read_by(self.lab.model.reading, Path(file_name).name or "upload", content=content)
        stem = "".join(c if c.isalnum() or c in "-_" else "-" for c in Path(file_name).stem)[:60]
        name = f"{stem or 'upload'}-{hashlib.sha256(content).hexdigest()[:8]}"
        path = file_for(
            self.inbox,
            f"{hashlib.sha256(visitor.encode()).hexdigest()[:16]}/{name}",
            Path(file_name).suffix[:8],
        )
        with atomic_write(path) as target:
            target.write_bytes(content)
        self.visitors.brought(visitor, name, path)
        return {"name": name, "size": [picture.height, picture.width]}

    def pixels(self, visitor: str, name: str, side: int | None = None) -> NDArray[np.uint8]:
        """RGB pixels of an image as people see them, (H, W, 3), its longer side at most `side`."""
        file, own = self._file(visitor, name)
        if not own and (dataset := self.library.dataset) is not None:
            return dataset.picture(dataset.position(name), side)
        picture = people_picture(read_by(self.lab.model.reading, file))
        if side is not None:
            picture.thumbnail((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
        return np.array(picture)

    def _size(self, name: str, file: Path, own: bool) -> tuple[int, int]:
        """(height, width) of an image, from its header."""
        dataset = self.library.dataset
        if not own and dataset is not None:
            return dataset.size(dataset.position(name))
        return read_size(file) if self.lab.model.reading is None else pixel_size(file)

    def download(self, visitor: str, name: str, what: str, mask: Labels) -> tuple[str, bytes]:
        """Name and content of a mask file; a copy is kept in ``reviewed/downloads``."""
        file, own = self._file(visitor, name)
        fitting = self._fitting(mask, self._size(name, file, own), name)
        path = (self.own if own else self.decisions).download(name, what, fitting, self.palette)
        return path.name, read_bytes(path)

    def _file(self, visitor: str, name: str) -> tuple[Path, bool]:
        """The picture file of a name, and whether the visitor uploaded it."""
        uploads: Mapping[str, Path] = self.visitors.uploads(visitor)
        return (uploads[name], True) if name in uploads else (self.library.image(name), False)

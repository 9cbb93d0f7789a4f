"""The number to trust at the page: what the masks checked so far say of the others, and doubted tags."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tagmask.app.desk import Desk
from tagmask.data.datasets.tag_repair import repair_tag
from tagmask.data.readers.regular import read_text
from tagmask.data.tables import plain_cell
from tagmask.errors import ConfigError, DataError
from tagmask.review.calibration import FEWEST, Trust, calibrate, random_order
from tagmask.review.class_trust import Overlap
from tagmask.review.queue import Row, rank
from tagmask.steps.review import read_row
from tagmask.steps.trust import overlap
from tagmask.store.files import file_for
from tagmask.store.labels import read_mask

__all__ = ["Scales", "tag_files"]

_MOST = 400
_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")


class Scales:
    """Weighs masks and tags of a run; safe to use from several threads.

    Args:
        desk: Its images and decisions.
        tag_files: Files that the run's tags come from, those that may be repaired.
    """

    def __init__(self, desk: Desk, tag_files: tuple[Path, ...] = ()) -> None:
        self.desk, self.tag_files = desk, tag_files
        self._lock = threading.Lock()
        self._rows: list[Row] | None = None
        self._seen: dict[str, tuple[int, Overlap | None]] = {}

    def trust(self) -> dict[str, Any]:
        """Predicted IoU of every image and class with intervals, as far as enough masks are checked.

        Raises:
            DataError: What the review or a person wrote is damaged.
        """
        with self._lock:
            rows = self._reviewed()
            if not rows:
                return {"reviewed": False, "checked": 0, "needed": FEWEST}
            checked = self._checked(rows)
            draw = random_order([row.name for row in rows])
            told: dict[str, Any] = {"reviewed": True, "checked": len(checked), "needed": FEWEST, "draw": draw}
            if len(checked) < FEWEST:
                return told
            return told | self._values(calibrate(rows, checked, len(self.desk.lab.classes)))

    def _values(self, trust: Trust) -> dict[str, Any]:
        labels = ("background", *self.desk.lab.classes)
        return {
            "text": trust.text,
            "level": trust.level,
            "iou": round(trust.iou, 4),
            "low": round(trust.low, 4),
            "high": round(trust.high, 4),
            "miou": round(trust.miou, 4),
            "settled": trust.settled,
            "doubt": trust.doubt,
            "classes": [
                [labels[one.label], *map(_plain, (one.iou, one.low, one.high)), one.checked]
                for one in trust.classes
            ],
            "images": {
                name: [round(one.iou, 3), round(one.low, 3), round(one.high, 3), one.checked]
                for name, one in trust.images.items()
            },
        }

    def _reviewed(self) -> list[Row]:
        """The images that the review looked at, in its order; read once."""
        if self._rows is None:
            library, folder = self.desk.library, self.desk.library.folder / "review" / "signals"
            paths = [file_for(folder, entry.name, ".json") for entry in library.entries]
            found = [read_row(path) for path in paths if path.is_file()]
            self._rows = rank(found, self.desk.lab.classes) if found else []
        return self._rows

    def _checked(self, rows: list[Row]) -> dict[str, Overlap]:
        """Every kept mask beside the run's own; each is compared once, until it changes."""
        store, known = self.desk.decisions, self.desk.decisions.known()
        found = {}
        for row in rows:
            decision = known.get(row.name)
            if decision is None or decision.verdict != "accepted":
                continue
            version = store.version(row.name)
            if self._seen.get(row.name, (-1, None))[0] != version:
                self._seen[row.name] = version, self._overlap(row.name)
            if (seen := self._seen[row.name][1]) is not None:
                found[row.name] = seen
        return found

    def _overlap(self, name: str) -> Overlap | None:
        kept, own = self.desk.decisions.mask(name), self.desk.library.mask(name)
        if kept is None or own is None:
            return None
        return overlap(read_mask(own), read_mask(kept))

    def doubts(self) -> dict[str, Any]:
        """The tags that the review doubts, worst first, and whether they can be repaired here.

        Raises:
            DataError: The review's table is damaged.
        """
        path = self.desk.library.folder / "review" / "tag_doubts.csv"
        if not path.is_file():
            return {"reviewed": False, "cards": [], "mends": False, "more": 0}
        places = {name: key for key, name in enumerate(self.desk.lab.classes)}
        try:
            lines = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
            cards: list[dict[str, Any]] = [
                {"name": plain_cell(line["name"]), "tag": plain_cell(line["tag"]), "kind": line["perhaps"],
                 "doubt": float(line["doubt"]), "strong": line["grade"] == "strong",
                 "chance": float(line["probability"])}
                for line in lines
            ]  # fmt: skip
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            raise DataError(f"{path} is damaged ({error}); delete it and run review again") from None
        known = [card for card in cards if card["name"] in self.desk.library and card["tag"] in places]
        for card in known:
            tags = self.desk.library.tags(card["name"]) or ()
            card["tagged"] = places[card["tag"]] in tags
        return {
            "reviewed": True,
            "cards": known[:_MOST],
            "mends": bool(self.tag_files),
            "more": max(len(known) - _MOST, 0),
        }

    def mend_tag(self, name: str, tag: str, present: bool) -> dict[str, Any]:
        """Change one tag of one image in the tag file.

        Args:
            name: The image.
            tag: Name of the class.
            present: Whether the image shall have it.

        Raises:
            ConfigError: The tags do not come from a file.
            DataError: No file names the image, or it cannot be written.
        """
        library = self.desk.library
        if not self.tag_files:
            raise ConfigError("the tags of this run come from no tag file; change them where they come from")
        library.place(name)
        problem: DataError | None = None
        with self._lock:
            for path in self.tag_files:
                try:
                    tags = repair_tag(library.folders.inside(path), name, tag, present, self.desk.lab.classes)
                except DataError as error:
                    problem = error
                    continue
                keys = tuple(self.desk.lab.classes.index(one) for one in tags)
                library.repaired[name] = keys
                return {"name": name, "tags": list(keys), "file": path.name}
        raise problem or DataError(f"no tag file names '{name}'")


def tag_files(about: Mapping[str, str], splits: Iterable[str]) -> tuple[Path, ...]:
    """The tag files behind what a data set says of itself; none where tags come from anything else.

    Args:
        about: Of the data set, see `tagmask.data.base.TagDataset`.
        splits: Names that may stand for "{split}".
    """
    origin = about.get("tags", "")
    if about.get("kind") != "folder" or Path(origin).suffix.lower() not in _TABLES:
        return ()
    found = [Path(origin.replace("{split}", split)) for split in splits]
    return tuple(path for path in dict.fromkeys(found) if path.is_file())


def _plain(value: float) -> float | None:
    return round(value, 4) if value == value else None

"""Where the images to learn from and the images to score on are, and opening them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from tagmask.config import Config
from tagmask.data import TagDataset, as_dataset, find_kind, scan_dataset
from tagmask.data.base import Scan, Source
from tagmask.data.datasets.hub import data_folder
from tagmask.data.holdout import SHARE, hold_out
from tagmask.data.levels import Bands, PixelRange, Reading, choose_reading
from tagmask.errors import ConfigError, DataError

__all__ = ["DataConfig", "Part", "Parts", "data_state", "find_part", "has_masks", "hold_out", "open_part"]

Part = Literal["auto", "train", "val", "both"]
"""Which images: to learn from, to score on, one after the other, or "auto"."""


class DataConfig(Config):
    """Images, their tags, and masks for scoring."""

    root: Path | None = None
    """Folder of the data set, or hf:NAME_OR_FOLDER for one of the Hugging Face hub."""
    kind: str = "auto"
    """Kind of data set: folder, voc, coco, hugging_face, or auto to tell by the look of the root."""
    split: str | None = None
    """Part to learn from; the data set's usual one if not given."""
    tags: str | None = None
    """Tag file instead of the usual place; "{split}" in it is replaced by the split."""
    classes: Path | tuple[str, ...] | None = None
    """Class names, or a file with one a line, instead of the data set's own."""
    masks: Path | None = None
    """Folder of true masks instead of the usual place. Opened for scoring only, never for training."""
    mask_values: str | dict[int | str, str] | None = None
    """What the numbers in the masks mean, if not the labels themselves ("voc", a mapping, or a JSON file)."""
    val_root: Path | None = None
    """Folder of the images to score on, if not the same."""
    val_split: str | None = None
    """Part to score on; "val" if the data set has one."""
    val_tags: str | None = None
    """Tag file of the images to score on, if not the same."""
    holdout: float = Field(default=SHARE, ge=0, le=0.5)
    """Share of the images that is held out of training to score tags, if the data names no split; 0
    trains on all. Always the same images; none if there are fewer than 50."""
    cache: Literal["none", "memory"] = "none"
    """With "memory", decoded images are kept."""
    bands: Bands | None = None
    """Which bands the network gets, counted from 1, or "all"; people see the first three. Not needed for
    pictures of one band or of red, green and blue."""
    range: PixelRange | None = None
    """What becomes black and white: "percentiles" of the training images (all but 8-bit pictures if not
    given), two numbers, two for every band, the "file"'s own window, or the "full" range of its type."""

    @field_validator("root", "val_root", mode="before")
    @classmethod
    def _found(cls, value: Any) -> Any:
        return data_folder(value) if isinstance(value, str | Path) else value

    def source(self, part: Part, masks: bool) -> Source:
        """Where one part is.

        Raises:
            ConfigError: No folder was given.
        """
        return Parts(self).source(part, masks)


class Parts:
    """The parts of a data set, each scanned once however often it is opened.

    Args:
        config: Where everything is.
        reading: How files become levels, from a model; found out from the images to learn from if None.
    """

    def __init__(self, config: DataConfig, reading: Reading | None = None) -> None:
        self.config = config
        self._reading: list[Reading | None] = [] if reading is None else [reading]
        self._scans: dict[tuple[Any, ...], Scan | DataError] = {}
        self._kept: frozenset[str] | None = None

    def open(self, part: Part, masks: bool = False) -> TagDataset:
        """Open the images of one part.

        Args:
            part: "train", "val", "both" of them one after the other, or "auto" for the one to score on if
                there is one.
            masks: Open the true masks too; for scoring only.

        Raises:
            ConfigError: No folder was given, or masks of both parts are asked for.
            DataError: Something is missing, unknown or contradictory.
        """
        if part == "both" and masks:
            raise ConfigError("scores belong to one part: choose split train or val, not both")
        aside = self._aside()
        if part == "both" and not aside:
            return _both(self.open("train"), self.open("auto"))
        found = self.find(part)
        source = self.source("val" if found == "val" and not aside else "train", masks)
        scan = self._scan(self.config.kind, source)
        reading = self.reading(scan) if scan.items else None
        dataset = as_dataset(scan, source, self.config.cache, reading)
        if not aside:
            return dataset
        if found == "both":
            return dataset.subset(range(len(dataset)), "all")
        chosen = [i for i, name in enumerate(dataset.names) if (name in aside) == (found == "val")]
        return dataset.subset(chosen, "held-out" if found == "val" else None)

    def held_out(self) -> TagDataset | None:
        """The images held out for scoring tags because the data names no split; None if there are none.

        Raises:
            ConfigError: No folder was given.
            DataError: Something is missing, unknown or contradictory.
        """
        return self.open("val") if self._aside() else None

    def reading(self, scan: Scan) -> Reading | None:
        """How files become levels: found out once, from the images to learn from.

        Args:
            scan: Any part; it is looked at where there are no images to learn from.

        Raises:
            ConfigError: `data.range` or `data.bands` is impossible.
            DataError: No image can be measured.
        """
        if not self._reading:
            with suppress(DataError):
                scan = self._scan(self.config.kind, self.source("train", masks=False))
            items = [item for item in scan.items if item.name not in self._aside()] or scan.items
            files = [(item.image, item.part) for item in items]
            self._reading.append(choose_reading(files, self.config.bands, self.config.range))
        return self._reading[0]

    def find(self, part: Part) -> Part:
        """The part that "auto" means: the one to score on if there is one, else all images."""
        if part != "auto":
            return part
        if self._named_val():
            return "val"
        return "both" if self._aside() else "train"

    def _named_val(self) -> bool:
        """Whether the data, or the settings, name a part to score on."""
        if self.config.val_root or self.config.val_split or self.config.val_tags:
            return True
        # With masks first: such a scan serves everyone, so that one is enough.
        return any(self._there(self.config.kind, self.source("val", masks)) for masks in (True, False))

    def _aside(self) -> frozenset[str]:
        """Names of the images held out for scoring tags."""
        if self._kept is None:
            self._kept = frozenset()
            data = self.config
            named = any((data.split, data.val_root, data.val_split, data.val_tags))
            # Other kinds have parts of their own, which are not looked at here.
            if data.holdout and not named and self._is_folder(self.source("train", masks=False)):
                scan = next((s for s in self._scans.values() if isinstance(s, Scan)), None)
                scan = scan or self._scan(data.kind, self.source("train", masks=False))
                self._kept = hold_out(scan.items, data.holdout) if scan.unsplit else frozenset()
        return self._kept

    def _is_folder(self, source: Source) -> bool:
        return (find_kind(source) if self.config.kind == "auto" else self.config.kind) == "folder"

    def has_masks(self, part: Part) -> bool:
        """Whether there is a true mask for any image of a part."""
        val = self.find(part) == "val" and not self._aside()
        try:
            scan = self._scan(self.config.kind, self.source("val" if val else "train", masks=True))
        except DataError:
            # No folder of masks at all; if one was named, its absence is an error.
            if self.config.masks is not None:
                raise
            return False
        return any(item.mask is not None for item in scan.items)

    def source(self, part: Part, masks: bool) -> Source:
        """Where one part is.

        Raises:
            ConfigError: No folder was given.
        """
        data, val = self.config, part == "val"
        if data.root is None:
            raise ConfigError("say where the images are: --data DIR (or data.root in the recipe)")
        return Source(
            root=(data.val_root or data.root) if val else data.root,
            split=(data.val_split or "val") if val else data.split or self._usual_split(data.root),
            masks=masks,
            tags=(data.val_tags or data.tags) if val else data.tags,
            classes=data.classes,
            mask_folder=data.masks,
            mask_values=data.mask_values,
        )

    def _usual_split(self, root: Path) -> str | None:
        """The part to learn from where none is named: "train" of a folder that has one.

        Without this, a folder whose tag file marks images for scoring would be learned from as a whole.
        """
        data = self.config
        source = Source(
            root,
            "train",
            tags=data.tags,
            classes=data.classes,
            mask_folder=data.masks,
            mask_values=data.mask_values,
        )
        if not self._is_folder(source):
            return None
        return "train" if self._there(data.kind, source) else None

    def _there(self, kind: str, source: Source) -> bool:
        try:
            self._scan(kind, source)
        except DataError:
            return False
        return True

    def _scan(self, kind: str, source: Source) -> Scan:
        """What is at a source; a scan with masks also serves those who may not see them."""
        place = (str(source.root), source.split, source.tags, kind)
        seen = self._scans.get((*place, True))
        if not source.masks and (*place, False) not in self._scans and isinstance(seen, Scan):
            self._scans[*place, False] = _without_masks(seen)
        found = self._scans.get((*place, source.masks))
        if found is None:
            try:
                found = scan_dataset(kind, source)
            except DataError as error:
                found = error
            self._scans[*place, source.masks] = found
        if isinstance(found, DataError):
            raise found
        return found


def find_part(data: DataConfig, part: Part) -> Part:
    """The part that "auto" means, see `Parts.find`."""
    return Parts(data).find(part)


def open_part(data: DataConfig, part: Part, masks: bool = False) -> TagDataset:
    """Open the images of one part, see `Parts.open`; who opens several parts keeps one `Parts`."""
    return Parts(data).open(part, masks)


def has_masks(data: DataConfig, part: Part) -> bool:
    """Whether there is a true mask for any image of a part."""
    return Parts(data).has_masks(part)


def _without_masks(scan: Scan) -> Scan:
    """The same part for those who must not see the truth."""
    items = tuple(item if item.mask is None else replace(item, mask=None) for item in scan.items)
    about_masks = ("missing mask", "unclear masks", "mask values")
    problems = tuple(problem for problem in scan.problems if problem.kind not in about_masks)
    about = {key: value for key, value in scan.about.items() if key != "mask values"}
    about |= {"masks": "not opened"} if "masks" in about else {}
    return replace(scan, items=items, problems=problems, about=about)


def _both(first: TagDataset, second: TagDataset) -> TagDataset:
    """Two parts as one; images of both are taken from the first."""
    if first.classes != second.classes:
        raise DataError("the part to learn from and the part to score on have different classes")
    known = set(first.names)
    further = [item for item in second.items if item.name not in known]
    split = f"{first.split}+{second.split}" if further else first.split
    items = [*first.items, *further]
    return TagDataset(first.classes, items, split, about=first.about, reading=first.reading)


def data_state(dataset: TagDataset) -> list[Any]:
    """Names, tags, and sizes and dates of the image files, and of the masks if they are open.

    Two data sets with the same state are the same for a run; `store.files.digest` makes a checksum of it.
    """
    rows = []
    source = Path(dataset.about.get("tags", ""))
    drawn = dataset.about.get("kind") == "coco" and source.is_file()
    for item in dataset.items:
        # Masks that a data set draws when they are asked for may not be there yet.
        masks = [item.mask] if dataset.masks and item.mask is not None and not drawn else []
        stats = [file.stat() for file in (item.image, *masks)]
        rows.append((item.name, item.tags, [(stat.st_size, stat.st_mtime_ns) for stat in stats]))
    origin = [(stat := source.stat()).st_size, stat.st_mtime_ns] if drawn else None
    return [dataset.classes.names, rows, origin]

"""Where the images to learn from and the images to score on lie, and opening them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from tagmask.config import Config
from tagmask.data import TagDataset, find_kind, open_dataset, scan_dataset
from tagmask.data.base import Scan, Source
from tagmask.errors import ConfigError, DataError

__all__ = ["DataConfig", "Part", "data_state", "find_part", "has_masks", "open_part"]

Part = Literal["auto", "train", "val", "both"]
"""Which images: to learn from, to score on, one after the other, or "auto"."""


class DataConfig(Config):
    """Images, their tags, and masks for scoring."""

    root: Path | None = None
    """Folder of the data set."""
    kind: str = "auto"
    """Kind of data set: folder, voc, coco, or auto to tell by the look of the root."""
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
    cache: Literal["none", "memory"] = "none"
    """With "memory", decoded images are kept."""

    def source(self, part: Part, masks: bool) -> Source:
        """Where one part lies.

        Raises:
            ConfigError: No folder was given.
        """
        if self.root is None:
            raise ConfigError("say where the images are: --data DIR (or data.root in the recipe)")
        val = part == "val"
        return Source(
            root=(self.val_root or self.root) if val else self.root,
            split=(self.val_split or "val") if val else self.split or self._usual_split(self.root),
            masks=masks,
            tags=(self.val_tags or self.tags) if val else self.tags,
            classes=self.classes,
            mask_folder=self.masks,
            mask_values=self.mask_values,
        )

    def _usual_split(self, root: Path) -> str | None:
        """The part to learn from where none is named: "train" of a folder that has one.

        Without this, a folder whose tag file marks images for scoring would be learned from as a whole.
        """
        source = Source(root, "train", tags=self.tags, classes=self.classes)
        if (find_kind(source) if self.kind == "auto" else self.kind) != "folder":
            return None
        try:
            scan_dataset("folder", source)
        except DataError:
            return None
        return "train"


def find_part(data: DataConfig, part: Part) -> Part:
    """The part that "auto" means: the one to score on if there is one, else the one to learn from."""
    if part in ("train", "val"):
        return part
    if data.val_root or data.val_split or data.val_tags:
        return "val"
    try:
        scan_dataset(data.kind, data.source("val", masks=False))
    except DataError:
        return "train"
    return "val"


def open_part(data: DataConfig, part: Part, masks: bool = False) -> TagDataset:
    """Open the images of one part.

    Args:
        data: Where everything lies.
        part: "train", "val", "both" of them one after the other, or "auto" for the one to score on if there
            is one.
        masks: Open the true masks too; for scoring only.

    Raises:
        ConfigError: No folder was given, or masks of both parts are asked for.
        DataError: Something is missing, unknown or contradictory.
    """
    if part == "both":
        if masks:
            raise ConfigError("scores belong to one part: choose split train or val, not both")
        return _both(open_part(data, "train"), open_part(data, "auto"))
    s = data.source(find_part(data, part), masks)
    return open_dataset(
        data.kind,
        s.root,
        s.split,
        masks=s.masks,
        tags=s.tags,
        classes=s.classes,
        mask_folder=s.mask_folder,
        mask_values=s.mask_values,
        cache=data.cache,
    )


def _both(first: TagDataset, second: TagDataset) -> TagDataset:
    """Two parts as one; images of both are taken from the first."""
    if first.classes != second.classes:
        raise DataError("the part to learn from and the part to score on have different classes")
    known = set(first.names)
    further = [item for item in second.items if item.name not in known]
    split = f"{first.split}+{second.split}" if further else first.split
    return TagDataset(first.classes, [*first.items, *further], split, about=first.about)


def has_masks(data: DataConfig, part: Part) -> bool:
    """Whether there is a true mask for any image of a part."""
    try:
        scan: Scan = scan_dataset(data.kind, data.source(find_part(data, part), masks=True))
    except DataError:
        # No folder of masks at all; if one was named, its absence is an error.
        if data.masks is not None:
            raise
        return False
    return any(item.mask is not None for item in scan.items)


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

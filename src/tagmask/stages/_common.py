"""What every stage is given: where the data is, where the run lies, what to compute on, what to show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from tagmask.config import Config
from tagmask.data import TagDataset, find_kind, open_dataset, scan_dataset
from tagmask.data.base import Scan, Source
from tagmask.data.loader import eval_images
from tagmask.engine.log import Display
from tagmask.engine.runtime import Runtime
from tagmask.engine.signals import StopSignal
from tagmask.errors import ConfigError, DataError
from tagmask.store.files import digest
from tagmask.types import Batch

__all__ = ["Context", "DataConfig", "Part", "RuntimeConfig", "data_digest", "each_image", "open_part"]

Part = Literal["auto", "train", "val", "both"]


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


class RuntimeConfig(Config):
    """Where and how to compute; the same for every stage of a run."""

    device: str = "auto"
    """Where to compute: auto (CUDA, then MPS, then CPU), cpu, mps, cuda or cuda:1."""
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """bf16 and fp16 compute in half precision where it is safe; weights stay fp32."""
    seed: int = Field(default=0, ge=0)
    """Everything random follows from it."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads; the environment decides if not given. Bit-equal runs need the same number."""
    deterministic: bool = False
    """Refuse algorithms whose results vary from run to run; slower on GPUs."""

    def create(self) -> Runtime:
        """Start computing.

        Raises:
            ConfigError: The device is not here, or cannot do the precision.
        """
        return Runtime.create(self.device, self.precision, self.seed, self.threads, self.deterministic)


@dataclass(frozen=True)
class Context:
    """What a stage works with.

    Attributes:
        folder: The run folder.
        runtime: Device, precision, processes.
        display: Progress.
        data: The data set.
    """

    folder: Path
    runtime: Runtime
    display: Display
    data: DataConfig


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


def data_digest(dataset: TagDataset) -> str:
    """Checksum of names, tags, and sizes and dates of the image files, and of the masks if they are open."""
    rows = []
    source = Path(dataset.about.get("tags", ""))
    drawn = dataset.about.get("kind") == "coco" and source.is_file()
    for item in dataset.items:
        # Masks that a data set draws when they are asked for may not be there yet.
        masks = [item.mask] if dataset.masks and item.mask is not None and not drawn else []
        stats = [file.stat() for file in (item.image, *masks)]
        rows.append((item.name, item.tags, [(stat.st_size, stat.st_mtime_ns) for stat in stats]))
    origin = [(stat := source.stat()).st_size, stat.st_mtime_ns] if drawn else None
    return digest([dataset.classes.names, rows, origin])


def each_image(
    context: Context,
    dataset: TagDataset,
    title: str,
    outputs: Callable[[str], Sequence[Path]],
    work: Callable[[int, Batch], None],
) -> None:
    """Do `work` for every image whose outputs are not there yet; processes share the images.

    Args:
        context: The run.
        dataset: The images.
        title: What the display says.
        outputs: Files `work` writes for an image name.
        work: (index in `dataset`, batch of one on the device).

    Raises:
        Stopped: A stop signal came; what is done is on disk.
        DataError: An image cannot be read.
    """
    runtime = context.runtime
    todo = [i for i, name in enumerate(dataset.names) if not all(p.exists() for p in outputs(name))]
    if not todo:
        return
    left, done = dataset.subset(todo), len(dataset) - len(todo)
    with StopSignal() as stop, context.display.task(title, len(dataset), done) as task:
        for position, batch in eval_images(left, runtime.rank, runtime.world, prefetch=1):
            work(todo[position], batch.to(runtime.device))
            task.advance(runtime.world)
            stop.check(f"{title} stopped; finished images are kept")

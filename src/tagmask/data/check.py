"""Look through a whole data set and report everything that is wrong with it, each by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tagmask.data import find_kind, make_source, scan_dataset
from tagmask.data.base import Item, Problem, Scan, Source
from tagmask.data.datasets.given import Tags, tag_file
from tagmask.data.holdout import FEWEST, hold_out
from tagmask.data.levels import Bands, PixelRange, Reading, choose_reading
from tagmask.data.readers.images import read_image, turned_unseen
from tagmask.data.tag_notes import tag_notes
from tagmask.errors import DataError, UserError
from tagmask.names import deprecated

__all__ = ["CheckReport", "check"]

Progress = Callable[[int, int], None]
_UNSHOWN = "tag without mask"


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes:
        root: The folder.
        kind: Which kind of data set it is.
        split: Which part was checked.
        num_images: Listed images that exist.
        num_masks: Masks that were read; 0 if none were looked for.
        classes: Images per class, in class order.
        negatives: Images tagged with no class.
        untagged: Images nobody tagged.
        smallest: (height, width) of the image with the fewest pixels; None if no image could be read.
        largest: The same for the most pixels.
        problems: Everything found, errors first.
        about: Where images, tags and masks were found.
        held_out: How many images a run holds out for scoring tags; None where the data names
            its parts, or one part was checked.
    """

    root: Path
    kind: str
    split: str
    num_images: int
    num_masks: int
    classes: Mapping[str, int]
    negatives: int
    untagged: int
    smallest: tuple[int, int] | None
    largest: tuple[int, int] | None
    problems: tuple[Problem, ...]
    about: Mapping[str, str]
    held_out: int | None = None

    @property
    def ok(self) -> bool:
        """Whether the data set can be used as it is; notes do not count."""
        return not any(problem.fatal for problem in self.problems)

    def text(self, limit: int = 20) -> str:
        """The report for people.

        Args:
            limit: Lines per kind of problem; the rest is counted.
        """
        lines = [f"{self.root}: {self.kind}, split {self.split}, {self.num_images} images"]
        lines += [f"  {key}: {value}" for key, value in self.about.items() if key != "kind"]
        lines += [f"  splits: {self._splits()}"] if self.held_out is not None else []
        if self.smallest and self.largest:
            low, high = (f"{width} x {height}" for height, width in (self.smallest, self.largest))
            lines.append(f"  sizes: {low} to {high} (width x height)")
        width = max((len(name) for name in self.classes), default=0)
        lines.append(f"{len(self.classes)} classes (label, name, images):")
        lines += [f"  {k:>3}  {name:<{width}}  {n}" for k, (name, n) in enumerate(self.classes.items(), 1)]
        lines.append(f"images without any class: {self.negatives}; never tagged: {self.untagged}")
        lines.append(f"masks read: {self.num_masks}")
        for fatal, title in ((True, "problems"), (False, "notes")):
            chosen = [problem for problem in self.problems if problem.fatal == fatal]
            lines.append(f"{title}: {len(chosen) or 'none'}")
            for kind, count in Counter(problem.kind for problem in chosen).items():
                lines.append(f"  {kind}: {count}")
                of_kind = [problem for problem in chosen if problem.kind == kind]
                lines += [f"    {problem.name}: {problem.detail}" for problem in of_kind[:limit]]
                lines += [f"    ... and {count - limit} more"] if count > limit else []
        return "\n".join(lines)

    def _splits(self) -> str:
        """What a run does with data that names no parts."""
        tagged = self.num_images - self.untagged
        if not self.held_out:
            held = f"of {FEWEST} or more, a tenth is held out for scoring tags"
            return f"none named; all images are used for training ({held})"
        return (
            f"none named; {self.held_out} of {tagged} images are held out for scoring tags "
            "(--no-holdout trains on all); all images get masks"
        )


@deprecated("0.2", arguments={"mask_folder": "masks"})
def check(
    root: str | Path,
    kind: str = "auto",
    split: str | None = None,
    *,
    masks: bool | str | Path | None = None,
    tags: Tags | None = None,
    classes: Sequence[str] | str | Path | None = None,
    mask_values: Mapping[int | str, str] | str | Path | None = None,
    bands: Bands | None = None,
    range: PixelRange | None = None,
    workers: int = 2,
    progress: Progress | None = None,
) -> CheckReport:
    """Read every image of a data set, and its masks, and report what is wrong.

    Args:
        root: Folder of the data set; this and the next arguments are as in `tagmask.data.open_dataset`.
        kind: Kind of data set, or "auto".
        split: Part to check; None for all there is.
        masks: True needs a mask for every image, False leaves masks alone, None reads those there are; a
            folder reads those in it.
        tags: Where tags come from.
        classes: Class names, or a file of them.
        mask_values: What the numbers in masks mean.
        bands: Which bands the network gets, counted from 1, or "all".
        range: What becomes black and white: "percentiles", "file", "full", or two numbers.
        workers: Threads that read.
        progress: Called with (images done, images in all).

    Returns:
        The report; nothing is raised for anything inside the data set.

    Raises:
        DataError: The data set cannot even be listed: no such folder, an unreadable tag file.
    """
    opened = True if masks is None else masks
    with tag_file(tags) as file:
        source = make_source(root, split, opened, file, classes, mask_values)
        name = find_kind(source) if kind == "auto" else kind
        scan = _scan(name, source, optional=masks is not True)
    problems = list(scan.problems)
    reading = _reading(scan, bands, range, problems)
    sizes: list[tuple[int, int]] = []
    num_masks = 0
    with ThreadPoolExecutor(max(1, workers)) as pool:
        looked = pool.map(lambda item: _look(item, scan, reading), scan.items)
        for done, (found, size, read) in enumerate(looked, start=1):
            problems += found
            sizes += [size] if size else []
            num_masks += read
            if progress is not None:
                progress(done, len(scan.items))
    tagged = [item.tags for item in scan.items if item.tags is not None]
    count = Counter(index for indices in tagged for index in indices)
    problems += [*_never_shown(problems, scan, num_masks), *tag_notes(scan.classes, scan.items), *scan.look()]
    problems = list(dict.fromkeys(problems))
    by_area = sorted(sizes, key=lambda size: size[0] * size[1])
    return CheckReport(
        root=source.root,
        kind=name,
        split=scan.split,
        num_images=len(scan.items),
        num_masks=num_masks,
        classes={label: count[k] for k, label in enumerate(scan.classes.names)},
        negatives=sum(1 for indices in tagged if not indices),
        untagged=len(scan.items) - len(tagged),
        smallest=by_area[0] if by_area else None,
        largest=by_area[-1] if by_area else None,
        problems=tuple(sorted(problems, key=lambda problem: not problem.fatal)),
        held_out=len(hold_out(scan.items)) if scan.unsplit and split is None else None,
        about={**scan.about, **({} if reading is None else {"values": reading.text()})},
    )


def _scan(kind: str, source: Source, optional: bool) -> Scan:
    """List the data set; where masks are optional, missing ones become notes."""
    try:
        scan = scan_dataset(kind, source)
    except DataError:
        if not (optional and source.masks):
            raise
        # Perhaps only the masks are to blame; if not, the same message comes again.
        return scan_dataset(kind, replace(source, masks=False))
    if not optional:
        return scan
    notes = tuple(replace(p, fatal=p.fatal and p.kind != "missing mask") for p in scan.problems)
    return replace(scan, problems=notes)


def _reading(
    scan: Scan, bands: Bands | None, wanted: PixelRange | None, problems: list[Problem]
) -> Reading | None:
    """How a run would read the images; what forbids it is a problem of all of them."""
    try:
        return choose_reading([(item.image, item.part) for item in scan.items], bands, wanted)
    except UserError as error:
        problems.append(Problem("unclear values", f"{len(scan.items)} images", str(error)))
        return None


def _look(
    item: Item, scan: Scan, reading: Reading | None
) -> tuple[list[Problem], tuple[int, int] | None, int]:
    """Problems of one image and its mask, the image's size, and how many masks were read (0 or 1)."""
    found: list[Problem] = []
    size: tuple[int, int] | None = None
    try:
        pixels = read_image(item.image) if reading is None else reading.picture(item.image, item.part)
        size = (pixels.shape[0], pixels.shape[1])
    except DataError as error:
        found.append(Problem("unreadable image", item.name, str(error)))
    if item.mask is None:
        return found, size, 0
    try:
        mask = scan.read_mask(item.mask)
    except DataError as error:
        found.append(Problem("unusable mask", item.name, str(error)))
        return found, size, 0
    found += _compare(item, mask, size, scan)
    with suppress(DataError):  # what Pillow does not read has no such tag
        if turned_unseen(item.image):
            detail = "its EXIF tag turns it; its mask is taken to fit the upright picture, as viewers show it"
            found.append(Problem("image turned by its camera", item.name, detail, fatal=False))
    return found, size, 1


def _compare(
    item: Item, mask: NDArray[np.uint8], size: tuple[int, int] | None, scan: Scan
) -> Iterator[Problem]:
    if size is not None and mask.shape != size:
        detail = f"mask is {mask.shape[1]} x {mask.shape[0]}, image {size[1]} x {size[0]}"
        yield Problem("mask of another size", item.name, detail)
    labels = np.flatnonzero(np.bincount(mask.reshape(-1), minlength=256))
    present = {int(label) - 1 for label in labels if 0 < label < scan.classes.ignore_index}
    if item.tags is not None and present - set(item.tags):
        names = ", ".join(scan.classes.names[k] for k in sorted(present - set(item.tags)))
        yield Problem("mask without tag", item.name, f"the mask shows {names}, the tags do not", fatal=False)
    if item.tags is not None and set(item.tags) - present:
        names = ", ".join(scan.classes.names[k] for k in sorted(set(item.tags) - present))
        yield Problem(_UNSHOWN, item.name, f"the tags say {names}, the mask does not show it", fatal=False)


def _never_shown(problems: Sequence[Problem], scan: Scan, num_masks: int) -> Iterator[Problem]:
    """Classes that tags name and not one mask shows: perhaps the masks are numbered in another way."""
    unshown = {problem.name for problem in problems if problem.kind == _UNSHOWN}
    told = [item for item in scan.items if item.mask is not None and item.tags]
    if num_masks and told and all(item.name in unshown for item in told):
        detail = (
            f"none of {num_masks} masks shows all that its tags say; compare the mask values above, and name "
            "others in mask_values.json"
        )
        yield Problem("masks and tags differ", f"{len(told)} images", detail, fatal=False)

"""What a data set is: named images with tags, and masks that only an evaluation can open."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tagmask.data.classes import ClassTable
from tagmask.data.levels import Reading, for_people
from tagmask.data.readers.images import read_image, read_size
from tagmask.data.readers.pixels import pixel_size
from tagmask.errors import DataError

__all__ = ["Item", "Problem", "Scan", "Source", "TagDataset"]


@dataclass(frozen=True)
class Item:
    """One image of a data set.

    Attributes:
        name: Unique in the data set; "/" separates sub-folders, no file ending. Names the outputs.
        image: The picture file.
        tags: 0-based classes in the image, ascending; empty for a negative image, None if nobody said.
        mask: File of the true mask; None if there is none.
        part: Which slice, where the file is a stack of them.
    """

    name: str
    image: Path
    tags: tuple[int, ...] | None
    mask: Path | None = None
    part: int | None = None


@dataclass(frozen=True)
class Problem:
    """Something wrong with a data set.

    Attributes:
        kind: Group it is reported in, for example "missing image".
        name: The image, file or row it is about.
        detail: What came, what is allowed, what to do.
        fatal: Whether the data set cannot be opened with it; otherwise a note of the check.
    """

    kind: str
    name: str
    detail: str
    fatal: bool = True


@dataclass(frozen=True)
class Source:
    """Where a data set lies and how to read it: what the caller of `open_dataset` said.

    Attributes:
        root: Folder of the data set.
        split: Which part of it; None for all there is.
        masks: Whether true masks may be read (evaluation only).
        tags: Where the tags come from instead of the usual place: a file, or a word the kind knows.
        classes: Class names, or a file with one a line, instead of the data set's own.
        mask_folder: Folder of the masks instead of the usual place.
        mask_values: What the numbers in the mask files mean, see `tagmask.data.readers.masks.MaskValues`.
    """

    root: Path
    split: str | None = None
    masks: bool = False
    tags: str | Path | None = None
    classes: Sequence[str] | str | Path | None = None
    mask_folder: Path | None = None
    mask_values: Mapping[int | str, str] | str | Path | None = None


@dataclass(frozen=True)
class Scan:
    """What a kind of data set found at a source.

    Attributes:
        classes: The classes.
        items: Everything usable, in the order of the list.
        split: Name of the part that was read.
        problems: What is wrong; one fatal problem forbids opening.
        read_mask: Labels of a mask file, (H, W) uint8 in the classes' numbering.
        about: Where things came from, for logs and result files.
        home: Where the data set itself begins, if that is not the folder that was named; may be a link.
        look: Finds what a closer look at the folders shows, for the check; not needed to open the data set.
        unsplit: Whether nothing says which images to learn from and which to score on.
    """

    classes: ClassTable
    items: tuple[Item, ...]
    split: str
    problems: tuple[Problem, ...]
    read_mask: Callable[[Path], NDArray[np.uint8]]
    about: Mapping[str, str] = field(default_factory=dict)
    home: Path | None = None
    look: Callable[[], Sequence[Problem]] = tuple
    unsplit: bool = False


class TagDataset:
    """Images with tags. Masks can be read only if the data set was opened for evaluation.

    Args:
        classes: The K foreground classes.
        items: The images; names must be unique.
        split: Name of the part this is.
        masks: True allows `mask`. Training opens without, so no truth can leak into it.
        read_mask: How to read a mask file; needed with `masks`.
        about: Where things came from, for logs and result files.
        keep_decoded: Keep every decoded image in memory (per process); for sets that fit.
        reading: How the numbers of files become levels; None for 8-bit pictures.

    Raises:
        DataError: Two items share a name, or there are none.
    """

    def __init__(
        self,
        classes: ClassTable,
        items: Sequence[Item],
        split: str,
        masks: bool = False,
        *,
        read_mask: Callable[[Path], NDArray[np.uint8]] | None = None,
        about: Mapping[str, str] | None = None,
        keep_decoded: bool = False,
        reading: Reading | None = None,
    ) -> None:
        self.classes = classes
        self.reading = reading
        self.items = tuple(items)
        self.split = split
        self.about = dict(about or {})
        self.masks = masks
        self._read_mask = read_mask
        self._decoded: dict[tuple[int, int | None], NDArray[np.uint8]] | None = {} if keep_decoded else None
        self._index = {item.name: i for i, item in enumerate(self.items)}
        if not self.items:
            raise DataError(f"split '{split}' holds no images")
        if len(self._index) != len(self.items):
            raise DataError(f"split '{split}' has images that share a name; give every image its own")

    def __len__(self) -> int:
        return len(self.items)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all images, in order."""
        return tuple(item.name for item in self.items)

    @property
    def num_classes(self) -> int:
        """K, the number of foreground classes."""
        return self.classes.num_classes

    def subset(self, indices: Iterable[int], split: str | None = None) -> TagDataset:
        """The same data set with some of its images, in the order given.

        Args:
            indices: Which images.
            split: Name of the part they are; that of the whole if None.

        Raises:
            DataError: No index was given, or one twice.
        """
        return self.with_items([self.items[i] for i in indices], split)

    def with_items(self, items: Sequence[Item], split: str | None = None) -> TagDataset:
        """Other images, read as those of this data set are.

        Args:
            items: The images.
            split: Name of the part they are; that of this one if None.

        Raises:
            DataError: There are none, or two share a name.
        """
        return TagDataset(
            self.classes,
            items,
            split or self.split,
            self.masks,
            read_mask=self._read_mask,
            about=self.about,
            keep_decoded=self._decoded is not None,
            reading=self.reading,
        )

    def position(self, name: str) -> int:
        """Index of a named image.

        Raises:
            DataError: There is no such image.
        """
        if name not in self._index:
            raise DataError(f"no image named '{name}' in split '{self.split}' ({len(self)} images)")
        return self._index[name]

    def image(self, index: int, max_side: int | None = None) -> NDArray[np.uint8]:
        """RGB pixels, (H, W, 3) uint8, upright; shrunk to `max_side` if given. With `data.bands`, (H, W, C).

        Raises:
            DataError: The file cannot be decoded; the message names it.
        """
        if self._decoded is None:
            return self._read(index, max_side)
        key = (index, max_side)
        if key not in self._decoded:
            self._decoded[key] = self._read(index, max_side)
        return self._decoded[key]

    def _read(self, index: int, max_side: int | None) -> NDArray[np.uint8]:
        item = self.items[index]
        if self.reading is None:
            return read_image(item.image, max_side=max_side)
        return self.reading.picture(item.image, item.part, max_side=max_side)

    def picture(self, index: int, max_side: int | None = None) -> NDArray[np.uint8]:
        """The image as people see it, (H, W, 3) uint8: see `image`."""
        return for_people(self.image(index, max_side))

    @property
    def pixels(self) -> dict[str, Any]:
        """What a model's header says about its reading; nothing for 8-bit pictures."""
        return {} if self.reading is None else {"pixels": self.reading.as_values()}

    @property
    def channels(self) -> int:
        """C of the images, 3 unless `data.bands` says otherwise."""
        return 3 if self.reading is None else self.reading.channels

    def has_tags(self, index: int) -> bool:
        """Whether somebody said what is in the image (a negative image has tags: none)."""
        return self.items[index].tags is not None

    def tags(self, index: int) -> Tensor:
        """Image-level labels, 0 or 1, float32, (K,).

        Raises:
            DataError: The image was never tagged.
        """
        item = self.items[index]
        if item.tags is None:
            raise DataError(f"'{item.name}' has no tags; they are needed here")
        result = torch.zeros(self.num_classes)
        result[list(item.tags)] = 1.0
        return result

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of an image, from its header."""
        item = self.items[index]
        return read_size(item.image) if self.reading is None else pixel_size(item.image)

    def mask(self, index: int) -> NDArray[np.uint8]:
        """True labels, (H, W) uint8: 0 background, k + 1 class k, 255 ignore.

        Raises:
            DataError: The data set was opened without masks, there is none, it cannot be decoded, holds
                other labels, or is not of the image's size.
        """
        if not self.masks or self._read_mask is None:
            raise DataError("masks are for evaluation: this data set was opened without them (masks=True)")
        item = self.items[index]
        if item.mask is None:
            raise DataError(f"'{item.name}' has no mask")
        mask = self._read_mask(item.mask)
        expected = self.size(index)
        if mask.shape != expected:
            raise DataError(
                f"{item.mask} is {mask.shape[1]} x {mask.shape[0]} but its image {item.image} is "
                f"{expected[1]} x {expected[0]}; masks must match their images pixel by pixel"
            )
        return mask

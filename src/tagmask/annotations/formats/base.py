"""What every format is given: label images going out; files, classes and image sizes coming in."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tagmask.annotations.formats.matching import Names
from tagmask.data.classes import ClassTable
from tagmask.data.readers.plain import parse_json
from tagmask.errors import DataError, nearest

__all__ = [
    "BOXES", "EMPTY", "SKIPPED", "UNTOUCHED", "Found", "Images", "Labelled", "Mask", "Put", "Tally",
    "Tree", "as_json", "blank", "label_of", "read_json",
]  # fmt: skip

Mask = NDArray[np.uint8]
Put = Callable[[str, bytes], None]
"""Takes a path inside the result ("/" between folders) and the file's content."""
Found = tuple[str, Mask]
"""Name of an image and its labels, (H, W) uint8."""
UNTOUCHED, SKIPPED, BOXES = "without annotation", "skipped", "with boxes only"
EMPTY = "with shapes that cover no pixel"
"""Why nobody's labels were found for an image."""
_BACKGROUND = ("background", "_background_")
_IGNORE = ("__ignore__",)


@dataclass(frozen=True)
class Labelled:
    """One image with its labels, on the way out.

    Attributes:
        name: Name of the image, no ending, "/" between folders.
        file: File name of the picture below the image folder, with ending.
        mask: Labels, (H, W) uint8: 0 background, k + 1 class k, 255 ignore.
    """

    name: str
    file: str
    mask: Mask


class Tree(Protocol):
    """The files of a folder or an archive, on the way in."""

    @property
    def names(self) -> Sequence[str]:
        """Paths of the files, "/" between folders."""

    def read(self, name: str) -> bytes:
        """Content of one of them."""


@dataclass
class Tally:
    """What reading some annotations came upon besides labels.

    Attributes:
        left: Image, as far as it is known, to why it was left out.
        said: Sentences that a person should read.
        outlines: How many outlines were drawn.
        rectangles: How many of them have four corners and right angles.
    """

    left: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    outlines: int = 0
    rectangles: int = 0

    def outline(self, corners: NDArray[np.floating]) -> None:
        """Count an outline, (n, 2), and whether it is a rectangle, turned or not."""
        self.outlines += 1
        sides = np.diff(np.concatenate([corners, corners[:1]]), axis=0)
        if len(sides) == 5 and not sides[-1].any():
            sides = sides[:-1]
        across = np.abs((sides * np.roll(sides, 1, axis=0)).sum(1))
        lengths = np.hypot(*sides.T) * np.hypot(*np.roll(sides, 1, axis=0).T)
        self.rectangles += len(sides) == 4 and bool((across <= 0.02 * lengths + 1e-9).all())

    def text(self) -> str:
        """What was left out, in words; empty if nothing was."""
        counts = Counter(self.left.values())
        return ", ".join(f"{counts[why]} {why}" for why in sorted(counts))


@dataclass(frozen=True)
class Images:
    """The images that annotations may be about.

    Attributes:
        classes: What labels mean here.
        sizes: Name of an image to a function that gives its (height, width).
        files: Name of an image to its path below the image folder, with ending, where that is known.
        empty: Images that are background all over if nobody drew anything on them; None means all.
        tally: Takes what was left out.
    """

    classes: ClassTable
    sizes: Mapping[str, Callable[[], tuple[int, int]]]
    files: Mapping[str, str] = field(default_factory=dict)
    empty: frozenset[str] | None = frozenset()
    tally: Tally = field(default_factory=Tally)
    names: Names = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", Names({name: self.files.get(name, name) for name in self.sizes}))

    def untouched(self, name: str | None, written: str, why: str = UNTOUCHED) -> Iterator[Found]:
        """An image on which nobody drew anything: left out, or background if it was asked for by name.

        Args:
            name: The image; None if it is none of ours, which does not matter where nothing was drawn.
            written: What the file calls it.
            why: One of `UNTOUCHED`, `SKIPPED`, `BOXES` and `EMPTY`.
        """
        if name is None:
            self.tally.left[written] = why
            return
        if self.empty is None or name in self.empty:
            yield name, blank(self, name)
        else:
            self.tally.left[name] = why

    def find_touched(self, written: str, where: str, touched: bool, bare: bool = False) -> str | None:
        """The image that a file name is about; None if it is none of ours and nothing was drawn on it.

        Raises:
            DataError: There is no such image, or several fit, and something was drawn.
        """
        try:
            return self.names.upload(written, where, bare)
        except DataError:
            if touched:
                raise
            return None

    def check_size(self, name: str, height: Any, width: Any, where: str) -> None:
        """Compare a size that a file declares with the image's.

        Raises:
            DataError: They differ, or it is no size. None declares nothing.
        """
        if height is None or width is None:
            return
        own = tuple(self.sizes[name]())
        try:
            said = float(height), float(width)
        except (TypeError, ValueError):
            raise DataError(f"{where} declares the size {width!r} x {height!r}, which is none") from None
        if said != own:
            raise DataError(
                f"{where} is {width} x {height}, but its image {own[1]} x {own[0]}; annotate the picture "
                "itself, or import with the pictures that were annotated"
            )


def label_of(classes: ClassTable, name: str, where: str) -> int:
    """Label of a class name as a tool wrote it.

    0 for the names tools have for the background, the ignore value for LabelMe's ``__ignore__``.

    Raises:
        DataError: It is none of these; the message suggests the nearest class.
    """
    forms = {unicodedata.normalize("NFC", known): k for k, known in enumerate(classes.names, 1)}
    form = unicodedata.normalize("NFC", name)
    if name in classes.names:
        return classes.names.index(name) + 1
    if form in forms:
        return forms[form]
    if name.lower() in _BACKGROUND:
        return 0
    if name.lower() in _IGNORE:
        return classes.ignore_index
    raise DataError(f"{where}: '{name}' is not a class. {nearest(name, classes.names)}")


def blank(images: Images, name: str) -> Mask:
    """All background, in the size of an image."""
    return np.zeros(images.sizes[name](), np.uint8)


def read_json(tree: Tree, name: str) -> Any:
    """A JSON file.

    Raises:
        DataError: It is not JSON.
    """
    try:
        return parse_json(tree.read(name).decode("utf-8-sig"))
    except ValueError as error:
        raise DataError(f"{name} is not JSON ({str(error)[:160]})") from None


def as_json(values: Any, indent: int | None = None) -> bytes:
    """Plain values as the content of a JSON file."""
    return (json.dumps(values, ensure_ascii=False, indent=indent) + "\n").encode()

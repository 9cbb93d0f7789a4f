"""What the labels mean: names, colours and the ignore value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tagmask.data.readers.regular import read_text
from tagmask.errors import DataError, nearest
from tagmask.names import deprecated
from tagmask.types import IGNORE

__all__ = [
    "CLASS_COLOURS",
    "VOC_CLASSES",
    "ClassTable",
    "class_file",
    "class_palette",
    "class_table",
    "read_class_file",
    "voc_palette",
]

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""PASCAL VOC's 20 classes in the order of its masks (aeroplane is 1)."""

CLASS_COLOURS = (
    "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#8800FF", "#663311",
    "#222299", "#AAFF88", "#553366", "#88BB66", "#BB55FF", "#00EEAA", "#882244", "#886633", "#8811CC",
    "#CCDDFF", "#AA1199", "#FF0044", "#EEAACC", "#EE3366", "#BBDD55", "#9999FF", "#BB2200", "#994477",
    "#660077", "#7777DD", "#004433", "#FF7788", "#DD00CC", "#00CC99", "#BBBB55", "#66CC22", "#99DD88",
)  # fmt: skip
"""Colours of the first 36 classes, wherever a class is drawn.

Okabe and Ito's seven, then each the colour farthest from all before it, and from black and white, to the eye
that misses it most: any two are at least 11 apart in CIELAB for full colour vision, protanopia, deuteranopia
and tritanopia as Machado et al. (2009) simulate them.
"""

_BACKGROUND = ("background", "_background_")
_IGNORE = "__ignore__"


@dataclass(frozen=True)
class ClassTable:
    """Foreground classes of a data set; label 0 is background and label k + 1 is `names[k]`.

    Attributes:
        names: The K class names, unique, without the background.
        ignore_index: Label of pixels that count nowhere.

    Raises:
        DataError: There are no names, more than 254, or one is empty, repeated, holds a line break, or is a
            name for the background or for ignored pixels.
    """

    names: tuple[str, ...]
    ignore_index: int = IGNORE

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= 254:
            raise DataError(f"{len(self.names)} classes given; 1 to 254 are possible (labels are one byte)")
        seen: set[str] = set()
        for name in self.names:
            if not name.strip() or name != name.strip():
                raise DataError(f"class name {name!r} is empty or has blanks around it")
            if any(mark in name for mark in "\n\r\0"):
                raise DataError(f"class name {name!r} holds a line break or a zero byte; rename it")
            if name.lower() in _BACKGROUND:
                raise DataError(
                    f"'{name}' is label 0 of every data set; leave it out of the class names: the first is "
                    "label 1"
                )
            if name == _IGNORE:
                raise DataError(f"'{name}' is label 255 of every data set; leave it out of the class names")
            if name in seen:
                raise DataError(f"class '{name}' is named twice")
            seen.add(name)

    @property
    @deprecated("0.2", instead="ClassTable.ignore_index")
    def ignore(self) -> int:
        """The old name of `ignore_index`."""
        return self.ignore_index

    @property
    def num_classes(self) -> int:
        """K, the number of foreground classes."""
        return len(self.names)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of all K + 1 labels, the background first."""
        return ("background", *self.names)

    @property
    def palette(self) -> NDArray[np.uint8]:
        """(256, 3) colour of each label value, see `class_palette`."""
        return class_palette()

    def index(self, name: str) -> int:
        """0-based class index of a name.

        Raises:
            DataError: The name is unknown; the message suggests the nearest one.
        """
        try:
            return self.names.index(name)
        except ValueError:
            raise DataError(f"'{name}' is not a class. {nearest(name, self.names)}") from None


def class_palette() -> NDArray[np.uint8]:
    """RGB of every label value, (256, 3): black, then `CLASS_COLOURS` over and over, VOC's border for 255."""
    return _made_palette().copy()


@lru_cache(maxsize=1)
def _made_palette() -> NDArray[np.uint8]:
    palette = np.zeros((256, 3), np.uint8)
    colours = [[int(text[i : i + 2], 16) for i in (1, 3, 5)] for text in CLASS_COLOURS]
    palette[1:] = np.resize(np.asarray(colours, np.uint8), (255, 3))
    palette[IGNORE] = 224, 224, 192
    return palette


def voc_palette(num_colours: int = 256) -> NDArray[np.uint8]:
    """PASCAL VOC's colours, (num_colours, 3): bit 3j + c of a label is bit 7 - j of colour channel c."""
    labels = np.arange(num_colours)
    palette = np.zeros((num_colours, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((labels >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return palette


def class_file(names: Iterable[str]) -> str:
    """The text of a class file, which `read_class_file` reads back as the same names."""
    return "".join(f"\\{name}\n" if _escaped(name) else f"{name}\n" for name in names)


def _escaped(name: str) -> bool:
    """Whether a name would be read as a comment, or as a name that was escaped."""
    return _is_comment(name) or (name.startswith("\\") and _escaped(name[1:]))


def _is_comment(line: str) -> bool:
    return line == "#" or line.startswith(("# ", "#\t"))


def read_class_file(path: str | Path) -> ClassTable:
    """Classes from a text file, one name a line.

    Blank lines and comments, which begin with "#" and a blank, are skipped; "#1" is a class. A class that
    looks like a comment has a backslash before it.

    Raises:
        DataError: The file cannot be read or the names do not make a class table.
    """
    try:
        lines = read_text(Path(path), encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the class names in {path}: {error}") from None
    names = [line.strip() for line in lines]
    kept = [name for name in names if name and not _is_comment(name)]
    return class_table([name[1:] if name[0] == "\\" and _escaped(name[1:]) else name for name in kept], path)


def class_table(names: Sequence[str] | Iterable[str], where: str | Path) -> ClassTable:
    """A class table whose errors say where the names came from.

    Raises:
        DataError: The names do not make a class table.
    """
    try:
        return ClassTable(tuple(names))
    except DataError as error:
        raise DataError(f"{where}: {error}") from None

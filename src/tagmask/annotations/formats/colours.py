"""``labelmap.txt`` and its like: which colour or number in a picture is which class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tagmask.annotations.formats.base import Tree, label_of
from tagmask.data.classes import ClassTable, class_palette, voc_palette
from tagmask.data.mask_meaning import other_colours
from tagmask.errors import DataError

__all__ = ["LABEL_MAP", "ColourKey", "key_finder", "label_map"]

LABEL_MAP = "labelmap.txt"
_NAMES, _IGNORE = "class_names.txt", "__ignore__"
_LISTS = (LABEL_MAP, _NAMES, "labels.txt", "classes.txt")
_OWN = "the list of classes"
_BLACK, _BORDER = 0, 224 << 16 | 224 << 8 | 192
_PLAIN = ("background", "_background_")


def label_map(classes: ClassTable) -> str:
    """The text of ``labelmap.txt``: a name and VOC's colour for every label."""
    palette = voc_palette()
    rows = [f"{name}:{','.join(map(str, palette[k]))}::" for k, name in enumerate(classes.labels)]
    return "\n".join(["# label:color_rgb:parts:actions", *rows, ""])


@dataclass(frozen=True)
class ColourKey:
    """What the values of pictures mean.

    Attributes:
        classes: What labels mean here.
        file: Where the names come from, for messages.
        names: Names by number.
        colours: Packed colour to the names that have it.
        numbered: Whether indexed and grey pictures hold numbers, whatever their colours.
    """

    classes: ClassTable
    file: str
    names: Sequence[str]
    colours: Mapping[int, Sequence[str]]
    numbered: bool

    def labels(self, picture: Image.Image, file: str) -> tuple[NDArray[np.uint8], bool]:
        """Labels of a picture, (H, W) uint8, and whether it has true colours.

        Raises:
            DataError: It holds a colour or number that no class, or more than one, has.
        """
        if picture.mode == "RGB":
            return self._by_colour(_packed(np.asarray(picture, np.int64)), file), True
        values = np.array(picture, dtype=np.uint8)
        present = np.flatnonzero(np.bincount(values.reshape(-1), minlength=256)).tolist()
        seen_as = self._colours_of(picture)
        if not self.numbered and all(self._knows(seen_as[value], value) for value in present):
            table = np.zeros(256, np.int64)
            for value in present:
                table[value] = seen_as[value]
            return self._by_colour(table[values], file), False
        if self.numbered and picture.mode == "P":
            self._refuse_other_colours(picture, present, file)
        table = np.zeros(256, np.int64)
        for value in present:
            table[value] = self._number(value, file)
        return table[values].astype(np.uint8), False

    def _refuse_other_colours(self, picture: Image.Image, present: Sequence[int], file: str) -> None:
        palette = np.asarray(picture.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        other = other_colours(palette, present, len(self.names) - 1)
        value = next((value for value in present if (other or {}).get(value, value) != value), None)
        if other is not None and value is not None:
            by_number = self.names[value] if value < len(self.names) else value
            raise DataError(
                f"{file} holds the number {value} in the colour of {other[value]}: it may be "
                f"'{by_number}' or '{self.names[other[value]]}'; "
                f"put a {LABEL_MAP} beside the masks, or save them with the numbers of the classes"
            )

    def _colours_of(self, picture: Image.Image) -> list[int]:
        """Packed colour of every value: that of the palette, or grey."""
        if picture.mode == "1":
            return [0, 0xFFFFFF, *[-1] * 254]
        if picture.mode == "P":
            palette = np.zeros((256, 3), np.int64)
            given = np.asarray(picture.getpalette("RGB") or [], np.int64).reshape(-1, 3)
            palette[: len(given)] = given
            packed: list[int] = _packed(palette).tolist()
            return packed
        return [value << 16 | value << 8 | value for value in range(256)]

    def _knows(self, colour: int, value: int) -> bool:
        return colour in self.colours or (value == 0 and colour == _BLACK) or colour == _BORDER

    def _by_colour(self, packed: NDArray[np.int64], file: str) -> NDArray[np.uint8]:
        values, inverse = np.unique(packed, return_inverse=True)
        table = np.asarray([self._colour(value, file) for value in values.tolist()], np.uint8)
        return np.asarray(table[inverse].reshape(packed.shape))

    def _colour(self, colour: int, file: str) -> int:
        names = self.colours.get(colour, ())
        text = f"{colour >> 16},{colour >> 8 & 255},{colour & 255}"
        found = {label_of(self.classes, name, self.file) for name in names}
        if colour == _BLACK and found - {0} and not any(name.lower() in _PLAIN for name in self.names):
            raise DataError(
                f"{file} holds black, which {self.file} gives to '{names[0]}' and to no background: it may "
                f"be '{names[0]}' or what nobody marked. Give '{names[0]}' another colour, or add a line for "
                "the background, such as 'background:1,1,1::'"
            )
        if len(found) > 1:
            raise DataError(
                f"{file} holds the colour {text}, which {self.file} gives to {' and '.join(names)}; "
                "give every class a colour of its own and export again"
            )
        if found:
            return found.pop()
        if colour == _BLACK:
            return 0
        if colour == _BORDER:
            return self.classes.ignore_index
        raise DataError(f"{file} holds the colour {text}, which {self.file} gives to no class")

    def _number(self, value: int, file: str) -> int:
        if value == self.classes.ignore_index:
            return self.classes.ignore_index
        if self.names and not any(name.lower() in _PLAIN for name in self.names):
            raise DataError(
                f"{file} holds the number {value}, and {self.file} has no background: 0 may be "
                f"'{self.names[0]}' or the background (then 1 is '{self.names[0]}'). Add the line "
                "'background:0,0,0::' to it, where the background belongs"
            )
        if value >= len(self.names):
            raise DataError(
                f"{file} holds labels that no class has ({value}); allowed are 0 to {len(self.names) - 1} "
                "and 255"
            )
        return label_of(self.classes, self.names[value], self.file)


def key_finder(tree: Tree, classes: ClassTable) -> Callable[[str], ColourKey]:
    """Gives the key of a picture: the one in the folder nearest above it.

    A key is ``labelmap.txt``, or a list of names in the order of numbers: ``class_names.txt``, or a
    ``labels.txt`` or ``classes.txt`` that names nothing but classes. Without any, numbers follow the classes.

    Raises:
        DataError: A line of one cannot be read; or, from the function, several are elsewhere and none above.
    """
    keys: dict[PurePosixPath, ColourKey] = {}
    for last in _LISTS:
        for file in (name for name in tree.names if PurePosixPath(name).name == last):
            key = _read_key(tree.read(file).decode("utf-8-sig", "replace"), file, classes)
            if key is not None:
                keys.setdefault(PurePosixPath(file).parent, key)
    plain = None if keys else _numbered(classes.labels, _OWN, classes)

    def find(file: str) -> ColourKey:
        if plain is not None:
            return plain
        for folder in PurePosixPath(file).parents:
            if folder in keys:
                return keys[folder]
        if len(keys) > 1:
            raise DataError(f"{file} could follow any of {', '.join(key.file for key in keys.values())}")
        return next(iter(keys.values()))

    return find


def _read_key(text: str, file: str, classes: ClassTable) -> ColourKey | None:
    """A key; None if a list is of something else, or names the classes in their order as we do."""
    last = PurePosixPath(file).name
    if last == LABEL_MAP:
        lines = _label_lines(text, file)
        colours: dict[int, list[str]] = {}
        for name, colour in lines:
            colours.setdefault(colour, []).append(name)
        return ColourKey(classes, file, [name for name, _ in lines], colours, numbered=False)
    names = [line.strip() for line in text.split("\n") if line.strip()]
    if last != _NAMES and ({*names} - {*classes.names, *_PLAIN, _IGNORE} or names == list(classes.names)):
        return None
    # LabelMe counts from its second line where the first is the one for ignored pixels.
    return _numbered([name for name in names if name != _IGNORE], file, classes)


def _numbered(names: Sequence[str], file: str, classes: ClassTable) -> ColourKey:
    by_colour: dict[int, list[str]] = {}
    for palette in (voc_palette(), class_palette()):
        packed: list[int] = _packed(palette.astype(np.int64)).tolist()
        for number, name in enumerate(names[:255]):
            if name not in by_colour.setdefault(packed[number], []):
                by_colour[packed[number]].append(name)
    return ColourKey(classes, file, names, by_colour, numbered=True)


def _label_lines(text: str, file: str) -> list[tuple[str, int]]:
    """Names and packed colours. A class may be called "#1", so only what is no colour line is a comment."""
    found = []
    for line in text.replace("\r\n", "\n").split("\n"):
        try:
            name, colour = line.rsplit(":", 3)[:2]
            red, green, blue = (int(part) for part in colour.split(","))
        except ValueError:
            if not line.strip() or line.startswith("#"):
                continue
            raise DataError(f"{file}: '{line[:60]}' is not 'name:red,green,blue::'") from None
        found.append((name, red << 16 | green << 8 | blue))
    return found


def _packed(rgb: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2])

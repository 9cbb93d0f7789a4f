"""What the numbers in mask files mean, and how to turn them into labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tagmask.data.classes import VOC_CLASSES, ClassTable
from tagmask.data.readers.images import read_indices
from tagmask.data.readers.plain import parse_json
from tagmask.data.readers.regular import read_text
from tagmask.errors import DataError, nearest

__all__ = ["MaskValues", "mask_values"]

_FORBIDDEN = -1
_WORDS = ("background", "ignore", "error")


class MaskValues:
    """A table from the 256 possible file values to labels 0..K and 255.

    Args:
        table: (256,) int16; -1 marks values that must not occur.
        classes: The classes the labels stand for.
    """

    def __init__(self, table: NDArray[np.int16], classes: ClassTable) -> None:
        self._table = table
        self._classes = classes

    @classmethod
    def by_name(cls, file_names: tuple[str, ...], classes: ClassTable) -> MaskValues:
        """Masks that number `file_names` from 1; what is not among `classes` becomes background."""
        table = np.full(256, _FORBIDDEN, np.int16)
        table[[0, 255]] = 0, classes.ignore_index
        for value, name in enumerate(file_names, start=1):
            table[value] = classes.names.index(name) + 1 if name in classes.names else 0
        return cls(table, classes)

    @classmethod
    def from_mapping(cls, mapping: Mapping[int | str, str], classes: ClassTable) -> MaskValues:
        """From {file value: class name}, with "background" and "ignore" as further names.

        The key "other" says what all values not named become ("background", "ignore" or, the default,
        "error"). 0 stays background and 255 stays ignore unless named.

        Raises:
            DataError: A key is no number from 0 to 255, or a name is not a class.
        """
        labels = {"background": 0, "ignore": classes.ignore_index, "error": _FORBIDDEN}
        other = str(mapping.get("other", "error"))
        if other not in _WORDS:
            raise DataError(f"mask values: other is '{other}'. {nearest(other, _WORDS)}")
        table = np.full(256, labels[other], np.int16)
        table[[0, 255]] = 0, classes.ignore_index
        labels |= {name: k + 1 for k, name in enumerate(classes.names)}
        for key, name in mapping.items():
            if key == "other":
                continue
            if not str(key).isdigit() or int(key) > 255:
                raise DataError(f"mask values: '{key}' is no number from 0 to 255 (or the word other)")
            if name not in labels:
                raise DataError(f"mask values: {key} is '{name}', not a class. {nearest(str(name), labels)}")
            table[int(key)] = labels[name]
        return cls(table, classes)

    def text(self) -> str:
        """The table for people: the numbers that may occur and what they mean; "other" is the commonest."""
        labels, ignore = self._classes.labels, self._classes.ignore_index
        said = {value: "ignored" if label == ignore else labels[label] for value, label in self._named()}
        rest = Counter(self._table.tolist()).most_common(1)[0][0]
        others = [value for value in range(256) if self._table[value] == rest]
        listed = [f"{value} {name}" for value, name in said.items() if len(others) < 2 or value not in others]
        if len(others) > 1 and rest != _FORBIDDEN:
            listed.append(f"others {said[others[0]]}")
        return ", ".join(listed)

    def _named(self) -> list[tuple[int, int]]:
        return [(value, label) for value, label in enumerate(self._table.tolist()) if label != _FORBIDDEN]

    def unexpected(self, values: NDArray[np.uint8]) -> list[int]:
        """Values in a mask that must not occur, ascending."""
        present = np.flatnonzero(np.bincount(values.reshape(-1), minlength=256))
        return [int(v) for v in present if self._table[v] == _FORBIDDEN]

    def read(self, path: Path) -> NDArray[np.uint8]:
        """Labels of one mask file, (H, W) uint8.

        Raises:
            DataError: The file cannot be decoded or holds a value outside the table.
        """
        return self.labels(read_indices(path), path)

    def labels(self, values: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
        """Labels for values that came from a file, (H, W) uint8.

        Raises:
            DataError: A value is outside the table; the message names the file.
        """
        wrong = self.unexpected(values)
        if wrong:
            raise DataError(
                f"{path} holds the values {', '.join(map(str, wrong[:5]))}; allowed are 0 to "
                f"{self._classes.num_classes} and {self._classes.ignore_index}. If they mean something else, "
                'say what with mask_values (for example \'voc\', or a file {"8": "cat", ...})'
            )
        return self._table[values].astype(np.uint8)


def mask_values(given: Mapping[int | str, str] | str | Path | None, classes: ClassTable) -> MaskValues:
    """The table a user asked for.

    Args:
        given: None if files hold the labels themselves; "voc" if they hold PASCAL VOC's numbers (classes
            are paired by name, others become background); a mapping as in `MaskValues.from_mapping`; or a
            JSON file that holds such a mapping.
        classes: The classes of the data set.

    Raises:
        DataError: The word, file or mapping cannot be used.
    """
    if given is None:
        return MaskValues.by_name(classes.names, classes)
    if isinstance(given, Mapping):
        return MaskValues.from_mapping(given, classes)
    if str(given) == "voc":
        if not set(classes.names) & set(VOC_CLASSES):
            raise DataError(f"mask values 'voc': no class is one of VOC's. {nearest('', VOC_CLASSES)}")
        return MaskValues.by_name(VOC_CLASSES, classes)
    try:
        loaded = parse_json(read_text(Path(given)))
    except FileNotFoundError:
        raise DataError(f"mask values: '{given}' is neither 'voc' nor a file") from None
    except (OSError, ValueError) as error:
        raise DataError(f"mask values: cannot read {given}: {error}") from None
    if not isinstance(loaded, dict):
        raise DataError(
            f'mask values: {given} must hold one object like {{"8": "cat", "other": "background"}}'
        )
    return MaskValues.from_mapping(loaded, classes)

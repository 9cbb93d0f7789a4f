"""What every format is given: label images going out; files, classes and image sizes coming in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from tagmask.data.classes import ClassTable
from tagmask.errors import DataError, nearest

__all__ = ["Found", "Images", "Labelled", "Put", "Tree", "as_json", "blank", "label_of", "read_json"]

Mask = NDArray[np.uint8]
Put = Callable[[str, bytes], None]
"""Takes a path inside the result ("/" between folders) and the file's content."""
Found = tuple[str, Mask]
"""Name of an image and its labels, (H, W) uint8."""
_BACKGROUND = ("background", "_background_", "__ignore__")


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


@dataclass(frozen=True)
class Images:
    """The images that annotations may be about.

    Attributes:
        classes: What labels mean here.
        sizes: Name of an image to a function that gives its (height, width).
    """

    classes: ClassTable
    sizes: Mapping[str, Callable[[], tuple[int, int]]]
    _by_end: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.sizes:
            self._by_end.setdefault(PurePosixPath(name).name, []).append(name)

    def find(self, written: str, where: str) -> str:
        """The image that a tool's file name or address is about.

        Tools rewrite paths: they drop folders, put an address before them or a prefix before the name.

        Raises:
            DataError: There is no such image, or several fit.
        """
        path = _plain_path(written)
        for name in _candidates(path):
            if name in self.sizes:
                return name
            found = self._by_end.get(PurePosixPath(name).name, [])
            if len(found) == 1:
                return found[0]
            if found:
                raise DataError(f"{where}: '{written}' could be any of {', '.join(sorted(found)[:3])}")
        hint = nearest(PurePosixPath(path).stem, list(self._by_end)[:2000]).split(" Known")[0]
        raise DataError(f"{where}: there is no image for '{written}'. {hint if '?' in hint else ''}".rstrip())


def _plain_path(written: str) -> str:
    """The path in an address such as ``/data/local-files/?d=cats/1.jpg``, or the path itself."""
    parts = urlsplit(written.replace("\\", "/"))
    query = parse_qs(parts.query)
    return unquote(query["d"][0] if "d" in query else parts.path)


def _candidates(path: str) -> list[str]:
    """Names a path may stand for: without its ending, as written, without an upload's prefix."""
    pure = PurePosixPath(path.lstrip("/"))
    names = [pure.with_suffix("").as_posix() if pure.name else path, pure.as_posix()]
    prefix, _, rest = pure.stem.partition("-")
    if rest and len(prefix) == 8:
        names.append(rest)
    return names


def label_of(classes: ClassTable, name: str, where: str) -> int:
    """Label of a class name as a tool wrote it; 0 for the names tools have for the background.

    Raises:
        DataError: It is neither; the message suggests the nearest class.
    """
    if name.lower() in _BACKGROUND:
        return 0
    if name in classes.names:
        return classes.names.index(name) + 1
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
        return json.loads(tree.read(name).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is not JSON ({str(error)[:100]})") from None


def as_json(values: Any, indent: int | None = None) -> bytes:
    """Plain values as the content of a JSON file."""
    return (json.dumps(values, ensure_ascii=False, indent=indent) + "\n").encode()


def listed(names: Iterable[str]) -> str:
    """A few names for a message."""
    chosen = sorted(names)
    return ", ".join(chosen[:3]) + (f" and {len(chosen) - 3} more" if len(chosen) > 3 else "")

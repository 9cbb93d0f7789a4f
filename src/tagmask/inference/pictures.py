"""What a user points at, as pictures one after the other: files, folders, globs, zip archives, films."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

from PIL import Image

from tagmask.data.file_names import unusable
from tagmask.data.levels import Reading
from tagmask.data.readers.archive import FolderTree, ZipTree
from tagmask.data.readers.images import FOREIGN_SUFFIXES, IMAGE_SUFFIXES, MAX_PIXELS, foreign
from tagmask.data.readers.regular import irregular, open_regular
from tagmask.data.readers.stack import AnyPicture
from tagmask.errors import DataError, printable
from tagmask.inference.patterns import fixed_part, is_pattern, matches
from tagmask.inference.reading import one_of_each_series, read_by, whole_kind
from tagmask.inference.video import VIDEO_SUFFIXES, open_frames

__all__ = [
    "OUTPUTS",
    "Broken",
    "Named",
    "Picture",
    "each_picture",
    "own_folders",
    "renamed",
    "stem",
    "whole_name",
]

OUTPUTS = ("masks", "overlays", "confidence", "polygons", "bulk")
"""Folders in the one that prediction writes to."""

AnyNamed = TypeVar("AnyNamed", bound="Named")


@dataclass(frozen=True)
class Named:
    """What every picture is known by.

    Attributes:
        name: Names its outputs; unique, no ending, "/" between folders.
        file: Its path below what was named, with ending.
        source: What messages call it.
        stamp: Changes when the file does.
    """

    name: str
    file: str
    source: str
    stamp: str


@dataclass(frozen=True)
class Picture(Named):
    """A picture to predict.

    Attributes:
        read: Decodes it, mode RGB or levels of more bands; raises DataError where that is impossible.
        kind: What is predicted in one go, see `tagmask.inference.reading.whole_kind`; "" for a picture.
    """

    read: Callable[[], AnyPicture]
    kind: str = ""


@dataclass(frozen=True)
class Broken:
    """Something that cannot be read, and why."""

    source: str
    reason: str


@dataclass(frozen=True)
class _Options:
    max_pixels: int
    every: int
    skip: tuple[Path, ...]
    reading: Reading | None


def each_picture(
    inputs: Sequence[str],
    max_pixels: int = MAX_PIXELS,
    every: int = 1,
    out: Path | None = None,
    reading: Reading | None = None,
) -> Iterator[Picture | Broken]:
    """Everything that some inputs hold; nothing is decoded before `Picture.read` is called.

    Of folders and archives, files whose ending is neither a picture's nor a video's are left out, and so are
    folders that hold a run or predicted masks. Of pictures that differ in their ending only the later keep it
    in their names; what is equal even then is numbered.

    Args:
        inputs: Files, folders, patterns with ``*``, zip archives, videos, animated GIFs.
        max_pixels: Largest declared size that is decoded.
        every: Take every n-th frame of films.
        out: Folder that the masks go to; it is left out of the inputs that it is in.
        reading: How files become levels, as the model remembers it; None for 8-bit pictures.

    Yields:
        Pictures, and what is broken, in the order of the inputs, sorted within each.
    """
    used: set[str] = set()
    options = _Options(max_pixels, every, own_folders(out), reading)
    for given in inputs:
        for found in _from_input(given, options):
            yield renamed(found, used) if isinstance(found, Picture) else found


def own_folders(out: Path | None) -> tuple[Path, ...]:
    """The folders that prediction writes to: nothing in them is an input."""
    return () if out is None else (out, *(out / name for name in OUTPUTS))


def renamed(found: AnyNamed, used: set[str]) -> AnyNamed | Broken:
    """The same under a name that is not used yet, which is then added to the used ones.

    Where the file system takes capitals and small letters for the same, so does this. What no file can be
    called by is broken.
    """
    if (reason := unusable(found.name)) is not None:
        return Broken(printable(found.source), f"has a name that cannot be used: {reason}")
    name, number = found.name, 1
    if _key(name) in used:
        name = stem(f"{found.file}.x")
    while _key(name) in used:
        number += 1
        name = f"{found.name}-{number}"
    used.add(_key(name))
    return found if name == found.name else replace(found, name=name)


def _key(name: str) -> str:
    return name.casefold() if sys.platform in ("win32", "darwin") else name


def _from_input(given: str, options: _Options) -> Iterator[Picture | Broken]:
    path = Path(given)
    if path.is_dir():
        yield from _from_folder(path, options)
    elif path.is_file():
        yield from _from_file(path, path.name, options, alone=True)
    elif is_pattern(given) and not os.path.lexists(given):
        yield from _from_pattern(given, options)
    else:
        yield Broken(printable(given), irregular(path) or "cannot be read")


def _from_pattern(given: str, options: _Options) -> Iterator[Picture | Broken]:
    root = Path(fixed_part(Path(given)))
    found, refused = matches(given, root, options.skip)
    for name, reason in refused:
        yield Broken(printable(str(root / name)), reason)
    if not found and not refused:
        yield Broken(printable(given), "matches no file")
    for name in found:
        yield from _from_file(root / name, name, options, alone=True)


def _from_folder(root: Path, options: _Options) -> Iterator[Picture | Broken]:
    tree = FolderTree(root, options.skip)
    for name, reason in tree.refused:
        yield Broken(printable(str(root / name)), reason)
    for name in one_of_each_series(tree.names):
        suffix = PurePosixPath(name).suffix.lower()
        if whole_kind(root / name) in ("volume", "series", "slide"):
            yield from _from_file(root / name, name, options, alone=False)
        elif suffix in FOREIGN_SUFFIXES:
            yield Broken(printable(str(root / name)), foreign(suffix))
        elif suffix in IMAGE_SUFFIXES or suffix in VIDEO_SUFFIXES:
            yield from _from_file(root / name, name, options, alone=False)


def _from_file(path: Path, file: str, options: _Options, alone: bool) -> Iterator[Picture | Broken]:
    suffix = path.suffix.lower()
    try:
        state = path.stat()
    except OSError as error:
        yield Broken(str(path), f"cannot be read ({error.strerror})")
        return
    stamp = f"{state.st_size}-{state.st_mtime_ns}"
    if alone and suffix == ".zip":
        yield from _from_zip(path, stamp, options)
    elif suffix in VIDEO_SUFFIXES or (alone and suffix == ".gif" and _moves(path)):
        yield from _from_film(path, file, stamp, options)
    else:
        kind = whole_kind(path)
        name = whole_name(path, file, kind, alone)
        read = partial(read_by, options.reading, path, options.max_pixels)
        yield Picture(name, file, str(path), stamp, read, kind)


def whole_name(path: Path, file: str, kind: str, alone: bool) -> str:
    """Name of a picture, or of what is predicted in one go.

    Args:
        path: The file.
        file: Its path below what was named.
        kind: See `tagmask.inference.reading.whole_kind`.
        alone: Whether somebody named this very file.
    """
    if kind != "series" or alone:
        return stem(file)
    # All of its files are one thing, which is called like their folder.
    folder = PurePosixPath(file).parent
    return stem(f"{folder if folder.parts else path.parent.name}.x")


def stem(file: str) -> str:
    """Name without ending; parts that no output could be called by are replaced."""
    file = file[: -len(".gz")] if file.lower().endswith(".nii.gz") else file
    parts = [part for part in PurePosixPath(file).with_suffix("").parts if part not in ("..", "/", ".")]
    return "/".join(parts).replace("\\", "_") or "_"


def _moves(path: Path) -> bool:
    try:
        with open_regular(path) as file, Image.open(file, formats=("GIF",)) as image:
            return bool(getattr(image, "is_animated", False))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def _from_zip(path: Path, stamp: str, options: _Options) -> Iterator[Picture | Broken]:
    try:
        tree = ZipTree(path)
    except DataError as error:
        yield Broken(str(path), str(error))
        return
    for name, reason in tree.refused:
        yield Broken(f"{path}:{name}", reason)
    for name in tree.names:
        if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES:
            source = f"{path}:{name}"

            def read(name: str = name, source: str = source) -> AnyPicture:
                return read_by(options.reading, source, options.max_pixels, content=tree.read(name))

            yield Picture(stem(name), name, source, stamp, read)
    tree.close()


def _from_film(path: Path, file: str, stamp: str, options: _Options) -> Iterator[Picture | Broken]:
    try:
        frames = open_frames(path)
        for number, (name, pixels) in enumerate(frames.pictures):
            if number % options.every == 0:
                place = f"{stem(file)}/{name}"
                yield Picture(
                    place, f"{place}.png", f"{path}:{name}", stamp, partial(Image.fromarray, pixels)
                )
    except DataError as error:
        yield Broken(str(path), str(error))
    except (OSError, RuntimeError, ValueError, SyntaxError, EOFError) as error:
        yield Broken(str(path), f"breaks off ({str(error)[:200] or type(error).__name__})")

"""What a user points at, as pictures one after the other: files, folders, globs, zip archives, films."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath, PurePosixPath
from typing import TypeVar

from PIL import Image

from tagmask.data.readers.archive import FolderTree, ZipTree
from tagmask.data.readers.images import IMAGE_SUFFIXES, MAX_PIXELS, read_picture
from tagmask.errors import DataError
from tagmask.inference.video import VIDEO_SUFFIXES, open_frames

__all__ = ["Broken", "Named", "Picture", "each_picture", "fixed_part", "is_pattern", "renamed", "stem"]

_WILD = "*?["
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
        read: Decodes it, mode RGB; raises DataError where that is impossible.
    """

    read: Callable[[], Image.Image]


@dataclass(frozen=True)
class Broken:
    """Something that cannot be read, and why."""

    source: str
    reason: str


@dataclass(frozen=True)
class _Options:
    max_pixels: int
    every: int


def each_picture(
    inputs: Sequence[str], max_pixels: int = MAX_PIXELS, every: int = 1
) -> Iterator[Picture | Broken]:
    """Everything that some inputs hold; nothing is decoded before `Picture.read` is called.

    Of folders and archives, files whose ending is neither a picture's nor a video's are left out. Of pictures
    that differ in their ending only the later keep it in their names; what is equal even then is numbered.

    Args:
        inputs: Files, folders, patterns with ``*``, zip archives, videos, animated GIFs.
        max_pixels: Largest declared size that is decoded.
        every: Take every n-th frame of films.

    Yields:
        Pictures, and what is broken, in the order of the inputs, sorted within each.
    """
    used: set[str] = set()
    options = _Options(max_pixels, every)
    for given in inputs:
        for found in _from_input(given, options):
            yield renamed(found, used) if isinstance(found, Picture) else found


def renamed(found: AnyNamed, used: set[str]) -> AnyNamed:
    """The same under a name that is not used yet, which is then added to the used ones."""
    name, number = found.name, 1
    if name in used:
        name = found.file
    while name in used:
        number += 1
        name = f"{found.name}-{number}"
    used.add(name)
    return found if name == found.name else replace(found, name=name)


def is_pattern(given: str) -> bool:
    """Whether an input is a pattern for several files."""
    return any(mark in given for mark in _WILD)


def fixed_part(pattern: PurePath) -> str:
    """Folder that all matches of a pattern lie below."""
    wild = next(i for i, part in enumerate(pattern.parts) if is_pattern(part))
    return str(type(pattern)(*pattern.parts[:wild])) if wild else "."


def _from_input(given: str, options: _Options) -> Iterator[Picture | Broken]:
    path = Path(given)
    if path.is_dir():
        yield from _from_folder(path, options)
    elif path.is_file():
        yield from _from_file(path, path.name, options, alone=True)
    elif is_pattern(given):
        root = fixed_part(Path(given))
        found = sorted(p for p in glob.glob(given, recursive=True) if os.path.isfile(p))
        if not found:
            yield Broken(given, "matches no file")
        for name in found:
            file = Path(os.path.relpath(name, root)).as_posix()
            yield from _from_file(Path(name), file, options, alone=True)
    else:
        yield Broken(given, "is a link to nothing" if path.is_symlink() else "does not exist")


def _from_folder(root: Path, options: _Options) -> Iterator[Picture | Broken]:
    tree = FolderTree(root)
    for name, reason in tree.refused:
        yield Broken(str(root / name), reason)
    for name in tree.names:
        if PurePosixPath(name).suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES):
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
        read = partial(read_picture, path, options.max_pixels)
        yield Picture(stem(file), file, str(path), stamp, read)


def stem(file: str) -> str:
    """Name without ending; parts that no output could be called by are replaced."""
    parts = [part for part in PurePosixPath(file).with_suffix("").parts if part not in ("..", "/", ".")]
    return "/".join(parts).replace("\\", "_") or "_"


def _moves(path: Path) -> bool:
    try:
        with Image.open(path, formats=("GIF",)) as image:
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

            def read(name: str = name, source: str = source) -> Image.Image:
                return read_picture(source, options.max_pixels, content=tree.read(name))

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

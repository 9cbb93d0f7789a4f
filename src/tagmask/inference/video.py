"""Frames in and out: folders of pictures, GIF, and video files where the optional reader is installed."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from tagmask.data.readers.images import IMAGE_SUFFIXES, read_image
from tagmask.data.readers.regular import irregular
from tagmask.errors import DataError
from tagmask.store.files import atomic_write, file_for

__all__ = ["VIDEO_SUFFIXES", "Frames", "open_frames", "write_frames"]

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")
"""Endings that are taken for videos."""

Frame = tuple[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class Frames:
    """Pictures in order.

    Attributes:
        pictures: (name, RGB (H, W, 3)), read as they are asked for.
        rate: Frames per second, if the source says so.
        count: How many there are, if known.
    """

    pictures: Iterator[Frame]
    rate: float | None
    count: int | None


def open_frames(path: Path, max_side: int | None = None) -> Frames:
    """Pictures of a folder in the order of the numbers in their names, or frames of a GIF or a video.

    Args:
        path: Folder or file.
        max_side: Frames are shrunk to this longer side.

    Raises:
        DataError: There is nothing to read, it is damaged, or reading it needs a package that is missing.
    """
    if path.is_dir():
        files = sorted((f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES), key=_natural)
        if not files:
            raise DataError(f"{path} holds no pictures; give a folder of frames, a GIF or a video")
        return Frames(((f.stem, read_image(f, max_side=max_side)) for f in files), None, len(files))
    if (reason := irregular(path)) is not None:
        raise DataError(f"{path} {reason}; give a folder of frames, a GIF or a video")
    if path.suffix.lower() == ".gif":
        return _open_gif(path, max_side)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return _open_video(path, max_side)
    raise DataError(
        f"{path} is neither a folder of frames nor a GIF or a video ({', '.join(VIDEO_SUFFIXES)})"
    )


def write_frames(path: Path, frames: Iterable[Frame], rate: float) -> int:
    """Write a GIF, a video or, for a name without an ending, a folder of PNG files.

    A GIF or video appears when it is complete; pictures of a folder one by one.

    Args:
        path: Where to.
        frames: (name, RGB (H, W, 3)); all of one size for a GIF or a video.
        rate: Frames per second.

    Returns:
        Number of frames written.

    Raises:
        DataError: The ending is of no film, it cannot be written, sizes differ, there is no frame, or a
            package is missing.
    """
    suffix, count = path.suffix.lower(), 0
    if suffix in IMAGE_SUFFIXES and suffix != ".gif":
        raise DataError(f"{path.name} is a single picture; name a .gif, a video (.mp4) or a folder")
    known = (".gif", *VIDEO_SUFFIXES)
    if suffix not in known and suffix[1:].isalpha() and not path.is_dir():
        raise DataError(
            f"cannot write a video as '{path.suffix}' ({path.name}); allowed are {', '.join(known)}, "
            "or a name without an ending for a folder of frames"
        )
    if suffix not in known:
        for name, picture in frames:
            with atomic_write(file_for(path, name, ".png")) as target:
                Image.fromarray(picture).save(target, format="PNG")
            count += 1
        return count
    same = _one_size(frames)
    first = next(same, None)
    if first is None:
        raise DataError("there is no frame to write")
    with atomic_write(path) as target:
        return (_save_gif if suffix == ".gif" else _save_video)(target, first, same, rate)


def _natural(path: Path) -> list[tuple[int, str]]:
    # Runs of digits count as numbers, so that frame10 follows frame9.
    return [(int(p), "") if p.isdigit() else (-1, p) for p in re.split(r"(\d+)", path.name)]


def _one_size(frames: Iterable[Frame]) -> Iterator[NDArray[np.uint8]]:
    size: tuple[int, ...] | None = None
    for name, picture in frames:
        size = size or picture.shape
        if picture.shape != size:
            raise DataError(
                f"frame '{name}' is {picture.shape[1]} x {picture.shape[0]}, the first one {size[1]} x "
                f"{size[0]}; a GIF or video needs one size, a folder as output does not"
            )
        yield picture


def _open_gif(path: Path, max_side: int | None) -> Frames:
    try:
        image = Image.open(path, formats=("GIF",))
        count = getattr(image, "n_frames", 1)
        duration = image.info.get("duration") or 100
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a readable GIF ({error})") from None

    def pictures() -> Iterator[Frame]:
        with closing(image):
            for index, frame in enumerate(ImageSequence.Iterator(image)):
                yield f"frame-{index:06d}", _shrunk(frame.convert("RGB"), max_side)

    return Frames(pictures(), 1000 / duration, count)


def _open_video(path: Path, max_side: int | None) -> Frames:
    reader = _video_package(path).read_frames(str(path), pix_fmt="rgb24")
    try:
        about = next(reader)
    except (OSError, RuntimeError, StopIteration) as error:
        raise DataError(f"{path} is not a readable video ({_last_line(error)})") from None
    width, height = about["size"]
    count = round(about["duration"] * about["fps"]) if about.get("duration") and about.get("fps") else None

    def pictures() -> Iterator[Frame]:
        with closing(reader):
            for index, data in enumerate(reader):
                picture = Image.frombuffer("RGB", (width, height), data)
                yield f"frame-{index:06d}", _shrunk(picture, max_side)

    return Frames(pictures(), about.get("fps") or None, count)


def _shrunk(picture: Image.Image, max_side: int | None) -> NDArray[np.uint8]:
    if max_side is not None and max(picture.size) > max_side:
        picture.thumbnail((max_side, max_side), Image.Resampling.BILINEAR)
    return np.array(picture)


def _save_gif(path: Path, first: NDArray[np.uint8], rest: Iterator[NDArray[np.uint8]], rate: float) -> int:
    count = 1

    def others() -> Iterator[Image.Image]:
        nonlocal count
        for picture in rest:
            count += 1
            yield Image.fromarray(picture)

    # GIF counts in hundredths of a second.
    duration = max(round(100 / rate), 1) * 10
    Image.fromarray(first).save(
        path, format="GIF", save_all=True, append_images=others(), duration=duration, loop=0
    )
    return count


def _save_video(path: Path, first: NDArray[np.uint8], rest: Iterator[NDArray[np.uint8]], rate: float) -> int:
    package, count = _video_package(path), 1
    # Most players need even sides.
    bottom, right = first.shape[0] % 2, first.shape[1] % 2
    size = (first.shape[1] + right, first.shape[0] + bottom)
    writer = package.write_frames(str(path), size, fps=rate, macro_block_size=2, ffmpeg_log_level="error")
    with closing(writer):
        try:
            writer.send(None)
            writer.send(_padded(first, bottom, right))
            for picture in rest:
                writer.send(_padded(picture, bottom, right))
                count += 1
        except (OSError, RuntimeError) as error:
            raise DataError(f"the video {path.name} cannot be written ({_last_line(error)})") from None
    return count


def _padded(picture: NDArray[np.uint8], bottom: int, right: int) -> bytes:
    return np.pad(picture, ((0, bottom), (0, right), (0, 0)), mode="edge").tobytes()


def _video_package(path: Path) -> Any:
    try:
        return importlib.import_module("imageio_ffmpeg")
    except ImportError:
        raise DataError(
            f"{path.suffix} videos need the package imageio-ffmpeg: pip install 'tagmask[video]'. "
            "Folders of frames and GIF work without it"
        ) from None


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1][:200] if lines else type(error).__name__

"""From the numbers of any file to the levels that networks and people see: which bands, which range."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tagmask.data.readers.images import MAX_PIXELS
from tagmask.data.readers.pixels import PixelInfo, is_photograph, read_pixels
from tagmask.data.readers.stack import as_picture, shrunk
from tagmask.errors import ConfigError, DataError

__all__ = ["PHOTOGRAPHS", "Bands", "PixelRange", "Reading", "choose_reading", "for_people"]

Bands = Literal["all"] | tuple[int, ...]
"""Which bands, counted from 1; or all."""
Ends = tuple[float, float]
PixelRange = Literal["percentiles", "file", "full"] | Ends | tuple[Ends, ...]
"""What becomes black and white."""
PERCENTILES = (0.1, 99.9)
_MEASURED = 256
_PROBED = 64
_VALUES = 1 << 16
_NAMES = ("percentiles", "file", "full")


@dataclass(frozen=True)
class Reading:
    """How the numbers of files become levels; a model keeps it and reads every picture by it.

    Attributes:
        bands: 1-based bands in the network's order; the first three are shown to people as red, green and
            blue. None: pictures of one band or of red, green and blue.
        ranges: (black, white) of every band, or one for all; "file": each file's own window; "full": all that
            its type can hold.
        photographs: Whether `ranges` also holds for 8-bit pictures, which else keep 0 to 255.
        rule: Where the ranges come from, in words.
    """

    bands: tuple[int, ...] | None = None
    ranges: tuple[Ends, ...] | Literal["file", "full"] = "full"
    photographs: bool = False
    rule: str = ""

    @property
    def channels(self) -> int:
        """C of the images that a network gets, at least 3."""
        return 3 if self.bands is None else max(3, len(self.bands))

    @property
    def fixed(self) -> tuple[Ends, ...] | None:
        """(black, white) of the network's bands, or one for all; None where every file has its own."""
        if isinstance(self.ranges, str) or not self.ranges:
            return None
        return (*self.ranges, self.ranges[0]) if len(self.ranges) == 2 else self.ranges

    def picture(
        self, path: Path, part: int | None = None, max_pixels: int = MAX_PIXELS, max_side: int | None = None
    ) -> NDArray[np.uint8]:
        """A file's levels, (H, W, C) uint8; one band three times, two as first, second, first.

        Args:
            path: The file.
            part: Slice of a stack.
            max_pixels: See `tagmask.data.readers.pixels.read_pixels`.
            max_side: Shrink to at most this longer side.

        Raises:
            DataError: The file cannot be read, or has not these bands or no window.
        """
        pixels, info = read_pixels(path, part, max_pixels)
        levels = self.levels(pixels, info, str(path))
        return levels if max_side is None else np.array(shrunk(as_picture(levels), max_side))

    def levels(self, pixels: NDArray[np.float32], info: PixelInfo, name: str) -> NDArray[np.uint8]:
        """The levels of decoded pixels.

        Args:
            pixels: (C, H, W), NaN where there is no data, which becomes black.
            info: What the file says about them.
            name: How messages call it.

        Returns:
            (H, W, channels) uint8.
        """
        chosen = pixels[[band - 1 for band in self._chosen(info, name)]]
        ends = np.asarray(self._ends(info, name), np.float32).reshape(-1, 2)
        if len(ends) not in (1, len(chosen)):
            raise DataError(
                f"{name}: there are {len(ends)} ranges for {len(chosen)} bands; give one, or one each"
            )
        low, high = (np.broadcast_to(column, len(chosen))[:, None, None] for column in ends.T)
        scaled = (chosen - low) * (np.float32(255) / (high - low))
        np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled)
        planes = np.nan_to_num(scaled, copy=False, nan=0.0).astype(np.uint8)
        order = {1: [0, 0, 0], 2: [0, 1, 0]}.get(len(planes))
        return np.ascontiguousarray((planes if order is None else planes[order]).transpose(1, 2, 0))

    def _chosen(self, info: PixelInfo, name: str) -> Sequence[int]:
        if self.bands is not None:
            if max(self.bands) > info.bands:
                raise DataError(
                    f"{name} has {info.bands} band{'s' * (info.bands > 1)}; needed is band {max(self.bands)}"
                )
            return self.bands
        if info.bands not in (1, 3):
            raise DataError(
                f"{name} has {info.bands} bands, which could mean several things: {_advice(info.bands)}"
            )
        return range(1, info.bands + 1)

    def _ends(self, info: PixelInfo, name: str) -> Sequence[Ends]:
        if info.full == (0.0, 255.0) and not self.photographs:
            return [(0.0, 255.0)]
        if not self.ranges:
            raise DataError(
                f"{name} has more than 8 bits per band, and nothing says which values are black and white: "
                "train with data.range, use a model that was, or save it as 8-bit"
            )
        if self.ranges == "full":
            if info.full is None:
                raise DataError(
                    f"{name} holds floating point numbers, whose type has no end: give data.range=[LOW,HIGH]"
                )
            return [info.full]
        if self.ranges == "file":
            if info.window is None:
                raise DataError(
                    f"{name} names no window of its own: leave data.range out, or give data.range=[LOW,HIGH]"
                )
            return [info.window]
        return self.ranges

    def text(self) -> str:
        """For people: bands and range."""
        bands = "" if self.bands is None else f"bands {', '.join(map(str, self.bands))}; "
        ends = (
            self.ranges
            if isinstance(self.ranges, str)
            else ", ".join(f"{a:g} to {b:g}" for a, b in self.ranges)
        )
        return f"{bands}black to white {ends} ({self.rule})"

    def as_values(self) -> dict[str, Any]:
        """Plain values, for the header of a model."""
        ranges = self.ranges if isinstance(self.ranges, str) else [list(ends) for ends in self.ranges]
        bands = None if self.bands is None else list(self.bands)
        return {"bands": bands, "ranges": ranges, "photographs": self.photographs, "rule": self.rule}

    @classmethod
    def from_values(cls, values: Mapping[str, Any] | None) -> Reading | None:
        """What `as_values` gave; None for None.

        Raises:
            ValueError: It is something else.
        """
        if values is None:
            return None
        try:
            bands, ranges = values["bands"], values["ranges"]
            if ranges not in ("file", "full"):
                ranges = tuple((float(low), float(high)) for low, high in ranges)
                if not ranges or not all(np.isfinite(ends).all() and ends[0] < ends[1] for ends in ranges):
                    raise ValueError("ranges must rise")
            bands = None if bands is None else tuple(int(band) for band in bands)
            if bands is not None and (not 0 < len(bands) <= 4096 or min(bands) < 1):
                raise ValueError("bands are counted from 1")
            return cls(bands, ranges, bool(values.get("photographs")), str(values.get("rule", "")))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"'pixels' of the header cannot be used ({error})") from None


PHOTOGRAPHS = Reading(ranges=())
"""How a model that knows no range reads: 8-bit pictures of one band or three, nothing else."""


def for_people(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The first three bands, (H, W, 3), of levels (H, W, C)."""
    return levels if levels.shape[2] == 3 else np.ascontiguousarray(levels[..., :3])


def choose_reading(
    files: Sequence[tuple[Path, int | None]], bands: Bands | None, wanted: PixelRange | None
) -> Reading | None:
    """How the images of a data set are read.

    Args:
        files: The images to learn from: (file, slice of a stack).
        bands: What `data.bands` says.
        wanted: What `data.range` says; percentiles for all but 8-bit pictures if None.

    Returns:
        None where all are photographs and nothing was asked for: they are read as ever.

    Raises:
        DataError: No image could be measured, or the first one has not these bands.
        ConfigError: A range falls, or there are more ranges than bands.
    """
    sample = _spread(files, _PROBED)
    if bands is None and wanted is None and all(part is None and is_photograph(f) for f, part in sample):
        return None
    chosen = _numbers(bands, sample)
    if wanted in ("file", "full"):
        return Reading(chosen, wanted, True, f"data.range={wanted}")
    if wanted is not None and wanted != "percentiles":
        ends = _checked(wanted)  # type: ignore[arg-type]
        return Reading(chosen, ends, True, "data.range, as given")
    return _measured(_spread(files, _MEASURED), chosen, photographs=wanted is not None)


def _spread(files: Sequence[Any], count: int) -> list[Any]:
    places = np.unique(np.linspace(0, len(files) - 1, min(count, len(files))).round().astype(int))
    return [files[i] for i in places.tolist()]


def _numbers(bands: Bands | None, sample: Iterable[tuple[Path, int | None]]) -> tuple[int, ...] | None:
    if bands is None:
        return None
    if bands != "all":
        if not bands or min(bands) < 1:
            raise ConfigError(f"data.bands are numbers from 1 on, or all; got {list(bands)}")
        return bands
    reason = "there is none"
    for path, part in sample:
        try:
            return tuple(range(1, read_pixels(path, part)[1].bands + 1))
        except DataError as error:
            reason = str(error)
    raise DataError(f"data.bands=all needs an image that can be read: {reason}")


def _checked(wanted: Ends | tuple[Ends, ...]) -> tuple[Ends, ...]:
    ends = wanted if isinstance(wanted[0], tuple) else (wanted,)
    for low, high in ends:
        if not (np.isfinite([low, high]).all() and low < high):
            raise ConfigError(f"data.range must rise from black to white, got {low} to {high}")
    return ends


def _measured(
    sample: Sequence[tuple[Path, int | None]], bands: tuple[int, ...] | None, photographs: bool
) -> Reading:
    """Ranges from percentiles of the values of some images, each thinned out to the same number."""
    values: list[NDArray[np.float32]] = []
    joint, reason, eight = bands is None, "there is none", False
    for path, part in sample:
        try:
            pixels, info = read_pixels(path, part)
            if info.full == (0.0, 255.0) and not photographs:
                eight = True
                continue
            # Only to ask whether these bands are there.
            Reading(bands).levels(
                np.zeros((info.bands, 1, 1), np.float32), PixelInfo((0, 1), info.bands), str(path)
            )
        except DataError as error:
            reason = str(error)
            continue
        planes = pixels if bands is None else pixels[[band - 1 for band in bands]]
        rows = planes.reshape(len(planes), -1)
        rows = rows[:, :: max(1, rows.shape[1] // _VALUES)]
        values.append(rows.reshape(1, -1) if joint else rows)
    if not values:
        if bands is not None or eight:
            return Reading(bands, ((0.0, 255.0),), photographs, "8 bits")
        raise DataError(f"no range can be taken from the images to learn from: {reason}")
    rule = f"percentiles {PERCENTILES[0]} and {PERCENTILES[1]} of {len(values)} training images"
    return Reading(bands, _percentiles(np.concatenate(values, 1)), photographs, rule)


def _percentiles(rows: NDArray[np.float32]) -> tuple[Ends, ...]:
    found = np.nanpercentile(rows, PERCENTILES, axis=1).T.tolist()
    return tuple((low, high if high > low else low + 1) for low, high in found)


def _advice(count: int) -> str:
    plain = "red, green, blue and opacity, or " if count == 4 else ""
    return (
        f"{plain}{count} measurements. Say which the network gets: data.bands=all, or for example "
        "data.bands=[1,2,3]"
    )

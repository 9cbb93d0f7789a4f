"""DICOM files and series of them, in the order of their place in the patient, through pydicom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmask.data.readers.pixels import PixelInfo, decoding, need
from tagmask.data.readers.regular import check_regular
from tagmask.errors import DataError

__all__ = ["ENDINGS", "count", "read", "read_segments", "series", "series_of", "size", "write_segments"]

ENDINGS = (".dcm", ".dicom")
"""Endings of the files."""
_GAP = 1.5
_EQUAL = 0.05


def _header(path: Path, pixels: bool = False) -> Any:
    pydicom = need("pydicom", path)
    check_regular(path)
    with decoding(path):
        found = pydicom.dcmread(path, stop_before_pixels=not pixels)
    if "Rows" not in found or "Columns" not in found or (pixels and "PixelData" not in found):
        kind = found.get("Modality", "file")
        raise DataError(f"{path} is a DICOM {kind} without pixels; take it out of the folder")
    return found


def count(path: Path) -> int:
    """How many frames a file has."""
    return int(_header(path).get("NumberOfFrames", 1) or 1)


def size(path: Path, max_pixels: int) -> tuple[int, int]:
    """(height, width) of a frame."""
    head = _header(path)
    if head.Rows * head.Columns > max_pixels:
        raise DataError(f"{path} declares {head.Columns} x {head.Rows} pixels; at most {max_pixels:,}")
    return int(head.Rows), int(head.Columns)


def read(path: Path, part: int | None, max_pixels: int) -> tuple[NDArray[np.float32], PixelInfo]:
    """A frame in the units of its modality (Hounsfield units of CT), (C, H, W).

    Args:
        path: The file.
        part: Number of the frame, from 0.
        max_pixels: More pixels are refused.

    Raises:
        DataError: It has no pixels, several frames and none is named, or it cannot be decoded.
    """
    tools = need("pydicom.pixels", path)

    size(path, max_pixels)
    file = _header(path, pixels=True)
    frames = int(file.get("NumberOfFrames", 1) or 1)
    if part is None and frames > 1:
        raise DataError(f"{path} holds {frames} frames; name one, or predict the whole file")
    kind = str(file.get("PhotometricInterpretation", ""))
    if kind == "PALETTE COLOR":
        raise DataError(f"{path} is a palette picture: its numbers name colours and are no measurements")
    with decoding(path):
        values = tools.pixel_array(file, index=part if frames > 1 else None)
        stored = values.dtype.kind == "i", int(file.get("BitsStored", 8))
        scaled = tools.apply_modality_lut(values, file) if values.ndim == 2 else values
    planes = scaled[None] if scaled.ndim == 2 else scaled.transpose(2, 0, 1)
    full = _full(file, *stored)
    if kind == "MONOCHROME1":
        planes = full[0] + full[1] - planes
    spacing = file.get("PixelSpacing")
    window = _window(file)
    info = PixelInfo(
        full,
        len(planes),
        colour=len(planes) == 3,
        window=None if window is None or kind == "MONOCHROME1" else window,
        spacing=None if spacing is None else (float(spacing[0]), float(spacing[1])),
    )
    return np.ascontiguousarray(planes, np.float32), info


def _full(file: Any, signed: bool, bits: int) -> tuple[float, float]:
    ends = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    slope, shift = float(file.get("RescaleSlope", 1) or 1), float(file.get("RescaleIntercept", 0) or 0)
    low, high = sorted(end * slope + shift for end in ends)
    return low, high


def _window(file: Any) -> tuple[float, float] | None:
    centre, width = file.get("WindowCenter"), file.get("WindowWidth")
    if centre is None or width is None:
        return None
    first = [float(np.atleast_1d(np.asarray(value, float))[0]) for value in (centre, width)]
    return (first[0] - first[1] / 2, first[0] + first[1] / 2) if first[1] > 0 else None


def series_of(path: Path) -> str:
    """What a file says about the series it belongs to; its own path where it says nothing."""
    return str(_header(path).get("SeriesInstanceUID", "")) or str(path)


def series(files: Sequence[Path]) -> list[Path]:
    """The files of one series from the first slice to the last.

    Args:
        files: All DICOM files of a folder.

    Raises:
        DataError: They are of several series, sizes or spacings, a slice is missing or there twice.
    """
    heads = {path: _header(path) for path in files}
    folder = files[0].parent
    count = Counter(str(head.get("SeriesInstanceUID", "")) for head in heads.values())
    if len(count) > 1:
        raise DataError(
            f"{folder} holds {len(count)} series of {', '.join(map(str, count.values()))} files: they may be "
            "one volume or several. Give every series a folder of its own"
        )
    if len(files) == 1:
        return list(files)
    for what, key in (("sizes", ("Rows", "Columns")), ("spacings", ("PixelSpacing",)),
                      ("orientations", ("ImageOrientationPatient",))):  # fmt: skip
        found = Counter(_rounded([head.get(name) for name in key]) for head in heads.values())
        if len(found) > 1:
            raise DataError(
                f"{folder} holds slices of {len(found)} {what}; sort them into folders of one each"
            )
    places = {path: _place(head) for path, head in heads.items()}
    if any(place is None for place in places.values()):
        return sorted(files, key=lambda path: int(heads[path].get("InstanceNumber", 0) or 0))
    ordered = sorted(files, key=lambda path: places[path] or 0.0)
    _refuse_gaps(folder, [places[path] or 0.0 for path in ordered])
    return ordered


def _rounded(values: Sequence[Any]) -> tuple[float, ...]:
    flat = [
        float(v) for value in values if value is not None for v in np.atleast_1d(np.asarray(value, float))
    ]
    return tuple(round(v, 4) for v in flat)


def _place(head: Any) -> float | None:
    """Where a slice lies along the normal of its plane, in millimetres."""
    place, turned = head.get("ImagePositionPatient"), head.get("ImageOrientationPatient")
    if place is None or turned is None:
        return None
    across = np.asarray(turned, float)
    return float(np.cross(across[:3], across[3:]) @ np.asarray(place, float))


def _refuse_gaps(folder: Path, places: Sequence[float]) -> None:
    steps = np.diff(places)
    usual = float(np.median(steps))
    if steps.min() < usual * _EQUAL:
        raise DataError(f"{folder} holds two slices at {places[int(steps.argmin())]:g} mm; keep one of them")
    if steps.max() > usual * _GAP:
        at = int(steps.argmax())
        raise DataError(
            f"{folder} misses slices: there are {steps[at]:g} mm between {places[at]:g} and "
            f"{places[at + 1]:g} mm, {usual:g} mm elsewhere; complete the series, or part it into folders"
        )


def read_segments(path: Path, files: Sequence[Path]) -> tuple[NDArray[np.uint8], list[str]]:
    """What a DICOM segmentation says about a series.

    Args:
        path: The segmentation.
        files: What `series` gave.

    Returns:
        Number of the segment of every pixel, 0 where there is none, (slices, H, W) uint8; and the labels of
        the segments, from number 1 on.

    Raises:
        DataError: It is none, is about other images, or its segments lie over each other.
    """
    highdicom = need("highdicom.seg", path)
    check_regular(path)
    ours = [str(_header(file).SOPInstanceUID) for file in files]
    with decoding(path):
        found = highdicom.segread(path)
        numbers = list(found.segment_numbers)
        theirs = {str(source[2]) for source in found.get_source_image_uids()}
        if theirs.isdisjoint(ours):
            raise DataError(f"{path} is about other images than {files[0].parent}")
        planes = found.get_pixels_by_source_instance(
            ours, combine_segments=True, assert_missing_frames_are_empty=True, ignore_spatial_locations=True
        )
        called = [str(found.get_segment_description(number).segment_label) for number in numbers]
    names = dict(zip(numbers, called, strict=True))
    return planes.astype(np.uint8), [names.get(k, "") for k in range(1, max(names, default=0) + 1)]


def write_segments(
    path: Path, labels: NDArray[np.uint8], files: Sequence[Path], names: Sequence[str]
) -> None:
    """Write labels as a DICOM segmentation of a series, with a segment for every class.

    Args:
        path: Ends in ``.dcm``.
        labels: (slices, H, W) uint8, in the order of `files`.
        files: What `series` gave.
        names: The classes; label k + 1 is ``names[k]``.

    Raises:
        DataError: The series lacks what a segmentation has to name.
    """
    need("highdicom", files[0])
    from highdicom import UID, AlgorithmIdentificationSequence
    from highdicom.seg import (
        SegmentAlgorithmTypeValues,
        Segmentation,
        SegmentationTypeValues,
        SegmentDescription,
    )
    from pydicom.sr.codedict import codes

    sources = [_header(file, pixels=True) for file in files]
    _space(sources)
    try:
        ours = version("tagmask")
    except PackageNotFoundError:
        ours = "unknown"
    algorithm = AlgorithmIdentificationSequence("tagmask", codes.DCM.ArtificialIntelligence, ours)
    tissue, kind = codes.SCT.Tissue, SegmentAlgorithmTypeValues.AUTOMATIC
    segments = [
        SegmentDescription(k, name, tissue, tissue, kind, algorithm) for k, name in enumerate(names, 1)
    ]
    labels = np.where(labels > len(names), 0, labels).astype(np.uint8)
    with decoding(files[0].parent):
        made = Segmentation(
            sources, labels, SegmentationTypeValues.BINARY, segments, UID(), 1, UID(), 1, "tagmask",
            "tagmask", ours, "0", omit_empty_frames=False,
        )  # fmt: skip
        made.save_as(path)


def _space(sources: Sequence[Any]) -> None:
    """Let the distance of slices be that of their places; what headers say of it is often something else."""
    places = sorted(place for source in sources if (place := _place(source)) is not None)
    for source in sources if len(places) > 1 else ():
        source.SpacingBetweenSlices = float(np.median(np.diff(places)))

"""Volumes in NIfTI files, slice by slice along the third axis, through nibabel."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmask.data.readers.pixels import PixelInfo, decoding, full_range, need
from tagmask.data.readers.regular import check_regular
from tagmask.errors import DataError

__all__ = ["ENDINGS", "count", "opened", "read", "size", "write_labels"]

ENDINGS = (".nii", ".nii.gz")
"""Endings of the files."""


def opened(path: Path) -> Any:
    """The file as a nibabel image, its numbers still on disk.

    Raises:
        DataError: nibabel is not installed, the file is damaged, or it has another number of axes than three.
    """
    nibabel = need("nibabel", path)
    check_regular(path)
    with decoding(path):
        image = nibabel.load(path)
        shape = image.shape
        kind = image.get_data_dtype()
    if len(shape) > 3 and np.prod(shape[3:]) > 1:
        raise DataError(
            f"{path} has {len(shape)} axes, {' x '.join(map(str, shape))}: the last may be points in time or "
            "bands. Save each point in time, or each band, as a volume of its own"
        )
    if len(shape) < 3 or kind.fields is not None or kind.kind == "c":
        raise DataError(f"{path} is no volume of real numbers: {kind}, {' x '.join(map(str, shape))}")
    return image


def count(path: Path) -> int:
    """How many slices a volume has."""
    return int(opened(path).shape[2])


def size(path: Path, max_pixels: int) -> tuple[int, int]:
    """(height, width) of a slice."""
    shape = opened(path).shape
    if shape[0] * shape[1] > max_pixels:
        raise DataError(f"{path} declares slices of {shape[0]} x {shape[1]} pixels; at most {max_pixels:,}")
    return int(shape[1]), int(shape[0])


def read(path: Path, part: int | None, max_pixels: int) -> tuple[NDArray[np.float32], PixelInfo]:
    """A slice, (1, H, W): rows along the second axis of the volume, columns along the first.

    Args:
        path: The file.
        part: Its number, from 0 along the third axis.
        max_pixels: More pixels in a slice are refused.

    Raises:
        DataError: There is no such slice, or the file is damaged.
    """
    image = opened(path)
    size(path, max_pixels)
    if part is None and image.shape[2] > 1:
        raise DataError(
            f"{path} is a volume of {image.shape[2]} slices; name one, or predict the whole volume"
        )
    if not 0 <= (part or 0) < image.shape[2]:
        raise DataError(f"{path} has slices 0 to {image.shape[2] - 1}, not {part}")
    with decoding(path):
        if path.name.endswith(".gz"):
            values = _whole(path, path.stat().st_mtime_ns)[:, :, part or 0]
        else:
            values = np.asarray(image.dataobj[:, :, part or 0]).reshape(image.shape[:2])
    low, high = float(image.header["cal_min"]), float(image.header["cal_max"])
    zooms = tuple(float(z) for z in image.header.get_zooms()[:3])
    plain = image.dataobj.slope == 1 and image.dataobj.inter == 0
    info = PixelInfo(
        full_range(image.get_data_dtype()) if plain else None,
        1,
        window=(low, high) if high > low else None,
        spacing=(zooms[2], zooms[1], zooms[0]),
    )
    return np.ascontiguousarray(values.T, np.float32)[None], info


@lru_cache(maxsize=1)
def _whole(path: Path, changed: int) -> NDArray[Any]:
    """A packed volume, which cannot be read slice by slice; the last one is kept."""
    image = opened(path)
    return np.asarray(image.dataobj).reshape(image.shape[:3])


def write_labels(path: Path, labels: NDArray[np.uint8], like: Path) -> None:
    """Write labels with the grid of a volume: its affine, its codes and units.

    Args:
        path: Ends in ``.nii.gz``.
        labels: (slices, H, W) uint8, as `read` numbers and turns them.
        like: The volume.
    """
    nibabel, source = need("nibabel", like), opened(like)
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_xyzt_units(*source.header.get_xyzt_units())
    made = nibabel.Nifti1Image(labels.transpose(2, 1, 0), None, header)
    # Both of a header's transforms with their codes, bit for bit.
    for key in ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y",
                "qoffset_z", "srow_x", "srow_y", "srow_z", "pixdim"):  # fmt: skip
        made.header[key] = source.header[key]
    nibabel.save(made, path)

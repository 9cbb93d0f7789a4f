"""Put the masks of PASCAL VOC and of the Semantic Boundaries Dataset together: SegmentationClassAug."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tagmask.data.classes import VOC_CLASSES
from tagmask.data.datasets.voc import split_names
from tagmask.data.datasets.writing import png_bytes, write_whole
from tagmask.data.readers.images import read_indices
from tagmask.errors import DataError

__all__ = ["build_voc_aug", "read_sbd_mask"]

_PLACES = ("benchmark_RELEASE/dataset/cls", "dataset/cls", "cls", ".")


def build_voc_aug(
    sbd: str | Path,
    voc: str | Path,
    out: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write one mask for every image of train_aug and val.

    Where VOC has a mask of its own it is taken, else SBD's. Only those of VOC have the ignored rim.

    Args:
        sbd: The unpacked SBD (the folder that holds ``benchmark_RELEASE``, or ``cls`` itself).
        voc: The folder VOC2012.
        out: Folder to make; ``SegmentationClassAug`` in `voc` if None.
        progress: Called with (masks done, masks in all).

    Returns:
        The folder, complete; it appears only when all masks are written.

    Raises:
        DataError: The folder is there already, a mask exists in neither set or cannot be read, or the disk
            refuses.
    """
    voc = Path(voc)
    target = Path(out) if out is not None else voc / "SegmentationClassAug"
    if target.exists():
        raise DataError(f"{target} is there already; remove it first, or name another folder")
    cls = next((p for place in _PLACES if any((p := Path(sbd) / place).glob("*.mat"))), None)
    if cls is None:
        raise DataError(f"no .mat masks below {sbd}; it should hold benchmark_RELEASE/dataset/cls")
    names = sorted({*split_names("train_aug", voc), *split_names("val", voc)})
    sources = [_source(name, voc, cls) for name in names]
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        for done, (name, source) in enumerate(zip(names, sources, strict=True), start=1):
            mask = read_indices(source) if source.suffix == ".png" else read_sbd_mask(source)
            write_whole(partial / f"{name}.png", png_bytes(mask))
            if progress is not None:
                progress(done, len(names))
        os.replace(partial, target)
    except OSError as error:
        raise DataError(f"cannot make {target}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _source(name: str, voc: Path, cls: Path) -> Path:
    for path in (voc / "SegmentationClass" / f"{name}.png", cls / f"{name}.mat"):
        if path.is_file():
            return path
    raise DataError(f"'{name}' has a mask neither in {voc / 'SegmentationClass'} nor in {cls}")


def read_sbd_mask(path: str | Path) -> NDArray[np.uint8]:
    """The class mask in one of SBD's .mat files, (H, W) uint8, 0 to 20.

    Raises:
        DataError: The file is no such mask.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        mask = np.asarray(loadmat(str(path))["GTcls"][0, 0]["Segmentation"])
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, MatReadError) as error:
        raise DataError(f"{path} is no mask of SBD: {error or type(error).__name__}") from None
    except (struct.error, zlib.error, MemoryError) as error:
        raise DataError(f"{path} is damaged: {error}") from None
    if mask.ndim != 2 or mask.dtype.kind not in "iu" or mask.size == 0 or mask.max() > len(VOC_CLASSES):
        raise DataError(
            f"{path} is no mask of SBD: {mask.shape} {mask.dtype}, wanted 2-D with labels 0 to 20"
        )
    return mask.astype(np.uint8)

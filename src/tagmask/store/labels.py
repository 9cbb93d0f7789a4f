"""Label images: one byte per pixel with a palette, as PASCAL VOC has them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tagmask.data.readers.regular import open_regular
from tagmask.errors import DataError
from tagmask.store.files import atomic_write

__all__ = ["mask_bytes", "read_mask", "write_mask"]


def write_mask(path: Path, mask: NDArray[np.uint8], palette: NDArray[np.uint8] | None = None) -> None:
    """Write labels as an indexed PNG, atomically.

    Args:
        path: Ends in ``.png``.
        mask: Labels, (H, W) uint8, 255 = ignore.
        palette: (256, 3) RGB colours; grey levels if None.

    Raises:
        ValueError: The mask is not (H, W) uint8.
        DataError: The file cannot be written.
    """
    content = mask_bytes(mask, palette)
    with atomic_write(path) as target:
        target.write_bytes(content)


def mask_bytes(mask: NDArray[np.uint8], palette: NDArray[np.uint8] | None = None) -> bytes:
    """Content of the file that `write_mask` writes.

    Args:
        mask: Labels, (H, W) uint8, 255 = ignore.
        palette: (256, 3) RGB colours; grey levels if None.

    Raises:
        ValueError: The mask is not (H, W) uint8.
    """
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise ValueError(f"a mask is (H, W) uint8, got {mask.shape} {mask.dtype}")
    picture = Image.fromarray(mask)
    if palette is not None:
        # Turns the grey picture into an indexed one without touching the values.
        picture.putpalette(np.ascontiguousarray(palette, np.uint8).tobytes())
    content = io.BytesIO()
    picture.save(content, format="PNG")
    return content.getvalue()


def read_mask(path: Path) -> NDArray[np.uint8]:
    """Labels of an indexed or grey PNG, (H, W) uint8; palette indices are taken as they are.

    Raises:
        DataError: The file is missing, damaged, or has colours instead of labels.
    """
    try:
        with open_regular(path) as file, Image.open(file) as picture:
            if picture.mode not in ("L", "P", "1"):
                raise DataError(
                    f"{path} has mode {picture.mode}; a label image is indexed or 8-bit grey, nothing else"
                )
            return np.asarray(picture, dtype=np.uint8).copy()
    except FileNotFoundError:
        raise DataError(f"no label image at {path}") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not a readable label image ({error})") from None

"""Label Studio's brush strokes: RGBA pixels in a bit-packed run-length code.

The code is that of thi.ng's rle-pack: 32 bits with the number of values, 5 with the bits of a value (minus
1), four times 4 with the bits of a length (minus 1). Then blocks: 1 bit (1: one value repeated, 0: values one
after the other), 2 bits that choose a length's size, the length minus 1, and the value or values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["decode_brush", "encode_brush"]

_SIZES = (3, 4, 8, 16)
_MAX_PIXELS = 500_000_000


def encode_brush(pixels: NDArray[np.bool_]) -> list[int]:
    """Pixels of a brush as Label Studio holds them: 255 in all four channels where set.

    Args:
        pixels: (H, W) bool.

    Returns:
        Bytes as numbers.
    """
    flat = pixels.reshape(-1)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1, [flat.size]])
    parts = [f"{4 * flat.size:032b}", f"{7:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        left, value = 4 * (end - start), "11111111" if flat[start] else "00000000"
        while left:
            count = min(left, 1 << _SIZES[-1])
            choice = next(i for i, size in enumerate(_SIZES) if count <= 1 << size)
            parts.append(f"1{choice:02b}{count - 1:0{_SIZES[choice]}b}{value}")
            left -= count
    bits = "".join(parts)
    bits += "0" * (-len(bits) % 8)
    return list(int(bits, 2).to_bytes(len(bits) // 8, "big"))


def decode_brush(code: Sequence[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels with any opacity, (H, W) bool.

    Args:
        code: Bytes as numbers.
        size: (H, W) of the image the code is of.

    Raises:
        ValueError: The code breaks off, does not fit the size, or holds no bytes.
    """
    try:
        bits = _Bits(bytes(code))
    except (TypeError, ValueError):
        raise ValueError("brush codes are lists of numbers from 0 to 255") from None
    total, word = bits.take(32), bits.take(5) + 1
    if total != 4 * size[0] * size[1] or total > 4 * _MAX_PIXELS:
        raise ValueError(f"the brush has {total // 4} pixels, its image {size[1]} x {size[0]}")
    sizes = [bits.take(4) + 1 for _ in range(4)]
    values = np.zeros(total, np.uint8)
    done = 0
    while done < total:
        repeated = bits.take(1)
        count = bits.take(sizes[bits.take(2)]) + 1
        if done + count > total:
            raise ValueError("the brush's run lengths do not add up to its pixels")
        if repeated:
            values[done : done + count] = min(bits.take(word), 255)
        else:
            values[done : done + count] = [min(bits.take(word), 255) for _ in range(count)]
        done += count
    return np.asarray(values.reshape(*size, 4)[..., 3] > 0)


class _Bits:
    """Bits of some bytes, the highest first."""

    def __init__(self, content: bytes) -> None:
        self._content, self._place = content, 0

    def take(self, count: int) -> int:
        """The next so many bits as a number."""
        first, end = self._place, self._place + count
        if end > 8 * len(self._content):
            raise ValueError("the brush's code breaks off")
        whole = int.from_bytes(self._content[first // 8 : (end + 7) // 8], "big")
        self._place = end
        return whole >> (-end % 8) & ((1 << count) - 1)

"""What goes between page and server in one piece: a JSON head, then the bytes of arrays.

Four bytes (little endian) give the length of the head; its ``arrays`` say where each array begins. Bytes
rather than pictures: browsers that blur what pages read from a canvas would blur masks with it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmask.errors import DataError

__all__ = ["pack", "unpack"]

Bytes = NDArray[np.uint8]
_MOST_HEAD = 1 << 20
_MOST_SIDE = 1 << 16


def pack(head: Mapping[str, Any], arrays: Mapping[str, Bytes]) -> bytes:
    """A head and arrays as bytes.

    Args:
        head: Plain values.
        arrays: uint8 arrays of any shape by name.
    """
    places, offset, parts = {}, 0, []
    for name, array in arrays.items():
        places[name] = {"shape": list(array.shape), "offset": offset}
        parts.append(np.ascontiguousarray(array, np.uint8).tobytes())
        offset += array.size
    text = json.dumps({**head, "arrays": places}, separators=(",", ":")).encode()
    return b"".join([struct.pack("<I", len(text)), text, *parts])


def unpack(content: bytes) -> tuple[dict[str, Any], dict[str, Bytes]]:
    """What `pack` made; distrusts every number in it.

    Raises:
        DataError: It is something else.
    """
    try:
        (length,) = struct.unpack_from("<I", content)
        if length > _MOST_HEAD:
            raise ValueError("the head is too long")
        head = json.loads(content[4 : 4 + length])
        arrays = {
            str(name): _array(memoryview(content)[4 + length :], place)
            for name, place in head.pop("arrays").items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise DataError(f"this request cannot be read ({error})") from None
    return head, arrays


def _array(body: memoryview, place: Mapping[str, Any]) -> Bytes:
    shape, offset = tuple(place["shape"]), place["offset"]
    sides = [*shape, offset]
    if not all(isinstance(side, int) and side >= 0 for side in sides) or not 1 <= len(shape) <= 3:
        raise ValueError("an array has an impossible shape")
    if max(shape) > _MOST_SIDE:
        raise ValueError("an array is too large")
    size = int(np.prod(shape, dtype=np.int64))
    if offset + size > len(body):
        raise ValueError("an array is cut off")
    return np.frombuffer(body[offset : offset + size], np.uint8).reshape(shape)

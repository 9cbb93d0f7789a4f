"""Read the published ``cls_labels_onehot.npy`` without letting a pickle run anything."""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import tokenize
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from tagmask.data.readers.regular import read_bytes
from tagmask.errors import DataError

__all__ = ["read_onehot"]

_MAX_BYTES = 512 * 2**20
_MEMO = ("PUT", "BINPUT", "LONG_BINPUT")


def _empty(*_ignored: Any) -> NDArray[Any]:
    # The pickle asks for an array of any size it likes; the true shape and data follow in its state.
    return np.ndarray(0, np.uint8)


def _encode(text: str, *_encoding: str) -> bytes:
    return text.encode("latin-1")


class _ArraysOnly(pickle.Unpickler):
    """Knows nothing but how to put plain arrays together; any other name in the pickle is refused."""

    _known: dict[tuple[str, str], Any] = {  # noqa: RUF012 - a constant table
        ("numpy.core.multiarray", "_reconstruct"): _empty,
        ("numpy._core.multiarray", "_reconstruct"): _empty,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which label files do not need")
        return self._known[module, name]


def read_onehot(path: str | Path, num_classes: int) -> dict[str, NDArray[np.float32]]:
    """Image-level labels published as a pickled dictionary.

    Only dictionaries, texts, numbers and plain arrays are put together; a file that asks for anything else
    is refused before anything of it runs.

    Args:
        path: An .npy file that holds {image name: vector of 0 and 1}.
        num_classes: Length every vector must have.

    Returns:
        {image name: float32 (num_classes,)}.

    Raises:
        DataError: The file is missing, too large, of another shape, or asks for more than arrays.
    """
    path = Path(path)
    try:
        loaded = _load(io.BytesIO(read_bytes(path, _MAX_BYTES)))
    except (OSError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"{path} is not used: {error}") from None
    except (
        TypeError,
        AttributeError,
        IndexError,
        KeyError,
        MemoryError,
        RecursionError,
        OverflowError,
        SyntaxError,
        SystemError,  # what NumPy's dtypes raise of a state that makes no sense
        tokenize.TokenError,
        struct.error,
        zlib.error,
    ) as error:
        raise DataError(f"{path} is damaged: {type(error).__name__}: {error}") from None
    if not isinstance(loaded, dict) or not all(_is_vector(v, num_classes) for v in loaded.values()):
        raise DataError(f"{path} must hold a dictionary from image names to vectors of {num_classes} values")
    return {str(name): np.asarray(vector, np.float32) for name, vector in loaded.items()}


def _load(file: io.BytesIO) -> Any:
    version = npy_format.read_magic(file)
    read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    shape, _, dtype = read(file)
    if shape != () or not dtype.hasobject:
        raise ValueError("it is an array of numbers, not a dictionary of labels")
    _check_memo(file)
    loaded = _ArraysOnly(file).load()
    return loaded.item() if isinstance(loaded, np.ndarray) and loaded.shape == () else loaded


def _check_memo(file: io.BytesIO) -> None:
    """Refuse a pickle whose memo is numbered higher than it is long: unpickling clears memory up to there.

    Raises:
        ValueError: It is.
    """
    start = file.tell()
    rest = file.getbuffer().nbytes - start
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in _MEMO and isinstance(argument, int) and argument > rest:
            raise ValueError(f"its memo is numbered up to {argument}, which no label file needs")
    file.seek(start)


def _is_vector(value: Any, length: int) -> bool:
    return isinstance(value, np.ndarray) and value.shape == (length,) and value.dtype.kind in "fiub"

"""Memory on the CPU: what happens to that which a training frees, and what is done about a limit of it."""

from __future__ import annotations

import ctypes
import importlib
import mmap
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

__all__ = ["address_space", "keep_freed_memory", "near_limit", "room_kept"]

# Numbers of mallopt(3): how much is kept at the end of the heap, how much it grows by, what is mapped apart.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
# glibc accepts no larger limit for what is mapped apart than 32 MiB.
_KEPT, _STEP, _APART = 2**31 - 1, 2**28, 2**25
_ROOM = 2**26
"""Bytes of address space kept for saying what went wrong; no more than a sixteenth of the limit."""
_LARGE = 2**34
"""A limit from which every PyTorch can be loaded: those with CUDA take 3 to 10 GB of addresses."""
_BESIDES = 3 * 2**27
"""Bytes for what is loaded after PyTorch, some 400 MB; in less, a library may end the process."""
_BLAS = 2**28
"""Bytes for linear algebra: some 40 MB of code, and 32 MiB for each of its threads."""


def keep_freed_memory() -> bool:
    """Let glibc keep freed tensors' memory for the next ones instead of giving it back to the system.

    Large tensors otherwise get fresh pages at every allocation, and the system clears each of them.
    Peak memory stays the same; it is held until the process ends.

    Returns:
        Whether it could be done: on Linux with glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    wanted = ((_MMAP_THRESHOLD, _APART), (_TRIM_THRESHOLD, _KEPT), (_TOP_PAD, _STEP))
    accepted = [mallopt(number, value) == 1 for number, value in wanted]
    return all(accepted)


def address_space() -> int | None:
    """Bytes of address space this process may have (``ulimit -v``); None where nothing limits them."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    except (ImportError, OSError):  # another system
        return None
    return None if limit == resource.RLIM_INFINITY else limit


def near_limit(share: float = 0.75) -> bool:
    """Whether this process has come near a limit of its address space (``ulimit -v``).

    Libraries that get no memory there fail in many ways, and few of them say why.

    Args:
        share: Of the limit; so much it has had at once.
    """
    limit = address_space()
    if limit is None:
        return False
    try:
        # No text, which would need a codec, and that an import.
        found = re.search(rb"VmPeak:\s+(\d+)", Path("/proc/self/status").read_bytes())
    except Exception:  # another system, or no memory to read a file, which has many faces
        return sys.platform.startswith("linux")
    return found is not None and 1024 * int(found[1]) > share * limit


@contextmanager
def room_kept() -> Iterator[None]:
    """While it lasts, a limited address space is a little smaller: what is left over serves to say that.

    PyTorch is then tried in a process of its own before it is loaded, for it ends a process that has too
    little room for its libraries; the linear algebra of NumPy and SciPy waits for room forever.

    Raises:
        MemoryError: One of them cannot be loaded within the limit.
    """
    limit = address_space()
    if limit is None:
        yield
        return
    gate = _Gate(limit)
    _set_limit(limit - min(_ROOM, limit // 16))
    sys.meta_path.insert(0, gate)
    try:
        yield
    finally:
        # First of all, as anything else may need memory.
        _set_limit(limit)
        sys.meta_path.remove(gate)


def _set_limit(limit: int) -> None:
    import resource

    with suppress(OSError, ValueError):  # the system keeps its limit
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


class _Gate:
    """Finds no module, but sees that one is about to be loaded which takes a small limit badly."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.watched = {"torch", "numpy", "scipy"} if limit < _LARGE else set()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name not in self.watched:
            return
        self.watched.remove(name)
        if _fits("torch", _BESIDES) if name == "torch" else _is_there(_BLAS):
            return
        raise MemoryError(f"{name} does not fit into {self.limit / 1e9:.1f} GB of addresses")


def _is_there(size: int) -> bool:
    """Whether so many bytes of address space are left."""
    try:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ).close()
    except OSError:
        return False
    return True


def _fits(module: str, room: int) -> bool:
    """Whether a module can be loaded so that some address space is left; tried in a process of its own.

    What else is wrong with it is met again by who loads it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about threads: a library's own are none of those that hold locks
        child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    fits = True
    try:
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        importlib.import_module(module)
        fits = _is_there(room)
    except (MemoryError, SystemError):
        fits = False
    finally:
        os._exit(not fits)

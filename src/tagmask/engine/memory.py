"""Memory on the CPU: what happens to that which a training frees, and whether a limit is reached."""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path

__all__ = ["keep_freed_memory", "near_limit"]

# Numbers of mallopt(3): how much is kept at the end of the heap, how much it grows by, what is mapped apart.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
# glibc accepts no larger limit for what is mapped apart than 32 MiB.
_KEPT, _STEP, _APART = 2**31 - 1, 2**28, 2**25


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


def near_limit(share: float = 0.75) -> bool:
    """Whether this process has come near a limit of its address space (``ulimit -v``).

    Libraries that get no memory there fail in many ways, and few of them say why.

    Args:
        share: Of the limit; so much it has had at once.
    """
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return False
        found = re.search(r"VmPeak:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))
    except (ImportError, OSError):  # another system
        return False
    return found is not None and 1024 * int(found[1]) > share * limit

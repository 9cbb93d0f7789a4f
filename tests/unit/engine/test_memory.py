"""Freed memory stays with the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

# In a process of its own: what other tests left on the heap decides where large tensors go.
PROGRAM = """
import resource, torch
from tagmask.engine.memory import keep_freed_memory

def faults(size, times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(size, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

kept = keep_freed_memory()
faults(2**24, 8)  # until every place in use has its pages
print(kept, faults(2**24, 5))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_large_tensors_reuse_their_pages():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    kept, faults = done.stdout.split()
    if kept == "False":
        pytest.skip("another C library")
    assert int(faults) < 4096  # pages of one such tensor

"""Freed memory stays with the process."""

from __future__ import annotations

import resource
import sys

import pytest
import torch

from tagmask.engine.memory import keep_freed_memory


def faults_of_filling(size: int, times: int) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(size, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_large_tensors_reuse_their_pages():
    if not keep_freed_memory():
        pytest.skip("another C library")
    size = 2**26  # above the largest limit glibc would ever choose by itself
    faults_of_filling(size, 1)
    assert faults_of_filling(size, 5) < size // 4096

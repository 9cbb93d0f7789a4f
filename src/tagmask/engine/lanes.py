"""Several images at once on a CPU, each on a share of its threads: one alone does not keep them all busy."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import nn

__all__ = ["in_lanes", "lanes_for"]

_LANES = 2
"""More would hold as many images and their features in memory, and gain little."""
_LIGHT = 40_000_000
"""Parameters of a network up to the size of ViT-S; features of two images fit into memory, too."""

Job = TypeVar("Job")


def lanes_for(device: torch.device, network: nn.Module | None = None) -> int:
    """How many images are worked on at once.

    Args:
        device: Lanes are for the CPU; a GPU works on one image at a time.
        network: What they go through, if anything; a large one keeps all threads busy by itself.
    """
    if device.type != "cpu" or torch.get_num_threads() < 2:
        return 1
    size = 0 if network is None else sum(parameter.numel() for parameter in network.parameters())
    return _LANES if size < _LIGHT else 1


def in_lanes(
    work: Callable[[Job], None], jobs: Iterable[Job], lanes: int, alone: Callable[[Job], bool]
) -> Generator[Job, None, None]:
    """Do `work` for every job, `lanes` of them at once; gives the jobs in their order, each when it is done.

    While there are lanes, each has its share of PyTorch's threads; afterwards they are as before. Close the
    generator to leave early: what has begun is finished, the rest is not begun.

    Args:
        work: Done in another thread, so it must keep nothing that two jobs share.
        jobs: Taken one after the other, a little ahead.
        lanes: 1 does everything in this thread.
        alone: Jobs that nothing else is done beside, because they need much memory.

    Raises:
        Exception: What `work` or `jobs` raised, in the order of the jobs.
    """
    threads = torch.get_num_threads()
    if lanes < 2:
        for job in jobs:
            work(job)
            yield job
        return
    share = max(1, threads // lanes)
    waiting: deque[tuple[Job, Future[None]]] = deque()

    def finished(left: int) -> Iterator[Job]:
        while len(waiting) > left:
            job, future = waiting.popleft()
            future.result()
            yield job

    pool = ThreadPoolExecutor(lanes, initializer=torch.set_num_threads, initargs=(share,))
    try:
        for job in jobs:
            if alone(job):
                yield from finished(0)
                work(job)
                yield job
                continue
            waiting.append((job, pool.submit(work, job)))
            yield from finished(lanes)  # one more than there are lanes, so that none waits for this thread
        yield from finished(0)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)

"""What holds for the whole suite."""

from __future__ import annotations

import os

# Set before anything imports PyTorch. Two test processes with two threads each on two cores only wait for
# one another; a suite in one process keeps all cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

"""Start `tagmask` on several processes of this machine, as its users do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch(
    processes: int, arguments: Sequence[object], *options: str, strike: str = ""
) -> subprocess.Popen[str]:
    """The launcher; its children are the processes. `strike` is "SIGNAL MOMENT KEY COUNT" of strike.py."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    command += [f"--master-port={free_port()}", *options]
    command += [str(Path(__file__).with_name("strike.py")), *strike.split()] if strike else ["-m", "tagmask"]
    command += map(str, arguments)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)

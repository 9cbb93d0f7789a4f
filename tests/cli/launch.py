"""Start `tagmask` on several processes of this machine, as its users do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch(processes: int, arguments: Sequence[object], *options: str) -> subprocess.Popen[str]:
    """The launcher; its children are the processes."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    command += [f"--master-port={free_port()}", *options, "-m", "tagmask", *map(str, arguments)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def ranks(launcher: subprocess.Popen[str]) -> dict[int, int]:
    """Process number to process id of the launcher's children, as far as they are started."""
    found = {}
    with open(f"/proc/{launcher.pid}/task/{launcher.pid}/children") as file:
        children = file.read().split()
    for pid in children:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                values = dict(item.split(b"=", 1) for item in file.read().split(b"\0") if b"=" in item)
        except OSError:
            continue
        if b"RANK" in values:
            found[int(values[b"RANK"])] = int(pid)
    return found

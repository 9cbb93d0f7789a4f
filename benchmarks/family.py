"""What a process and all that it started hold and use, read from Linux's /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def family(root: int) -> Iterator[tuple[int, str, float, float]]:
    """(process, name, MiB not shared with others, processor seconds) of a process and all it started."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, ValueError):
            continue
        parents.setdefault(parent, []).append(int(entry.name))
    todo, tick = [root], os.sysconf("SC_CLK_TCK")
    while todo:
        pid = todo.pop()
        todo += parents.get(pid, [])
        try:
            name = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            used = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        except OSError:
            continue
        pss = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        yield pid, name, pss / 1024, sum(map(int, used)) / tick

"""How long an update takes beside another busy program, by how waiting threads wait.

``python benchmarks/waiting.py --machine TEXT --out FILE``

An update of the segmentation network of recipe "auto" (16 views of 224 pixels, random weights), alone and
beside a process that keeps a core busy; with threads that spin as long as by default before they sleep, and
with the few turns that the command ``tagmask`` asks for (GOMP_SPINCOUNT).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

COMMAND = "python benchmarks/waiting.py --machine TEXT --out benchmarks/results/waiting.json"
BUSY = "while True: pass"
SPINS = {"PyTorch's default": None, "the command's": "5000"}


def update() -> float:
    """Seconds of one update: the median of five measurements."""
    from tagmask.pipeline.config import read_config
    from tagmask.pipeline.speed import Meter, network_of

    config = read_config("auto", {"runtime.precision": "bf16"})
    student = config.student
    assert student is not None
    meter = Meter(config, 6)
    found = [meter.update(student.method, network_of(config, "student"), student.train) for _ in range(5)]
    return statistics.median(seconds for seconds in found if seconds is not None)


def measured(spins: str | None, busy: bool) -> float:
    """Seconds of one update in a process of its own."""
    env = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    env |= {} if spins is None else {"GOMP_SPINCOUNT": spins}
    other = subprocess.Popen([sys.executable, "-c", BUSY]) if busy else None
    try:
        done = subprocess.run(
            [sys.executable, __file__, "--one"], env=env, check=True, capture_output=True, text=True
        )
    finally:
        if other is not None:
            other.kill()
            other.wait()
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--machine", default="")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.one:
        print(update())
        return
    rows = [
        {
            "turns before sleep": name,
            "beside a busy process": busy,
            "seconds": round(measured(spins, busy), 2),
        }
        for name, spins in SPINS.items()
        for busy in (False, True)
    ]
    record = {"rows": rows, "machine": args.machine, "seed": 0, "command": COMMAND}
    args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Kill a bulk run many times at random moments and compare its files with an undisturbed run's, byte by byte.

python tools/kill_bulk_often.py --kills 20 --out benchmarks/results/killed_bulk.json
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import torch

from tagmask.data.classes import ClassTable
from tagmask.data.datasets.scenes import CLASSES, write_dataset
from tagmask.models.trained import build_method, save_method

VIT = "vit:patch=8,dim=32,depth=3,heads=2,size=64"
FLAGS = [
    "--engine=ray", "--workers=2", "--device=cpu", "--scales=1", "--batch-size=4", "--set=overlays=false",
]  # fmt: skip


def command(model: Path, images: Path, out: Path) -> list[str]:
    start = [sys.executable, "-m", "tagmask", "predict", str(model), str(images), "--out", str(out)]
    return [*start, *FLAGS]


def count(out: Path) -> int:
    """Masks that are there; folders may go while they are counted."""
    return sum(name.endswith(".png") for _, _, names in os.walk(out / "masks") for name in names)


def live(arguments: list[str], out: Path, goal: int | None = None, more: float = 0.0) -> int | None:
    """Run, and SIGKILL it with all its workers `more` seconds after it has `goal` masks.

    Returns:
        None if it was killed, else its exit code.
    """
    process = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while goal is not None and process.poll() is None and count(out) < goal:
        time.sleep(0.005)
    try:
        return process.wait(timeout=None if goal is None else more)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None


def contents(out: Path) -> dict[str, str]:
    """Every file a picture has, with its checksum, and the rows of the summary in their order."""
    files = {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in ("masks", "confidence")
        for path in sorted((out / folder).rglob("*"))
        if path.is_file()
    }
    with (out / "summary.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    return {**files, "summary.csv": hashlib.sha256(json.dumps(rows).encode()).hexdigest()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--images", type=int, default=1600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as place:
        images = write_dataset(Path(place) / "data", args.images, 0, size=64) / "images"
        torch.manual_seed(0)
        method = build_method("more", {"backbone": VIT, "weights": "none"}, len(CLASSES)).eval()
        model = Path(place) / "model"
        save_method(model, method, "more", ClassTable(tuple(CLASSES)), {}, {})
        whole, killed = Path(place) / "whole", Path(place) / "killed"
        started = time.monotonic()
        code = live(command(model, images, whole), whole)
        alone = time.monotonic() - started
        lives = []
        step = args.images // (args.kills + 4)
        while len(lives) < args.kills:
            # After some more masks, at any moment of a chunk or a write; every fifth before its first mask.
            goal = count(killed) + (0 if len(lives) % 5 == 4 else rng.randint(1, step))
            more = rng.uniform(0.0, 3.0 if len(lives) % 5 == 4 else 0.3)
            said = live(command(model, images, killed), killed, goal, more)
            if said is not None:
                sys.exit(f"it ended with {said} after {len(lives)} kills; give it more --images")
            lives.append({"seconds_after": round(more, 3), "masks": count(killed)})
            print(lives[-1], flush=True)
        last = live(command(model, images, killed), killed)
        first, second = contents(whole), contents(killed)
        result = {
            "about": {
                "command": f"python tools/kill_bulk_often.py --kills {args.kills} --images {args.images} "
                f"--seed {args.seed} --out {args.out}",
                "machine": f"{os.cpu_count()}-core CPU, {platform.machine()}, two workers of one thread",
                "versions": {name: version(name) for name in ("torch", "ray", "tagmask")},
            },
            "images": args.images,
            "seconds_undisturbed": round(alone, 1),
            "kills": lives,
            "exit_codes": [code, last],
            "masks": count(killed),
            "files_byte_equal": first == second,
        }
    args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print({key: result[key] for key in ("exit_codes", "masks", "files_byte_equal")})


if __name__ == "__main__":
    main()

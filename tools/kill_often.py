"""Kill a training many times at random moments and compare its end with an undisturbed one, bit by bit.

python tools/kill_often.py --kills 20 --out benchmarks/results/killed_training.json
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from tagmask.data.datasets.scenes import write_dataset
from tagmask.models.checkpoint import load_model

FLAGS = [
    "--method=more", "--backbone=vit:patch=8,dim=32,depth=2,heads=2,size=64", "--weights=none", "--size=64",
    "--batch-size=2", "--device=cpu", "--set=model.aux_block=-2", "--set=model.scales=[1.0,0.5]",
    "--set=model.seg_from=20", "--set=train.tensorboard=false", "--set=runtime.threads=1",
    "--set=train.eval_maps.kinds=[cam]", "--set=train.eval_every=30", "--set=train.save_every=2",
]  # fmt: skip


def command(data: Path, out: Path, iterations: int) -> list[str]:
    start = [sys.executable, "-m", "tagmask", "train", "--data", str(data), "--out", str(out)]
    return [*start, f"--iterations={iterations}", *FLAGS]


def step(folder: Path) -> int:
    """Step of the newest saved state."""
    files = sorted((folder / "train" / "checkpoints").glob("step-*"))
    return int(files[-1].stem.removeprefix("step-")) if files else 0


def live(arguments: list[str], folder: Path, goal: int | None = None, more: float = 0.0) -> str | None:
    """Run, and SIGKILL it `more` seconds after a state of step `goal` or later is there.

    Returns:
        None if it was killed, else what it said.
    """
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while goal is not None and process.poll() is None and step(folder) < goal:
        time.sleep(0.005)
    try:
        return process.communicate(timeout=None if goal is None else more)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None


def rows(folder: Path) -> list[dict[str, str]]:
    """The log without its clock."""
    clock = ("steps_per_second", "images_per_second")
    with (folder / "train" / "log.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in clock} for row in csv.DictReader(file)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as place:
        data = write_dataset(Path(place) / "data", 12, 4, size=64)
        whole, killed = Path(place) / "whole", Path(place) / "killed"
        started = time.monotonic()
        print(live(command(data, whole, args.iterations), whole))
        alone = time.monotonic() - started
        lives = []
        while len(lives) < args.kills:
            # A few steps later, at any moment of a step, an evaluation or a write.
            goal, more = step(killed) + rng.choice((2, 4)), rng.uniform(0.0, 0.4)
            said = live([*command(data, killed, args.iterations), "--resume"], killed, goal, more)
            if said is not None:
                sys.exit(f"it ended after {len(lives)} kills; give it more --iterations\n{said}")
            lives.append({"seconds_after_state": round(more, 3), "newest_state": step(killed)})
            print(lives[-1], flush=True)
        print(live([*command(data, killed, args.iterations), "--resume"], killed))
        first, second = load_model(whole / "model")[0], load_model(killed / "model")[0]
        result = {
            "about": {
                "command": f"python tools/kill_often.py --kills {args.kills} --iterations {args.iterations} "
                f"--seed {args.seed} --out {args.out}",
                "machine": f"{os.cpu_count()}-core CPU, {platform.machine()}, one thread",
                "versions": {name: version(name) for name in ("torch", "safetensors", "tagmask")},
            },
            "iterations": args.iterations,
            "seconds_undisturbed": round(alone, 1),
            "kills": lives,
            "weights_bit_equal": first.keys() == second.keys()
            and all(first[k].equal(second[k]) for k in first),
            "log_equal": rows(whole) == rows(killed),
            "scores_equal": (whole / "train/scores.csv").read_bytes()
            == (killed / "train/scores.csv").read_bytes(),
        }
    args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print({key: result[key] for key in ("weights_bit_equal", "log_equal", "scores_equal")})


if __name__ == "__main__":
    main()

"""Train on one, two and four processes with the same global batch, and compare every logged loss.

python benchmarks/processes.py --out benchmarks/results/processes.json
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from tagmask.data.datasets.scenes import write_dataset
from tagmask.models.checkpoint import load_model

VIT = "vit:patch=8,dim=64,depth=4,heads=2,size=64"
# Stages that begin late in a paper begin early here, so that every loss takes part in 50 updates.
METHODS = {
    "more": ["--method=more", f"--backbone={VIT}", "--set=model.aux_block=-2", "--set=model.seg_from=10"],
    "afa": ["--method=afa", "--backbone=mit_b0", "--set=model.tags_until=10", "--set=model.walk_after=25"],
}
SAME = [
    "--weights=none", "--size=64", "--device=cpu", "--batch-size=4", "--seed=0", "--set=runtime.threads=1",
    "--set=train.log_every=1", "--set=train.eval_every=0", "--set=train.tensorboard=false",
]  # fmt: skip
PAIRS = ((2, 1, 2), (4, 1, 4), (2, 1, 1))
"""(processes, processes of the other run, its micro-batches)."""


def train(data: Path, out: Path, method: str, iterations: int, processes: int, parts: int) -> Path:
    """A training; gives its folder. One that is there already is not done again."""
    folder = out / f"{method}-{processes}x{parts}"
    if not folder.exists():
        start = [sys.executable, "-m"]
        if processes > 1:
            start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
        flags = [*METHODS[method], *SAME, f"--iterations={iterations}", f"--set=train.accumulate={parts}"]
        command = [*start, "tagmask", "train", "--data", str(data), "--out", str(folder), *flags]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return folder


def losses(folder: Path) -> list[dict[str, float]]:
    """Loss name to value, a row per update."""
    skip = ("step", "lr", "skipped", "steps_per_second", "images_per_second")
    with (folder / "train" / "log.csv").open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v and k not in skip} for row in csv.DictReader(file)]


def compare(first: Path, second: Path) -> dict[str, object]:
    """Largest difference of every loss relative to its value, and of the weights."""
    rows = list(zip(losses(first), losses(second), strict=True))
    names = sorted({name for row, _ in rows for name in row})
    worst = {
        name: max(abs(a[name] - b[name]) / max(abs(b[name]), 1e-9) for a, b in rows if name in a)
        for name in names
    }
    first_update = max(abs(rows[0][0][n] - rows[0][1][n]) / max(abs(rows[0][1][n]), 1e-9) for n in rows[0][0])
    a, b = load_model(first / "model")[0], load_model(second / "model")[0]
    learned = [k for k in a if a[k].is_floating_point() and "running_" not in k]
    return {
        "updates": len(rows),
        "losses_relative": {name: float(f"{value:.3g}") for name, value in worst.items()},
        "first_update_relative": float(f"{first_update:.3g}"),
        "weights_absolute": max((a[k] - b[k]).abs().max().item() for k in learned),
        "weights_bit_equal": all(a[k].equal(b[k]) for k in learned),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        data = write_dataset(Path(folder) / "data", 24, 4, size=64)
        for method in METHODS:
            for processes, other, parts in PAIRS:
                first = train(data, Path(folder), method, args.iterations, processes, 1)
                second = train(data, Path(folder), method, args.iterations, other, parts)
                key = f"{method}: {processes} processes / {other} process, {parts} micro-batches"
                results[key] = compare(first, second)
                print(key, json.dumps(results[key]))
    about = {
        "command": f"python benchmarks/processes.py --iterations {args.iterations} --out {args.out}",
        "machine": f"{os.cpu_count()}-core CPU, {platform.machine()}",
        "versions": {name: version(name) for name in ("torch", "accelerate", "tagmask")},
        "seed": 0,
        "global_batch": 4,
    }
    args.out.write_text(json.dumps({"about": about, "results": results}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

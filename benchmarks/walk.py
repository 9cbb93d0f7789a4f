"""Time and memory of the random walk on one 375 x 500 image: ``python benchmarks/walk.py [--out FILE]``.

The other side is the usual formulation, written here from its description: the features of all pairs gathered
at once, a dense N x N transition matrix, squared log2(steps) times, and a row for every class of the data
set.
Peaks are those of a fresh process that does nothing else, PyTorch's own memory included.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from refine import high_water
from torch import Tensor
from turns import in_turn

from tagmask.methods.affinity_net import AffinityNet, AffinityNetConfig
from tagmask.ops.affinity_pairs import pair_affinity, pair_offsets, walk_scores

HEIGHT, WIDTH, STRIDE, RADIUS, BETA, CLASSES, PRESENT = 375, 500, 8, 5, 8.0, 20, 2
GRID = (-(-HEIGHT // STRIDE), -(-WIDTH // STRIDE))


def given() -> tuple[Tensor, Tensor]:
    """Smooth features of AffinityNet's size and scores of background and two classes."""
    torch.manual_seed(0)
    features = F.interpolate(torch.randn(1, 448, 6, 8), GRID, mode="bicubic")
    return features, F.interpolate(torch.rand(1, 1 + PRESENT, 12, 16), (HEIGHT, WIDTH), mode="bilinear")[0]


def ours(features: Tensor, scores: Tensor, steps: int) -> Tensor:
    affinity = pair_affinity(features, RADIUS)[0]
    return walk_scores(scores, affinity, STRIDE, RADIUS, BETA, steps)


def dense(features: Tensor, scores: Tensor, steps: int) -> Tensor:
    height, width = GRID
    index = torch.arange(height * width).view(GRID)
    reach = RADIUS - 1
    start = index[: height - reach, reach : width - reach].flatten()
    end = torch.stack([start + down * width + right for down, right in pair_offsets(RADIUS)])
    flat = features[0].flatten(1)
    affinity = torch.exp(-(flat[:, None, start] - flat[:, end.flatten()].view(-1, *end.shape)).abs().mean(0))
    start = start.expand_as(end)
    places = torch.stack(
        [torch.cat([start.flatten(), end.flatten(), index.flatten()]),
         torch.cat([end.flatten(), start.flatten(), index.flatten()])]
    )  # fmt: skip
    values = torch.cat([affinity.flatten(), affinity.flatten(), torch.ones(index.numel())])
    matrix = torch.sparse_coo_tensor(places, values, check_invariants=False).to_dense() ** BETA
    matrix = matrix / matrix.sum(0, keepdim=True)
    for _ in range(int(math.log2(steps))):
        matrix = matrix @ matrix
    every = torch.zeros(CLASSES + 1, HEIGHT, WIDTH)
    every[: len(scores)] = scores
    padded = F.pad(every, (0, width * STRIDE - WIDTH, 0, height * STRIDE - HEIGHT))
    walked = (F.avg_pool2d(padded, STRIDE).flatten(1) @ matrix).view(1, CLASSES + 1, *GRID)
    large = F.interpolate(walked, padded.shape[1:], mode="bilinear")[0]
    return large[: len(scores), :HEIGHT, :WIDTH]


def peak(side: str, steps: int) -> float:
    """Largest resident size in megabytes of this process after one call."""
    features, scores = given()
    if side == "nothing":
        return high_water()
    if side == "network":
        net = AffinityNet(AffinityNetConfig(weights="none"), CLASSES).eval()
        net.walk(torch.rand(3, HEIGHT, WIDTH), scores, BETA, steps)
    else:
        {"ours": ours, "dense": dense}[side](features, scores, steps)
    return high_water()


def compare(steps: int, rounds: int) -> dict[str, Any]:
    features, scores = given()
    first, second = ours(features, scores, steps), dense(features, scores, steps)
    mine, other = in_turn(
        lambda: ours(features, scores, steps), lambda: dense(features, scores, steps), rounds
    )
    command = [sys.executable, __file__, "--steps", str(steps), "--peak"]
    peaks = {
        side: float(subprocess.run([*command, side], capture_output=True, text=True, check=True).stdout)
        for side in ("nothing", "ours", "dense", "network")
    }
    return {
        "steps": steps,
        "ours_seconds": round(mine / 1000, 3),
        "dense_seconds": round(other / 1000, 3),
        "speedup": round(other / mine, 1),
        "peak_mb": {side: round(value) for side, value in peaks.items()},
        "largest_difference": float((first - second).abs().max()),
        "labels_that_differ": float((first.argmax(0) != second.argmax(0)).float().mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "random_walk.json")
    parser.add_argument("--steps", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--peak", choices=["nothing", "ours", "dense", "network"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.peak:
        print(peak(args.peak, args.steps[0]))
        return
    record = {
        "task": f"{HEIGHT} x {WIDTH} image, {GRID[0]} x {GRID[1]} cells, 448 features, {PRESENT} classes",
        "includes": "pair affinities from given features, walk, bilinear enlargement; the network only in "
        "peak_mb.network (ResNet-38, random weights)",
        "command": "python benchmarks/walk.py",
        "machine": f"CPU, 1 thread, {platform.machine()}",
        "seed": 0,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "results": [compare(steps, args.rounds) for steps in args.steps],
    }
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["results"], indent=1))


if __name__ == "__main__":
    main()

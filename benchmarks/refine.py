"""Speed and memory of refinement and regularisation: ``python benchmarks/refine.py [--threads 1 2]``.

Each comparison runs both sides in turn in one process and reports medians. On one CPU thread the clock is the
own processor time, which other programs on the machine hardly disturb; otherwise it is the wall clock. The
other side of PAR is written below; those of the CRF and the energy filter run where their extension modules
(`pydensecrf`, `bilateralfilter`) can be imported, and are left out elsewhere.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import math
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from turns import in_turn

from tagmask.data.datasets.scenes import render
from tagmask.engine.memory import keep_freed_memory
from tagmask.losses.energy import dense_energy
from tagmask.ops.crf import CRF, dense_crf
from tagmask.ops.crf_presets import PRESETS, unary_from_probabilities
from tagmask.ops.lattice import Lattice
from tagmask.ops.pixel_refinement import PAR_DILATIONS, apply_par, par, par_kernel

COLUMNS = ["task", "setting", "threads", "ours_ms", "other", "other_ms", "speedup", "agreement", "note"]
NUM_SCENES = 3
Pair = Callable[[Callable[[], Any], Callable[[], Any] | None], tuple[float, float]]


def stacked_par(images: Tensor, maps: Tensor, iterations: int = 10) -> Tensor:
    """PAR as it is usually written: every neighbour of every pixel as a copy."""

    def near(values: Tensor) -> Tensor:
        height, width = values.shape[2:]
        planes = []
        for d in PAR_DILATIONS:
            padded = F.pad(values, [d] * 4, mode="replicate")
            for dy, dx in ((a, b) for a in (0, d, 2 * d) for b in (0, d, 2 * d) if (a, b) != (d, d)):
                planes.append(padded[:, :, dy : dy + height, dx : dx + width])
        return torch.stack(planes, 2)

    colours = near(images)
    deviation = colours.std(2, keepdim=True)
    alike = -(((colours - images.unsqueeze(2)).abs() / (deviation + 1e-8) / 0.3) ** 2)
    kernel = torch.softmax(alike.mean(1, keepdim=True), 2)
    ring = [math.sqrt(2), 1, math.sqrt(2), 1, 1, math.sqrt(2), 1, math.sqrt(2)]
    distance = images.new_tensor([d * r for d in PAR_DILATIONS for r in ring]).view(1, 1, -1, 1, 1)
    place = -((distance / (distance.std(2, keepdim=True) + 1e-8) / 0.3) ** 2)
    kernel = kernel + 0.01 * torch.softmax(place, 2)
    for _ in range(iterations):
        maps = (near(maps) * kernel).sum(2)
    return maps


def scene(index: int, height: int, width: int) -> Tensor:
    """A procedural picture, uint8 (H, W, 3)."""
    return torch.from_numpy(render(index, seed=11, size=max(height, width)).image[:height, :width].copy())


def scores(num_labels: int, height: int, width: int, seed: int) -> Tensor:
    """Smooth class probabilities, (K, H, W)."""
    coarse = torch.randn(1, num_labels, 12, 16, generator=torch.Generator().manual_seed(seed))
    return torch.softmax(3 * F.interpolate(coarse, (height, width), mode="bicubic"), 1)[0]


def row(
    task: str, setting: str, times: Sequence[tuple[float, float]], other: str, **more: str
) -> dict[str, Any]:
    """One line of the table from the times on every scene."""
    ours, theirs = (statistics.median(side) for side in zip(*times, strict=True))
    known = not math.isnan(theirs)
    return {
        "task": task,
        "setting": setting,
        "threads": torch.get_num_threads(),
        "ours_ms": f"{ours:.1f}",
        "other": other if known else "not installed",
        "other_ms": f"{theirs:.1f}" if known else "",
        "speedup": f"{statistics.median(b / a for a, b in times):.2f}" if known else "",
        **more,
    }


def bench_par(device: str, measure: Pair) -> list[dict[str, Any]]:
    """MoRe's and AFA's sizes: a 448 pixel crop halved, and the batch of a training step."""
    rows = []
    for batch, channels, side in ((1, 3, 224), (1, 21, 224), (4, 8, 112)):
        images = (
            torch.stack([scene(i, side, side) for i in range(batch)]).permute(0, 3, 1, 2).to(device) / 255
        )
        maps = torch.stack([scores(channels, side, side, i) for i in range(batch)]).to(device)
        gap = float((par(images, maps) - stacked_par(images, maps)).abs().max())
        pair = measure(lambda i=images, m=maps: par(i, m), lambda i=images, m=maps: stacked_par(i, m))
        setting = f"{batch}x{channels}x{side}x{side}, 10 iterations"
        rows.append(row("par", setting, [pair], "stacked copies", agreement=f"max difference {gap:.1e}"))
        kernel = par_kernel(images)
        alone, _ = measure(lambda k=kernel, m=maps: apply_par(k, m), None)
        # What has to move at least: the kernel once per iteration, and the maps in and out.
        moved = 10 * 4 * (kernel.numel() + 2 * maps.numel()) / 1e9
        note = f"{moved / alone * 1e3:.1f} GB/s of unavoidable traffic"
        rows.append(row("par, kernel given", setting, [(alone, math.nan)], "", note=note) | {"other": ""})
    return rows


def bench_crf(device: str, measure: Pair) -> list[dict[str, Any]]:
    """A VOC-sized picture with 21 labels, and with 81 of which 4 can occur."""
    rows = []
    for name, count, present in (
        ("psa_softmax", 21, None),
        ("more", 21, None),
        ("psa_softmax", 81, [0, 5, 17, 60]),
        ("more", 81, [0, 5, 17, 60]),
    ):
        times, wrong = [], []
        for index in range(NUM_SCENES):
            image, probs = scene(index, 366, 500), scores(count, 366, 500, index)
            if present is not None:
                probs = torch.zeros_like(probs)
                probs[present] = scores(len(present), 366, 500, index)
            unary = unary_from_probabilities(probs)
            here, there = image.to(device), unary.to(device)
            other = pydensecrf_runner(image.numpy(), unary.numpy(), name)
            times.append(
                measure(lambda i=here, u=there, n=name, p=present: dense_crf(i, u, PRESETS[n], p), other)
            )
            if other is not None:
                labels = dense_crf(here, there, PRESETS[name], present).argmax(0).cpu().numpy().ravel()
                wrong.append(float((labels != np.array(other()).argmax(0)).mean()))
        share = f"{max(wrong):.4%} of labels differ" if wrong else ""
        what = f"366x500, {count} labels, 10 updates, {name}" + (", absent dropped" if present else "")
        rows.append(row("crf", what, times, "pydensecrf, all labels", agreement=share))
        built, _ = measure(lambda i=here, n=name: CRF(i, PRESETS[n]), None)
        rows[-1]["note"] = f"of it {built:.0f} ms for the image alone, reusable"
    return rows


def pydensecrf_runner(image: Any, unary: Any, name: str) -> Callable[[], Any] | None:
    try:
        densecrf = importlib.import_module("pydensecrf.densecrf")
    except ImportError:
        return None
    params, (height, width) = PRESETS[name], image.shape[:2]
    energy = np.ascontiguousarray(unary.reshape(len(unary), -1))

    def run() -> Any:
        model = densecrf.DenseCRF2D(width, height, len(unary))
        model.setUnaryEnergy(energy)
        model.addPairwiseGaussian(sxy=params.spatial_sigma, compat=params.spatial_weight)
        model.addPairwiseBilateral(
            sxy=params.bilateral_sigma,
            srgb=params.colour_sigma,
            rgbim=image,
            compat=params.bilateral_weight,
        )
        return model.inference(params.iterations)

    return run


def bench_energy(device: str, measure: Pair) -> list[dict[str, Any]]:
    """MoRe's training size: 4 crops of 448 pixels, halved, 21 classes."""
    pictures = torch.stack([scene(i, 224, 224) for i in range(4)]).permute(0, 3, 1, 2).float()
    prob = torch.stack([scores(21, 224, 224, i) for i in range(4)])
    unlabelled = torch.rand(4, 224, 224, generator=torch.Generator().manual_seed(0)) > 0.5
    here = [x.to(device) for x in (pictures, torch.ones(4, 224, 224), unlabelled)]
    variable = prob.clone().to(device).requires_grad_()

    def forward() -> Tensor:
        return dense_energy(variable, *here, 15.0, 50.0)

    other = rloss_runner(pictures.numpy(), prob.numpy())
    loss = None if other is None else usual_loss(prob, unlabelled, other)
    setting = "4x21x224x224 halved from 448"
    bare = measure(lambda: bilateral(here[0], variable.detach()), other)
    rows = [row("energy, lattice and filter", setting, [bare], "C++ filter")]
    rows.append(row("energy, forward", setting, [measure(forward, other)], "C++ filter alone"))
    both = measure(lambda: forward().backward(), loss)
    name = "usual loss around the C++ filter"
    rows.append(row("energy, forward and backward", setting, [both], name))
    return rows


def usual_loss(prob: Tensor, unlabelled: Tensor, run: Callable[[], Any]) -> Callable[[], Any]:
    """Gate, filter, product and gradient of the energy as they are usually written."""
    region = torch.ones(len(prob), 1, *prob.shape[2:])

    def whole() -> tuple[Tensor, Tensor]:
        gate = region - prob.amax(1, keepdim=True)
        gate[unlabelled.unsqueeze(1)] = 1
        gate[gate < 0] = 0
        seen = prob * region
        gated = torch.from_numpy(run()).view_as(prob) * gate
        return -(seen * gated).sum() / len(prob), -2 * gated / len(prob) * region

    return whole


def bilateral(pictures: Tensor, values: Tensor) -> Tensor:
    """What the C++ function does: features, lattices and the unnormalised filter."""
    count, _, height, width = pictures.shape
    down, across = (torch.arange(n, dtype=torch.float32, device=pictures.device) for n in (height, width))
    places = torch.stack(torch.meshgrid(across, down, indexing="xy")) / 50.0
    planes = torch.cat([places.expand(count, -1, -1, -1), pictures / 15.0], 1)
    return Lattice(planes.flatten(2).transpose(1, 2)).filter(values.flatten(2))


def rloss_runner(pictures: Any, prob: Any) -> Callable[[], Any] | None:
    try:
        module = importlib.import_module("bilateralfilter")
    except ImportError:
        return None
    count, channels, height, width = prob.shape
    answer = np.zeros(prob.size, np.float32)

    def run() -> Any:
        module.bilateralfilter_batch(
            pictures.ravel(), prob.ravel(), answer, count, channels, height, width, 15.0, 50.0
        )
        return answer

    return run


def bench_memory() -> list[dict[str, Any]]:
    """Peak memory of PAR over the memory in use before, each side in a process of its own."""
    rows = []
    for channels in (3, 21):
        sizes = []
        for side in ("ours", "stacked"):
            command = [sys.executable, __file__, "--peak", side, "--channels", str(channels)]
            sizes.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        rows.append(
            {
                "task": "par, peak memory",
                "setting": f"1x{channels}x224x224",
                "threads": 1,
                "other": "stacked copies",
                "note": f"{sizes[0]:.0f} MB against {sizes[1]:.0f} MB, {sizes[1] / sizes[0]:.1f} times less",
            }
        )
    return rows


def peak(side: str, channels: int) -> float:
    """Megabytes one PAR call adds to the peak of a fresh process."""
    torch.set_num_threads(1)
    images, maps = torch.rand(1, 3, 224, 224), torch.rand(1, channels, 224, 224)
    function = par if side == "ours" else stacked_par
    small = torch.rand(1, 3, 8, 8)
    function(small, small)
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the high-water mark starts again from here
    before = high_water()
    function(images, maps)
    return high_water() - before


def high_water() -> float:
    """Largest resident size so far in megabytes."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return float(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--patience", type=float, default=0.0, help="seconds per line to wait for a quiet machine"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", choices=["par", "crf", "energy", "memory"], nargs="+")
    parser.add_argument("--out", type=Path, help="default: results/refine-DEVICE-torchVERSION.csv")
    parser.add_argument("--peak", choices=["ours", "stacked"], help=argparse.SUPPRESS)
    parser.add_argument("--channels", type=int, default=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        print(peak(args.peak, args.channels))
        return
    keep_freed_memory()  # as every training and inference of the package does; it serves both sides
    parts = {"par": bench_par, "crf": bench_crf, "energy": bench_energy}
    wanted = args.only or [*parts, "memory"]
    rows = []
    for threads in args.threads:
        torch.set_num_threads(threads)
        for name in (n for n in parts if n in wanted):
            rows += parts[name](args.device, partial(in_turn, rounds=args.rounds, patience=args.patience))
    if "memory" in wanted:
        rows += bench_memory()
    version = torch.__version__.split("+")[0]
    out = args.out or Path(__file__).parent / "results" / f"refine-{args.device}-torch{version}.csv"
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, "machine"], restval="")
        writer.writeheader()
        machine = torch.cuda.get_device_name() if args.device == "cuda" else platform.machine()
        writer.writerows(line | {"machine": machine} for line in rows)
    for line in rows:
        print("  ".join(str(line.get(column, "")) for column in COLUMNS))


if __name__ == "__main__":
    main()

"""Time and memory of one MoRe training step, in units of a plain ViT forward on the same machine.

    python benchmarks/more_step.py [--precision bf16] [--images FOLDER] [--device cuda --size 448 ...]

One unit is the median time of timm's `vit_tiny_patch16_224` on 8 images of 224 px, fp32, no gradient. Units
and steps alternate, so that whatever else the machine does hits both. Parts are timed in separate runs.
"""

from __future__ import annotations

import argparse
import csv
import platform
import resource
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image

import tagmask.methods.more as more
from tagmask.data.datasets.scenes import render
from tagmask.engine.runtime import Runtime
from tagmask.methods.more import MoRe, MoReConfig
from tagmask.training.optim import build_optimizer
from tagmask.types import Batch

RESULTS = Path(__file__).parent / "results" / "more_step.csv"
PARTS = ("cam passes", "refinement", "energy", "forward", "backward", "optimiser")


def main() -> None:
    args = _arguments()
    torch.manual_seed(0)
    Runtime.create(args.device, args.precision, threads=args.threads or None)  # as the command line does
    if args.clock == "cpu":  # processor time of one thread does not see what else the machine does
        _CLOCK[0] = time.process_time
    step, unit = _step(args), _unit(args)
    steps, units = [], []
    for index in range(args.runs + 2):
        singles, whole = [_seconds(unit, args.device) for _ in range(3)], _seconds(step, args.device)
        if index >= 2:  # the first two warm caches up
            units.append(statistics.median(singles))
            steps.append(whole)
    parts = _parts(step, args)
    median, one = statistics.median(steps), statistics.median(units)
    ratio = statistics.median(s / u for s, u in zip(steps, units, strict=True))
    row = {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if args.device == "cuda" else _cpu(),
        "threads": torch.get_num_threads(),
        "backbone": args.backbone,
        "size": args.size,
        "batch": args.batch,
        "classes": args.classes,
        "precision": args.precision,
        "runs": args.runs,
        "clock": args.clock,
        "unit_s": f"{one:.4f}",
        "step_s": f"{median:.4f}",
        "units": f"{median / one:.2f}",
        "units_paired": f"{ratio:.2f}",
        **{f"{part}_s": f"{parts[part]:.4f}" for part in PARTS},
        "peak_mb": f"{_peak(args.device):.0f}",
    }
    for key, value in row.items():
        print(f"{key:>14}: {value}")
    if not args.dry:
        _append(row)


def _step(args: argparse.Namespace) -> Callable[[], None]:
    config = MoReConfig(backbone=args.backbone, seg_from=0)
    model = MoRe(config, args.classes).to(args.device).train()
    batch = _batch(args).to(args.device)
    optimiser = build_optimizer(model.optim_plan(1000))
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(args.precision)

    def run() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(args.device, dtype, enabled=dtype is not None):
            result = model(batch, 0)
        with _TIMER("backward"):
            result.loss.backward()
        with _TIMER("optimiser"):
            optimiser.step()

    return run


def _batch(args: argparse.Namespace) -> Batch:
    if args.images:
        files = sorted(Path(args.images).glob("*.jpg"))[: args.batch]
        pictures = [Image.open(f).convert("RGB").resize((args.size, args.size), Image.BICUBIC) for f in files]
        arrays = [np.asarray(picture) for picture in pictures]
    else:
        arrays = [np.asarray(render(i, 0, args.size).image) for i in range(args.batch)]
    images = torch.stack([torch.from_numpy(np.array(a)).permute(2, 0, 1).float() / 255 for a in arrays])
    tags = torch.zeros(args.batch, args.classes)
    for index in range(args.batch):  # one class per image, two in every fourth: as in photographs of animals
        tags[index, index % args.classes] = 1
        if index % 4 == 3:
            tags[index, (index + 1) % args.classes] = 1
    return Batch(images, tags, tuple(str(i) for i in range(args.batch)))


def _unit(args: argparse.Namespace) -> Callable[[], None]:
    model = timm.create_model("vit_tiny_patch16_224").eval().to(args.device)
    images = torch.rand(8, 3, 224, 224, device=args.device)

    @torch.no_grad()
    def run() -> None:
        model(images)

    return run


class _Timer:
    """Adds up seconds by part while it is on; a part inside another one is taken out of the outer."""

    def __init__(self) -> None:
        self.on, self.device = False, "cpu"
        self.seconds: dict[str, float] = defaultdict(float)
        self._stack: list[float] = []

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        if not self.on:
            yield
            return
        start = _now(self.device)
        self._stack.append(0.0)
        yield
        spent, inner = _now(self.device) - start, self._stack.pop()
        self.seconds[part] += spent - inner
        if self._stack:
            self._stack[-1] += spent


_TIMER = _Timer()
_CLOCK = [time.perf_counter]


def _parts(step: Callable[[], None], args: argparse.Namespace) -> dict[str, float]:
    _TIMER.device = args.device
    wrapped = {"multi_scale": "cam passes", "refine_labels": "refinement", "dense_energy_loss": "energy"}
    originals = {name: getattr(more, name) for name in wrapped}
    for name, part in wrapped.items():
        setattr(more, name, _timed(originals[name], part))
    forward = MoRe.forward
    MoRe.forward = _timed(forward, "forward")  # type: ignore[method-assign]
    rounds = []
    for _ in range(args.runs):
        _TIMER.seconds.clear()
        _TIMER.on = True
        step()
        _TIMER.on = False
        rounds.append(dict(_TIMER.seconds))
    MoRe.forward = forward  # type: ignore[method-assign]
    for name, function in originals.items():
        setattr(more, name, function)
    return {part: statistics.median(r.get(part, 0.0) for r in rounds) for part in PARTS}


def _timed(function: Callable[..., Any], part: str) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        with _TIMER(part):
            return function(*args, **kwargs)

    return run


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return _CLOCK[0]()


def _seconds(function: Callable[[], None], device: str) -> float:
    start = _now(device)
    function()
    return _now(device) - start


def _peak(device: str) -> float:
    """Peak memory in MB: of the process on the CPU (weights and libraries included), of tensors on a GPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _append(row: dict[str, Any]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    fresh = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file:
        writer = csv.DictWriter(file, row.keys())
        if fresh:
            writer.writeheader()
        writer.writerow(row)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="vit_tiny_patch16_224")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--classes", type=int, default=6)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "tf32", "bf16", "fp16"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's own choice")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--images", help="folder of photographs; procedural scenes if left out")
    parser.add_argument("--clock", default="wall", choices=("wall", "cpu"), help="cpu: for --threads 1 only")
    parser.add_argument("--dry", action="store_true", help="print only")
    return parser.parse_args()


if __name__ == "__main__":
    main()

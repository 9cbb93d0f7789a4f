"""What splitting a batch into micro-batches does to the losses and the gradient of a MoRe update.

    python benchmarks/micro_batches.py --out benchmarks/results/micro_batches.json

The demo's network learns generated scenes until every term is on. Then further batches go through it whole,
as halves and as quarters, with the same weights; losses and gradients of the parts are averaged, as a
training with `train.accumulate` does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from tagmask.data.datasets.scenes import CLASSES, render
from tagmask.methods import create_method
from tagmask.methods.base import Method
from tagmask.training.optim import build_optimizer, set_rates
from tagmask.types import Batch

PARTS = (1, 2, 4)


def batch(first: int, count: int, seed: int) -> Batch:
    """Scenes with their tags."""
    scenes = [render(first + index, seed) for index in range(count)]
    images = torch.stack([torch.from_numpy(scene.image).permute(2, 0, 1).float() / 255 for scene in scenes])
    tags = torch.tensor([[float(name in scene.tags) for name in CLASSES] for scene in scenes])
    return Batch(images, tags, tuple(f"{first + index}" for index in range(count)))


def taught(updates: int, count: int, seed: int) -> Method:
    """The demo's network after some updates, the energy loss switched on."""
    recipe = yaml.safe_load((files("tagmask") / "recipes" / "demo.yaml").read_text(encoding="utf-8"))
    torch.manual_seed(seed)
    method = create_method(recipe["method"], len(CLASSES), **{**recipe["model"], "w_energy": 0.05}).train()
    plan = method.optim_plan(updates)
    optimizer = build_optimizer(plan)
    for step in range(updates):
        set_rates(optimizer, plan, step)
        method(batch(step * count, count, seed), step).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return method


def update(method: Method, whole: Batch, parts: int, step: int) -> tuple[dict[str, float], Tensor]:
    """Losses and gradient of one update made in parts."""
    method.zero_grad(set_to_none=True)
    sums: dict[str, float] = {}
    pieces = zip(whole.images.chunk(parts), whole.tags.chunk(parts), strict=True)
    for images, tags in pieces:
        result = method(Batch(images, tags, tuple(map(str, range(len(images))))), step)
        (result.loss / parts).backward()
        for name, value in result.logs.items():
            sums[name] = sums.get(name, 0.0) + float(value) / parts
    grads = [param.grad.flatten() for param in method.parameters() if param.grad is not None]
    return sums, torch.cat(grads)


def measure(method: Method, batches: int, count: int, first: int, seed: int, step: int) -> dict[str, Any]:
    """Mean loss of whole batches; how far those made in parts are from them, as shares of it."""
    found: dict[int, list[tuple[dict[str, float], Tensor]]] = {parts: [] for parts in PARTS}
    for number in range(batches):
        scenes = batch(first + number * count, count, seed)
        for parts in PARTS:
            found[parts].append(update(method, scenes, parts, step))
    rows: dict[str, Any] = {}
    for name in found[1][0][0]:
        whole = statistics.fmean(losses[name] for losses, _ in found[1])
        rows[name] = {"whole": round(whole, 4)}
        for parts in PARTS[1:]:
            pairs = list(zip(found[parts], found[1], strict=True))
            gaps = [abs(part[name] - losses[name]) for (part, _), (losses, _) in pairs]
            signed = [part[name] - losses[name] for (part, _), (losses, _) in pairs]
            rows[name] |= {
                f"{parts} parts, mean": round(statistics.fmean(gaps) / max(abs(whole), 1e-12), 5),
                f"{parts} parts, largest": round(max(gaps) / max(abs(whole), 1e-12), 5),
                f"{parts} parts, signed": round(statistics.fmean(signed) / max(abs(whole), 1e-12), 5),
            }
    rows["gradient"] = {"whole": round(statistics.fmean(float(grad.norm()) for _, grad in found[1]), 4)}
    for parts in PARTS[1:]:
        gaps = [
            float((part - whole).norm() / whole.norm())
            for (_, part), (_, whole) in zip(found[parts], found[1], strict=True)
        ]
        rows["gradient"] |= {
            f"{parts} parts, mean": round(statistics.fmean(gaps), 5),
            f"{parts} parts, largest": round(max(gaps), 5),
        }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--images", type=int, default=8, help="of a batch")
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    began = time.monotonic()
    method = taught(given.updates, given.images, given.seed)
    first = given.updates * given.images
    terms = measure(method, given.batches, given.images, first, given.seed, given.updates)
    record = {
        "command": "python benchmarks/micro_batches.py --out benchmarks/results/micro_batches.json",
        "machine": f"{os.cpu_count()}-core CPU, PyTorch {torch.__version__.partition('+')[0]}",
        "data": f"generated scenes of 96 px, {given.batches} batches of {given.images} not seen before",
        "method": f"MoRe with the demo's settings and the energy loss, after {given.updates} updates",
        "seed": given.seed,
        "note": "differences are shares of the whole batches' loss, or of their gradient's length",
        "seconds": round(time.monotonic() - began),
        "terms": terms,
    }
    given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(terms, indent=1))


if __name__ == "__main__":
    main()

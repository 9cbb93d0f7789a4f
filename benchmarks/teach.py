"""From saved corrections to a better model: `tagmask teach` against a full retraining with the same masks.

    python benchmarks/teach.py --work DIR --out benchmarks/results/teach.json

A model is trained on the tags of generated scenes for a short while. Then 10, 100 and 500 of its training
images are corrected: true masks stand in for a person's. Each lot teaches that model, the program's start
included in the time. A training of the whole network from the beginning gets all of them. All are scored on
scenes that no training saw, at one scale, without tags. Trainings that DIR holds are not repeated, and
`--counts` or `--full 0` measure one part alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from tagmask.data.datasets.scenes import CLASSES, render, write_dataset
from tagmask.metrics.confusion import ConfusionMatrix
from tagmask.models.trained import load_trained
from tagmask.models.versions import newest_version
from tagmask.ops.resize import resize_bilinear
from tagmask.store.labels import write_mask

SAME = ("--recipe", "demo", "--device", "cpu", "--set", "train.tensorboard=false")


def tagmask(*arguments: object) -> tuple[str, float]:
    """What a command prints, and its seconds."""
    began = time.monotonic()
    command = [sys.executable, "-m", "tagmask", *map(str, arguments)]
    done = subprocess.run(command, check=True, text=True, capture_output=True)
    return done.stdout, time.monotonic() - began


def corrected(folder: Path, count: int, seed: int) -> Path:
    """True masks of the first training scenes."""
    for index in range(count):
        if not (place := folder / f"{index:05d}.png").is_file():
            write_mask(place, render(index, seed).mask)
    return folder


@torch.no_grad()
def score(model: Path, first: int, count: int, seed: int) -> float:
    """Mean IoU in percent on scenes from a number on."""
    method = load_trained(model).method.eval()
    matrix = ConfusionMatrix(len(CLASSES) + 1)
    for index in range(first, first + count):
        scene = render(index, seed)
        image = torch.from_numpy(scene.image).permute(2, 0, 1)[None].float() / 255
        logits = resize_bilinear(method.segment(image).float(), (image.shape[2], image.shape[3]))
        matrix.update(preds=logits.argmax(1), target=torch.from_numpy(scene.mask)[None].long())
    return round(100 * float(matrix.compute().miou), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--counts", type=int, nargs="*", default=[10, 100, 500])
    parser.add_argument("--time", type=int, default=50, help="seconds given to `tagmask teach`")
    parser.add_argument("--before", type=int, default=100, help="updates of the model that is taught")
    parser.add_argument("--full", type=int, default=600, help="updates of the full retraining; 0: none")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--unseen", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    data, run = given.work / "data", given.work / "run"
    if not data.is_dir():
        write_dataset(data, given.images, given.unseen, seed=given.seed)
    flags = (*SAME, "--data", data, "--batch-size", given.batch_size, "--seed", given.seed)
    if not (run / "model").is_dir():
        tagmask("train", *flags, "--iterations", given.before, "--out", run)
    before = score(run / "model", given.images, given.unseen, given.seed)
    # A result file of the same model keeps what is not measured again.
    kept = json.loads(given.out.read_text(encoding="utf-8")) if given.out.is_file() else {}
    record: dict[str, Any] = {
        "command": "python benchmarks/teach.py --work DIR --out benchmarks/results/teach.json",
        "machine": f"{os.cpu_count()} CPU cores: taught alone on them, the full retraining beside other work",
        "versions": {"torch": torch.__version__},
        "data": f"{given.images} generated scenes of 96 px to learn from; mIoU in percent on {given.unseen} "
        "others, one scale, no tags",
        "method": f"recipe demo, {given.before} updates of {given.batch_size} images from tags alone before",
        "seed": given.seed,
        "miou_before": before,
        "taught": kept.get("taught", {}) if kept.get("miou_before") == before else {},
    }
    for count in given.counts:
        record["taught"][f"{count} corrected"] = row = taught(given, run, count, before)
        print(count, row, flush=True)
        given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if given.full:
        record["full_retraining"] = row = retrained(given, flags)
        print("full", row, flush=True)
        given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def taught(given: argparse.Namespace, run: Path, count: int, before: float) -> dict[str, Any]:
    """A row: so many corrected scenes, taught by the command."""
    lot = corrected(given.work / f"corrected-{count}", count, given.seed)
    out = given.work / f"taught-{count}"
    shutil.rmtree(out, ignore_errors=True)
    command = ("teach", run, "--corrections", lot, "--time", f"{given.time}s", "--out", out)
    _, seconds = tagmask(*command, "--device", "cpu", "--seed", given.seed)
    made = newest_version(out)
    after = before if made is None else score(made, given.images, given.unseen, given.seed)
    return {"miou": after, "seconds": round(seconds, 1), "better": made is not None}


def retrained(given: argparse.Namespace, flags: tuple[Any, ...]) -> dict[str, Any]:
    """The row of a training of the whole network that begins anew, with all scenes corrected."""
    lot, out = (
        corrected(given.work / f"corrected-{given.images}", given.images, given.seed),
        given.work / "full",
    )
    if not (out / "model").is_dir():
        tagmask("train", *flags, "--corrections", lot, "--iterations", given.full, "--out", out)
    steps = json.loads((out / "run.json").read_text(encoding="utf-8"))["steps"]
    return {
        "miou": score(out / "model", given.images, given.unseen, given.seed),
        "seconds": round(steps["train"]["seconds"]),
        "updates": given.full,
        "corrected": given.images,
    }


if __name__ == "__main__":
    main()

"""What corrected masks bring: go on from one trained model with 0, 10, 50 and 200 of them.

    python benchmarks/corrections.py RUN --masks MASKS --val-tags TAGS_VAL.csv --out FILE.json

True masks of randomly chosen training images stand in for a person's corrections. Every training starts from
the same model and sees the same number of updates; masks of the part to score on are never given to any.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from tagmask.data.parts import open_part
from tagmask.data.readers.masks import mask_values
from tagmask.metrics.confusion import ConfusionMatrix
from tagmask.pipeline.config import read_config
from tagmask.store.labels import read_mask, write_mask


def tagmask(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "tagmask", *map(str, arguments)], check=True)


def measure(args: argparse.Namespace, count: int, work: Path) -> float:
    """Mean IoU on the part to score on, after going on with so many corrected images."""
    config = read_config(args.run)
    dataset = open_part(config.data, "train")
    values = mask_values(args.mask_values, dataset.classes)
    order = np.random.default_rng(args.seed).permutation(len(dataset))
    there = [dataset.names[i] for i in order if (args.masks / f"{dataset.names[i]}.png").is_file()]
    fixed, out = work / f"fixed-{count}", work / f"run-{count}"
    for name in there[:count]:
        write_mask(fixed / f"{name}.png", values.read(args.masks / f"{name}.png"))
    more = ["--corrections", fixed] if count else []
    flags = ["--iterations", args.iterations, "--batch-size", args.batch_size, "--seed", args.seed]
    flags += ["--set", f"train.corrections_batch={args.corrections_batch}", "--set", "model.warmup=20"]
    flags += ["--set", f"train.rate={args.rate}"]
    tagmask("train", "--recipe", args.run, "--start", args.run, "--out", out, *more, *flags)
    classes = work / "classes.txt"
    classes.write_text("".join(f"{name}\n" for name in dataset.classes.names), encoding="utf-8")
    places = ["--data", config.data.root, "--tags", args.val_tags, "--classes", classes, "--split", "val"]
    tagmask("segment", out / "model", *places, "--out", out / "val", "--scales", "1")
    matrix = ConfusionMatrix(len(dataset.classes.labels), dataset.classes.ignore)
    found = sorted((out / "val" / "masks").rglob("*.png"))
    for path in found:
        matrix.update(preds=read_mask(path), target=values.read(args.masks / path.name))
    miou = round(float(matrix.compute("nan").miou), 4)
    print(count, miou, flush=True)
    return miou


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--mask-values", default="voc")
    parser.add_argument("--val-tags", type=Path, required=True)
    parser.add_argument("--counts", type=int, nargs="*", default=[0, 10, 50, 200])
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--corrections-batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=0.2, help="factor of the recipe's learning rates")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    result = json.loads(args.out.read_text(encoding="utf-8")) if args.out.is_file() else {"miou": {}}
    result |= {
        "machine": f"CPU, {platform.machine()}, 2 cores shared with other work",
        "start": "a model trained on tags alone; scored at one scale without tags",
        "seed": args.seed,
        "iterations": args.iterations,
        "batch_size": args.batch_size,
        "corrections_batch": args.corrections_batch,
    }
    # Every rate is a row of its own; other rows of the file stay.
    with tempfile.TemporaryDirectory() as folder:
        row = {f"{count} corrected": measure(args, count, Path(folder)) for count in args.counts}
    result["miou"] |= {f"train.rate {args.rate}": row}
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

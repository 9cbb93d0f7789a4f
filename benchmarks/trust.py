"""Does the number to trust hold? ``python benchmarks/trust.py RUN... --out FILE``, on runs with known truth.

Each RUN is a finished run whose data has true masks. The signals of the review are computed as ``tagmask
review`` does, in a copy of the run. Then 50 images are drawn at random, as somebody checks them in the order
of the column "draw"; their true IoU becomes known, and `tagmask.review.calibration.calibrate`, which review
and app call, says what the others have. True masks of the others are read here only.

A row holds, averaged over the draws: `coverage`, the share of the other images whose true IoU lies within
their 90 % interval; `width`, mean width of the intervals; `error`, mean distance of the predicted IoU from
the true one; `class_error`, mean distance of a class's predicted IoU over the whole set from the true one,
and `class_error_worst` that of the worst class; `class_error_others`, the same as `class_error` for the
images that nobody checked, alone. `mean_held` and `class_held` are shares of draws whose 90 % interval of the
mean, or of a class, holds. All figures are shares of 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tagmask.data.parts import Parts
from tagmask.pipeline.config import read_config
from tagmask.review.calibration import calibrate
from tagmask.review.class_trust import Overlap, compare
from tagmask.review.queue import Row, rank
from tagmask.steps.review import read_row
from tagmask.store.files import file_for
from tagmask.store.labels import read_mask
from tagmask.types import IGNORE


def reviewed(run: Path, work: Path, split: str) -> Path:
    """A copy of a run with the signals of its review; the run itself is left alone."""
    copy = work / run.name
    if not (copy / "review" / "queue.csv").is_file():
        if not copy.is_dir():
            shutil.copytree(run, copy, copy_function=_linked, ignore=shutil.ignore_patterns(".lock"))
        words = ["review", str(copy), "--split", split, "--set", "review.pictures=0"]
        subprocess.run([sys.executable, "-m", "tagmask", *words], check=True)
    return copy


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def known(run: Path, split: str) -> tuple[list[Row], dict[str, Overlap], tuple[str, ...]]:
    """The queue, what is true of every mask, and the labels' names."""
    dataset = Parts(read_config(run).data).open(split, masks=True)  # type: ignore[arg-type]
    found = [read_row(file_for(run / "review" / "signals", name, ".json")) for name in dataset.names]
    truth = {
        name: compare(read_mask(file_for(run / "masks", name, ".png")), dataset.mask(index))
        for index, name in enumerate(dataset.names)
    }
    return rank(found, dataset.classes.names), truth, dataset.classes.labels


def pixels(run: Path, split: str) -> dict[str, np.ndarray]:
    """Of every image and label the pixels in both, in the mask, in the truth, (C, 3)."""
    dataset = Parts(read_config(run).data).open(split, masks=True)  # type: ignore[arg-type]
    found = {}
    for index, name in enumerate(dataset.names):
        mask, truth = read_mask(file_for(run / "masks", name, ".png")), dataset.mask(index)
        a, b = mask[truth != IGNORE], truth[truth != IGNORE]
        count = len(dataset.classes.labels)
        columns = [np.bincount(x, minlength=count)[:count] for x in (a[a == b], a, b)]
        found[name] = np.stack(columns, 1)
    return found


def class_ious(each: dict[str, np.ndarray], left_out: set[str]) -> np.ndarray:
    """IoU of every label over the images, pixels summed, as scores have it."""
    total = np.sum([table for name, table in each.items() if name not in left_out], 0)
    union = total[:, 1] + total[:, 2] - total[:, 0]
    return np.where(union > 0, total[:, 0] / np.maximum(union, 1), np.nan)


def measured(run: Path, split: str, checks: int, seeds: range) -> dict[str, Any]:
    """All figures of a run."""
    rows, truth, labels = known(run, split)
    names = [row.name for row in rows]
    areas = pixels(run, split)
    everywhere = class_ious(areas, set())
    figures: dict[str, list[Any]] = {}
    for seed in seeds:
        chosen = set(np.random.default_rng(seed).permutation(sorted(names))[:checks].tolist())
        trust = calibrate(rows, {name: truth[name] for name in chosen}, len(labels) - 1, seed=seed)
        others = [
            (one, truth[name].iou)
            for name, one in trust.images.items()
            if not one.checked and np.isfinite(truth[name].iou)
        ]
        errors = np.abs(np.array([one.iou for one in trust.classes]) - everywhere)
        unseen = class_ious(areas, chosen)
        rest = np.abs(np.array([one.unseen for one in trust.classes]) - unseen)
        one_draw = {
            "coverage": np.mean([one.low <= iou <= one.high for one, iou in others]),
            "width": np.mean([one.high - one.low for one, _ in others]),
            "error": np.mean([abs(one.iou - iou) for one, iou in others]),
            "mean_error": abs(trust.iou - np.mean([truth[name].iou for name in names])),
            "mean_held": trust.low <= np.mean([truth[name].iou for name in names]) <= trust.high,
            "classes": errors,
            "rest": rest,
            "class_held": np.mean(
                [c.low <= iou <= c.high for c, iou in zip(trust.classes, everywhere, strict=True)]
            ),
        }
        for name, value in one_draw.items():
            figures.setdefault(name, []).append(value)
    by_class, rest = (np.nanmean(figures.pop(name), 0) for name in ("classes", "rest"))
    return {
        **{name: round(float(np.mean(values)), 4) for name, values in figures.items()},
        "class_error": round(float(np.nanmean(by_class)), 4),
        "class_error_worst": round(float(np.nanmax(by_class)), 4),
        "class_error_others": round(float(np.nanmean(rest)), 4),
        "class_errors": {name: round(float(value), 4) for name, value in zip(labels, by_class, strict=True)},
        "iou": {name: round(float(value), 4) for name, value in zip(labels, everywhere, strict=True)},
        "images": len(rows),
        "without_label": sum("label" not in row.signals for row in rows),
        "checked": checks,
        "seeds": [seeds.start, seeds.stop - 1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--checks", type=int, default=50)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--split", default="auto")
    parser.add_argument("--work", type=Path, help="Keeps the copies with their signals.")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(args.out.read_text()) if args.out.is_file() else []
    with tempfile.TemporaryDirectory() as place:
        for run in args.runs:
            name = Path(read_config(run).data.root or run).name
            seed = read_config(run).runtime.seed
            copy = reviewed(run, args.work or Path(place), args.split)
            row: dict[str, Any] = {"set": name, "run_seed": seed}
            row |= measured(copy, args.split, args.checks, range(args.draws))
            row["command"] = f"python benchmarks/trust.py RUN --checks {args.checks} --draws {args.draws}"
            row["machine"] = f"CPU, {platform.machine()}, 2 cores shared with other work"
            rows = [old for old in rows if (old["set"], old["run_seed"]) != (name, seed)] + [row]
            args.out.write_text(json.dumps(rows, indent=1) + "\n")
            print({k: v for k, v in row.items() if isinstance(v, float)})


if __name__ == "__main__":
    main()

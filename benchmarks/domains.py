"""One command for every set: ``python benchmarks/domains.py --root DIR --weights FILE --out FILE``.

Each folder in DIR is a data set with tags, masks and classes. Recipe "auto" runs on it as ``tagmask run
DATA`` does, nothing is set for one set alone, and true masks are read for the scores only. The rows (`set`,
`seed`, `what`, `miou`, `seconds`, `machine`) join those that the file holds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tagmask.data.parts import DataConfig, Parts
from tagmask.metrics.confusion import ConfusionMatrix
from tagmask.pipeline.config import read_config


def baselines(data: dict[str, str]) -> dict[str, float]:
    """Mean IoU of masks that need no learning, on the images for scoring."""
    dataset = Parts(DataConfig(root=data["root"])).open("auto", masks=True)
    labels = dataset.classes.labels
    matrices = {what: ConfusionMatrix(len(labels)) for what in ("background", "first tag", "centre box")}
    for index in range(len(dataset)):
        truth, tags = dataset.mask(index), dataset.tags(index)
        first = int(tags.argmax()) + 1 if tags.any() else 0
        height, width = truth.shape
        box = np.zeros_like(truth)
        box[height // 4 : height - height // 4, width // 4 : width - width // 4] = first
        made = {
            "background": np.zeros_like(truth),
            "first tag": np.full_like(truth, first),
            "centre box": box,
        }
        for what, mask in made.items():
            matrices[what].update(preds=mask[None], target=truth[None])
    return {what: float(matrix.compute().miou) for what, matrix in matrices.items()}


def tagmask(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "tagmask", *words], check=True)


def scored(run: Path, what: str) -> float:
    return float(json.loads(next((run / "scores").glob(f"*-{what}.json")).read_text())["miou"])


def cuts(run: Path) -> dict[str, tuple[float, float | None]]:
    """The maps behind the labels, cut where the run did without a mask and where it is best in hindsight."""
    fitted = json.loads((run / "run.json").read_text())["steps"]["refine"]["results"].get("fitted")
    if fitted is None:  # no background, so nothing is cut off
        return {}
    curve = json.loads(next((run / "scores").glob(f"*-{fitted['maps']}.json")).read_text())["curve"]
    at = curve["thresholds"].index(fitted["threshold"])
    return {
        "maps at the fitted threshold": (curve["miou"][at], None),
        "maps at the best threshold": (curve["best_miou"], None),
    }


def one(root: Path, seed: int, work: Path, weights: str) -> dict[str, tuple[float, float | None]]:
    """{what: (mean IoU, seconds)} of one run."""
    run = work / f"{root.name}-{seed}"
    tagmask("run", str(root), "--seed", str(seed), "--out", str(run), "--weights", weights)
    steps = json.loads((run / "run.json").read_text())["steps"].values()
    seconds = sum(step.get("seconds", 0) for step in steps)
    found: dict[str, tuple[float, float | None]] = {
        "segmentation": (scored(run, "segmentation"), seconds),
        "labels": (scored(run, "label"), None),
        **cuts(run),
    }
    known = work / f"{run.name}-tagged"
    alike = ("--split", "val", "--precision", read_config(run).runtime.precision)
    given = (*alike, "--set", "segment.tags=dataset")
    tagmask("segment", str(run / "student" / "model"), "--data", str(root), "--out", str(known), *given)
    tagmask("evaluate", str(known), "--what", "segmentation", "--split", "val")
    found["segmentation, tags given"] = (scored(known, "segmentation"), None)
    # What a linear classifier on the same backbone gives by itself.
    alone = work / f"{run.name}-cam"
    tagmask(
        "localize",
        str(run / "model"),
        "--data",
        str(root),
        "--out",
        str(alone),
        "--maps",
        "cam",
        "--split",
        "val",
    )
    tagmask("evaluate", str(alone), "--what", "cam", "--background", "0.5", "--split", "val")
    found["plain CAM at 0.5"] = (scored(alone, "cam"), None)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--sets", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--weights", default="hub")
    parser.add_argument("--work", type=Path, required=True, help="Where the run folders go.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--machine", required=True, help="Its cores and what else ran, in words.")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(args.out.read_text()) if args.out.is_file() else []
    for name in args.sets or sorted(path.name for path in args.root.iterdir() if path.is_dir()):
        plain = baselines({"root": str(args.root / name)})
        for seed in args.seeds:
            found = {what: (value, None) for what, value in plain.items()}
            made = {**found, **one(args.root / name, seed, args.work, args.weights)}
            rows = [row for row in rows if (row["set"], row["seed"]) != (name, seed)]
            for what, (value, seconds) in made.items():
                figures = {"miou": round(value, 4), "seconds": seconds and round(seconds)}
                rows.append({"set": name, "seed": seed, "what": what, **figures, "machine": args.machine})
            args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

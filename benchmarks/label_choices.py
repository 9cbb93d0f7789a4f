"""What each choice behind the labels of recipe "auto" brings.

``python benchmarks/label_choices.py RUN... --machine TEXT --out FILE``

For finished runs with true masks: labels of the images for scoring, made from the maps of the run in several
ways. Nothing is trained. The rows (`set`, `seed`, `what`, `miou`, `machine`, `command`)
join those that the file holds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from tagmask.data.loader import eval_images
from tagmask.data.parts import Parts
from tagmask.metrics.confusion import ConfusionMatrix
from tagmask.pipeline.config import read_config
from tagmask.steps.refine import RefineConfig, image_labels
from tagmask.store.files import file_for
from tagmask.store.maps import load_maps

BAND = 0.05
GRID = tuple(round(0.05 * step, 2) for step in range(2, 20))
BEST = "the best threshold in hindsight"
"""Over the grid, made into labels as the run made its own."""
COMMAND = (
    "python benchmarks/label_choices.py RUNS/* --machine TEXT --out benchmarks/results/label_choices.json"
)


def ways(fitted: dict[str, Any]) -> dict[str, RefineConfig]:
    """The settings that are compared, by what they are."""
    cut, chosen = fitted["threshold"], fitted["background"]
    band = {"background": None, "high": min(1.0, cut + BAND), "low": max(0.0, cut - BAND)}
    found = {
        "fixed threshold 0.5": RefineConfig(method="none", background=0.5),
        "fitted threshold, a band left open": RefineConfig(method="none", **band),
        "fitted threshold": RefineConfig(method="none", background=cut),
        "refined from the fitted threshold": RefineConfig(method="par", background=cut),
    }
    size = fitted.get("shrink", 2)  # runs of before it was chosen have no entry
    if fitted["method"] == "par":
        found["refined to the plain cut's size"] = RefineConfig(method="par", background=chosen, shrink=size)
    for level in GRID:
        found[f"{BEST} {level}"] = RefineConfig(method=fitted["method"], background=level, shrink=size)
    return found


def scores(run: Path) -> dict[str, float]:
    """Mean IoU of every way's labels; open pixels count as background."""
    fitted = json.loads((run / "run.json").read_text())["steps"]["refine"]["results"].get("fitted")
    if fitted is None:
        return {}
    dataset = Parts(read_config(run).data).open("auto", masks=True)
    chosen = ways(fitted)
    matrices = {what: ConfusionMatrix(len(dataset.classes.labels)) for what in chosen}
    for index, batch in eval_images(dataset):
        loaded = load_maps(
            file_for(run / "maps" / fitted["maps"], batch.names[0], ".npz"), dataset.num_classes
        )
        maps, keys = torch.from_numpy(loaded.maps)[None], torch.from_numpy(loaded.keys)[None]
        for what, config in chosen.items():
            truth = dataset.mask(index)
            labels = torch.zeros(1, *truth.shape, dtype=torch.long)  # of an image without tags
            if len(loaded.keys):
                labels = image_labels(batch.images, maps, keys, config)
            labels[labels == 255] = 0
            matrices[what].update(preds=labels.numpy().astype(truth.dtype), target=truth[None])
    found = {what: round(float(matrix.compute().miou), 4) for what, matrix in matrices.items()}
    best = max(found[what] for what in found if what.startswith(BEST))
    return {**{what: miou for what, miou in found.items() if not what.startswith(BEST)}, BEST: best}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="Run folders, named SET-SEED.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--machine", required=True, help="Its cores and what else ran, in words.")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(args.out.read_text()) if args.out.is_file() else []
    for run in args.runs:
        name, _, seed = run.name.rpartition("-")
        rows = [row for row in rows if (row["set"], row["seed"]) != (name, int(seed))]
        for what, miou in scores(run).items():
            row = {"set": name, "seed": int(seed), "what": what, "miou": miou}
            rows.append({**row, "machine": args.machine, "command": COMMAND})
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

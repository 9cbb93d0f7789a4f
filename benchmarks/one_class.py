"""What masks of one class an image bring, where no image has two tags.

``python benchmarks/one_class.py RUN... --machine TEXT --out FILE``

For finished runs of recipe "auto" with true masks whose network knows that classes exclude each other: masks
of the images for scoring, with that knowledge and without. Nothing is trained; the background's shift is that
of the run, fitted without it. The rows (`set`, `seed`, `what`, `miou`, `machine`, `command`) join
those that the file holds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tagmask.data import TagDataset
from tagmask.data.loader import eval_images
from tagmask.data.parts import Parts
from tagmask.inference.predictor import Predictor, Use, picture_of
from tagmask.metrics.confusion import ConfusionMatrix
from tagmask.models.trained import load_trained
from tagmask.pipeline.config import read_config

COMMAND = "python benchmarks/one_class.py RUNS/* --machine TEXT --out benchmarks/results/one_class.json"


def masks_miou(predictor: Predictor, dataset: TagDataset) -> float:
    """Mean IoU of the masks of images, opened with their true masks."""
    matrix = ConfusionMatrix(len(dataset.classes.labels))
    for index, batch in eval_images(dataset):
        mask = predictor.predict(picture_of(batch.images)).mask
        matrix.update(preds=mask[None], target=dataset.mask(index)[None])
    return float(matrix.compute().miou)


def join(out: Path, run: Path, found: Sequence[dict[str, Any]]) -> None:
    """Rows of a run into a file, in place of those that it holds of this set and seed."""
    rows: list[dict[str, Any]] = json.loads(out.read_text()) if out.is_file() else []
    config = read_config(run)
    name, seed = str(config.data.root and config.data.root.name), config.runtime.seed
    rows = [row for row in rows if (row["set"], row["seed"]) != (name, seed)]
    rows += [{"set": name, "seed": seed, **row} for row in found]
    out.write_text(json.dumps(rows, indent=1) + "\n")


def scores(run: Path) -> dict[str, float]:
    """Mean IoU of masks of any classes and of masks of one; nothing if the run's network makes the former."""
    config, trained = read_config(run), load_trained(run / "student" / "model")
    most = trained.method.config.model_dump()["classes_per_image"]
    if most == "any":
        return {}
    dataset = Parts(config.data).open("auto", masks=True)
    runtime, views = config.runtime.create(), config.segment.of(type(trained.method))
    found = {}
    for what, value in (
        ("any classes", "any"),
        ("one class" if most == "one" else "one class or none", most),
    ):
        trained.method.config = trained.method.config.model_copy(update={"classes_per_image": value})
        found[what] = masks_miou(Predictor.of(trained, runtime, Use(views=views)), dataset)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--machine", required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    told = {"machine": args.machine, "command": COMMAND}
    for run in args.runs:
        found = [{"what": what, "miou": round(miou, 4), **told} for what, miou in scores(run).items()]
        join(args.out, run, found)


if __name__ == "__main__":
    main()

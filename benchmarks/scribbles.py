"""What scribbles teach beside whole masks: ``python benchmarks/scribbles.py RUN... --out FILE``.

RUN is a finished run whose data has true masks; those stand in for a person. Corrected are random images of
the part to learn from, scored those of the other part. Each lesson is ``tagmask teach`` on 50 images with 5
strokes each (in what the model has wrong, the largest region first, then in what it has right; everything
else is unknown), or on whole masks of some images. What counts is the model that a person would have
afterwards: the new one where it is offered, else the old. Mean IoU in one view, without tags. A lesson ends
after its updates here, not by the clock, so that other work on the machine changes nothing. Lessons that FILE
knows are not repeated.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import platform
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

import tagmask
from tagmask.data import TagDataset
from tagmask.data.parts import Parts
from tagmask.metrics.confusion import ConfusionMatrix
from tagmask.model import Model
from tagmask.pipeline.config import RunConfig, read_config
from tagmask.store.files import file_for
from tagmask.store.labels import write_mask
from tagmask.types import IGNORE

STROKES = 5
_SEEN = 0.002
"""Share of an image from which on something wrong is seen."""


def strokes(truth: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Strokes of somebody who looks at a mask: in what is wrong, the largest first, then in every label.

    Args:
        truth: (H, W).
        mask: What the model said, (H, W).
        rng: Where in a region the strokes lie.

    Returns:
        (H, W), the true labels under the strokes, 255 elsewhere.
    """
    known = truth != IGNORE
    regions = _regions([(truth == k) & (mask != k) & known for k in np.unique(truth[known])])
    regions = [region for region in regions if region.sum() >= _SEEN * truth.size]
    regions += _regions([(truth == k) & (mask == k) for k in np.unique(truth[known])])
    found = np.full(truth.shape, IGNORE, np.uint8)
    width = max(3, max(truth.shape) // 80)
    for region in regions[:STROKES]:
        # A person draws inside, away from the border.
        depth = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
        ends = np.argwhere(depth >= min(width, depth.max()))
        (y1, x1), (y2, x2) = ends[rng.integers(len(ends), size=2)]
        line = Image.new("1", truth.shape[::-1])
        ImageDraw.Draw(line).line([(x1, y1), (x2, y2)], fill=1, width=width)
        drawn = np.array(line) & region
        found[drawn] = truth[drawn]
    return found


def _regions(shown: list[np.ndarray]) -> list[np.ndarray]:
    """Connected regions, the largest first."""
    found = []
    for one in shown:
        numbers, count = ndimage.label(one)
        found += [numbers == number for number in range(1, count + 1)]
    return sorted(found, key=lambda region: -int(region.sum()))


def one_view(model: Model, dataset: TagDataset, index: int) -> np.ndarray:
    """What a model says of an image, without tags."""
    return model.predict(dataset.picture(index), maps=False, scales=(1.0,), flip="none").mask


def miou(model: Model, dataset: TagDataset, most: int) -> float:
    """Mean IoU over the first images."""
    matrix = ConfusionMatrix(dataset.num_classes + 1)
    for index in range(min(most, len(dataset))):
        mask = one_view(model, dataset, index)
        matrix.update(preds=mask[None], target=dataset.mask(index)[None])
    return float(matrix.compute().miou)


@dataclass(frozen=True)
class Bench:
    """A run, the images that may be corrected, and those that are scored."""

    run: Path
    config: RunConfig
    corrected: TagDataset
    scored: TagDataset
    seconds: float
    most: int

    def before(self) -> Model:
        """The run's own model."""
        student = self.run / "student" / "model"
        return tagmask.load(student if student.is_dir() else self.run, device=self.config.runtime.device)

    def corrections(self, folder: Path, what: str, count: int, seed: int) -> Path:
        """Corrections of random images as a person hands them in."""
        order = np.random.default_rng(seed).permutation(len(self.corrected)).tolist()
        rng, model = np.random.default_rng(seed), self.before()
        for index in order[:count]:
            given = self.corrected.mask(index)
            if what == "scribbles":
                given = strokes(given, one_view(model, self.corrected, index), rng)
            path = file_for(folder, self.corrected.names[index], ".png")
            write_mask(path, given, self.corrected.classes.palette)
        return folder

    def after(self, what: str, count: int, seed: int) -> tuple[float, float]:
        """Mean IoU after a lesson, not a number where the old model stays; and how long that took."""
        with tempfile.TemporaryDirectory() as place:
            given = self.corrections(Path(place) / "given", what, count, seed)
            began = time.monotonic()
            how = {"seconds": self.seconds, "seed": seed, "out": Path(place) / "taught"}
            taught = tagmask.teach(self.run, given, **how).taught
            spent = time.monotonic() - began
        score = float("nan")
        if taught.trained is not None:
            score = miou(Model(taught.trained, self.config.runtime.create()), self.scored, self.most)
        print(f"{what} {count}, seed {seed}: {taught.text}; on others {100 * score:.1f}", flush=True)
        return score, spent


def command(given: list[str]) -> str:
    """What was called, with no folder of this machine: runs by their names, the file by its own."""
    shown = [Path(word).name if "/" in word else word for word in given]
    return " ".join(["python benchmarks/scribbles.py", *shown])


def with_lesson(bench: Bench, row: dict[str, Any], seed: int, old: float) -> dict[str, Any]:
    """A row with the outcome of one more lesson."""
    found, spent = bench.after(row["what"], row["images"], seed) if row["images"] else (float("nan"), 0.0)
    each = [*row.get("each", ()), round(old if math.isnan(found) else found, 4)]
    return {
        **row,
        "miou": round(float(np.mean(each)), 4),
        "each": each,
        "seeds": [*row.get("seeds", ()), seed],
        "offered": row.get("offered", 0) + (not math.isnan(found)),
        "seconds": [*row.get("seconds", ()), round(spent)],
        "scored": min(bench.most, len(bench.scored)),
        "command": command(sys.argv[1:]),
        "machine": f"CPU, {platform.machine()}, 2 cores shared with other work",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--counts", type=int, nargs="+", default=[0, 10, 50, 200], help="Whole masks.")
    parser.add_argument("--scribbled", type=int, default=50)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=1800, help="At most, a lesson.")
    parser.add_argument("--scored", type=int, default=200)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(args.out.read_text()) if args.out.is_file() else []
    lessons = [*(("masks", count) for count in args.counts), ("scribbles", args.scribbled)]
    for run in args.runs:
        config = read_config(run)
        parts = Parts(config.data)
        train, val = (parts.open(part, masks=True) for part in ("train", "val"))
        bench = Bench(run, config, train, val, args.seconds, args.scored)
        old = miou(bench.before(), val, args.scored)
        about = {"set": Path(config.data.root or run).name, "run_seed": config.runtime.seed}
        for seed, (what, count) in itertools.product(args.seeds, lessons):
            key = {**about, "what": what, "images": count}
            row = next((row for row in rows if {name: row[name] for name in key} == key), key)
            if seed not in row.get("seeds", ()):
                rows = [one for one in rows if one is not row] + [with_lesson(bench, row, seed, old)]
                rows.sort(key=lambda one: (one["set"], one["run_seed"], one["what"], one["images"]))
                args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

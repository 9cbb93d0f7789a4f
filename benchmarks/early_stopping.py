"""Whether held-out tags tell when the decoder has learned enough.

``python benchmarks/early_stopping.py RUN... --work DIR --machine TEXT --out FILE``

For runs of recipe "auto" with labels and true masks: the decoder learns again from the labels of the run,
without every seventh image, and is kept after every sixth of its updates. Each state is judged by the tags
of the images left out, in two ways, and its masks are scored. The rows (`set`, `seed`, `what`, `update`,
`miou`, `machine`, `command`) join those that the file holds.
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from one_class import join, masks_miou

import tagmask
from tagmask.data import TagDataset
from tagmask.data.loader import eval_images
from tagmask.data.parts import Parts
from tagmask.engine.log import Display
from tagmask.inference.predictor import Predictor, Use
from tagmask.inference.views import image_scores, tag_chances
from tagmask.metrics.tags import mean_average_precision
from tagmask.models.trained import load_trained, save_method
from tagmask.pipeline.config import RunConfig, read_config
from tagmask.steps.areas import match_area
from tagmask.steps.base import Context
from tagmask.steps.models import Models
from tagmask.training.callbacks import Training

COMMAND = (
    "python benchmarks/early_stopping.py RUNS/* --work WORK --machine TEXT "
    "--out benchmarks/results/early_stopping.json"
)
EVERY, STATES = 7, 6
LAST, HINDSIGHT = "the last state", "the best state in hindsight"
WAYS = {
    "classifier": "the best tags by the classifier",
    "masks": "the best tags by the masks' areas",
}
"""How tags of images that were left out choose a state."""


@dataclass
class Keep:
    """A callback that keeps the network after every part of a training."""

    name: str
    dataset: TagDataset
    folder: Path
    states: dict[int, Path] = field(default_factory=dict)

    def on_step(self, training: Training) -> None:
        if training.step * STATES % training.iterations < STATES:
            self.states[training.step] = folder = self.folder / str(training.step)
            save_method(folder, training.method, self.name, self.dataset.classes, {}, {})


def learned(run: Path, config: RunConfig, work: Path) -> tuple[dict[int, Path], TagDataset, TagDataset]:
    """{update: model folder} of the run's decoder, the images it learned from, and those left out."""
    student, parts = config.student, Parts(config.data)
    assert student is not None
    every = parts.open("train")
    aside = [i for i in range(len(every)) if i % EVERY == EVERY - 1]
    taught = [i for i in range(len(every)) if i % EVERY != EVERY - 1]
    work.mkdir(parents=True, exist_ok=True)
    tags = work / "tags.csv"
    with tags.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "tags"))
        for i in taught:
            shown = [every.classes.names[k] for k in every.tags(i).nonzero().flatten().tolist()]
            rows.writerow((every.names[i], "|".join(shown)))
    train = student.train.model_copy(update={"labels": run / "labels", "start": run / "model"})
    changed = {
        "data": config.data.model_copy(update={"tags": str(tags), "holdout": 0.0}),
        "model": {**config.model, **student.model},
        "train": train,
        "student": None,
    }
    keep = Keep(student.method, every, work / "states")
    recipe = config.model_copy(update=changed)
    tagmask.train(recipe=recipe, out=work / "run", callbacks=[keep], overwrite=True, progress=False)
    return keep.states, every.subset(taught), every.subset(aside)


def judged(
    folder: Path, run: Path, config: RunConfig, taught: TagDataset, aside: TagDataset
) -> dict[str, float]:
    """What the tags of images left out say of a state, and the mean IoU of its masks."""
    runtime, parts = config.runtime.create(), Parts(config.data)
    context = Context(
        run, runtime, Display(quiet=True), parts, config, Models(config, run, parts), out=folder.parent
    )
    views = config.segment.of(type(load_trained(folder).method))
    match_area(folder, taught, run / "labels", views, context)
    trained = load_trained(folder)
    method = trained.method.to(runtime.device).eval()
    chances, areas, truth = [], [], []
    for index, batch in eval_images(aside):
        chances.append(tag_chances(method, batch.images, runtime))
        areas.append(image_scores(method, batch.images, runtime, views).softmax(1)[:, 1:].mean((2, 3)))
        truth.append(aside.tags(index)[None])
    given = torch.cat(truth)
    found = {
        "classifier": mean_average_precision(given, torch.cat(chances)),
        "masks": mean_average_precision(given, torch.cat(areas)),
    }
    predictor = Predictor.of(trained, runtime, Use(views=views))
    return {**found, "miou": masks_miou(predictor, parts.open("auto", masks=True))}


def choices(run: Path, work: Path) -> dict[str, tuple[int, float]]:
    """{how a state is chosen: (its update, mean IoU of its masks)}; of equal states the later one."""
    config = read_config(run)
    states, taught, aside = learned(run, config, work)
    found = {step: judged(folder, run, config, taught, aside) for step, folder in states.items()}
    (work / "states.json").write_text(json.dumps(found, indent=1))
    last = max(found)
    chosen = {LAST: last, HINDSIGHT: max(found, key=lambda step: (found[step]["miou"], step))}
    for way, what in WAYS.items():
        chosen[what] = max(found, key=lambda step: (found[step][way], step))
    return {what: (step, found[step]["miou"]) for what, step in chosen.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--work", type=Path, required=True, help="Where the states go.")
    parser.add_argument("--machine", required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    told = {"machine": args.machine, "command": COMMAND}
    for run in args.runs:
        chosen = choices(run, args.work / run.name).items()
        found = [{"what": what, "update": at, "miou": round(miou, 4), **told} for what, (at, miou) in chosen]
        join(args.out, run, found)


if __name__ == "__main__":
    main()

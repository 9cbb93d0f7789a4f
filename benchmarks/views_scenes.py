"""What dividing float views by 255 again cost: ``python benchmarks/views_scenes.py --before OLD/src``.

Some training views give floats in [0, 1] where others gave bytes, and the loader used to divide both by 255.
For every recipe that learns from such a view, a small network learns from the same view on generated scenes,
once with the package in OLD/src (a checkout from before the change) and once with this one. A view with
labels teaches a segmenter the true masks of its training scenes; a view for tags teaches MCTformer, whose
class maps are scored at the threshold that suits them best.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image

from tagmask import read_config
from tagmask.data.datasets.scenes import render, write_dataset

SIZE, SCENES, HELD_OUT, UPDATES = 96, 200, 100, 200
FLOAT_VIEWS = ("imagenet", "long_side_crop", "short_side_crop", "batch_scale_crop")
RECIPES = (
    *("voc/psa", "voc/transcam", "voc/mctformer", "voc/mctformer-plus", "voc/aream-mctformer"),
    *("voc/aream-conformer", "voc/weaktr", "voc/segmenter", "coco/mctformer", "coco/weaktr"),
    "small-weaktr",
)
TAGS = {
    "method": "mctformer",
    "model": {"backbone": "tagmask_demo", "lr": 1e-3, "epochs": 10, "drop_path": 0.0},
}
MASKS = {"method": "segmenter", "model": {"backbone": "vit:tagmask_demo", "optimiser": "adamw", "lr": 5e-4}}


def learning_steps(recipe: str) -> list[tuple[str, str, dict[str, Any]]]:
    """(step, view, settings of the view for scenes) of every network that a recipe trains."""
    config = read_config(recipe)
    trained = {"train": config.train}
    trained |= {name: step.train for name in ("affinity", "student") if (step := getattr(config, name))}
    found = []
    for name, train in trained.items():
        settings = dict(train.view_settings)
        if train.view == "long_side_crop":
            sides = settings.get("long_side", (320, 640))
            settings["long_side"] = [round(side * SIZE / train.size) for side in sides]
        found.append((name, train.view, settings))
    return found


def write_scenes(folder: Path) -> Path:
    """The data set, and ``labels`` beside it: true masks of the scenes to learn from."""
    data = write_dataset(folder / "data", SCENES, HELD_OUT, SIZE)
    (folder / "labels").mkdir()
    for index in range(SCENES):
        Image.fromarray(render(index, 0, SIZE).mask).save(folder / "labels" / f"{index:05d}.png")
    return data


def measure(package: Path, work: Path, view: str, settings: dict[str, Any], masks: bool) -> float:
    """Mean IoU in percent on held-out scenes after training with one package."""
    recipe = {**(MASKS if masks else TAGS), "evaluate": {"background": "best"}}
    train = {"iterations": UPDATES, "batch_size": 16, "size": SIZE, "eval_every": 0}
    train |= {"view": view, "view_settings": settings}
    recipe["train"] = train | ({"labels": str(work / "labels")} if masks else {})
    out = work / f"run-{len(list(work.glob('run-*')))}"
    given = out.with_suffix(".yaml")
    given.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    places = ["--data", work / "data", "--set", "runtime.threads=1", "--out", out]
    until = [] if masks else ["--until", "localize"]
    tagmask(package, "run", given, *places, *until)
    if not masks:
        tagmask(package, "evaluate", out)
    score = json.loads((out / "scores" / f"val-{'segmentation' if masks else 'cam'}.json").read_text())
    return round(100 * float(score["miou"]), 1)


def tagmask(package: Path, *arguments: object) -> None:
    environment = {**os.environ, "PYTHONPATH": str(package)}
    command = [sys.executable, "-m", "tagmask", *map(str, arguments)]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def compare(before: Path, after: Path, work: Path) -> list[dict[str, Any]]:
    """A row for every step of a recipe that learns from a view with floats; equal views are measured once."""
    write_scenes(work)
    known: dict[str, dict[str, float]] = {}
    rows = []
    for recipe in RECIPES:
        for step, view, settings in learning_steps(recipe):
            if view not in FLOAT_VIEWS:
                continue
            masks = view in ("batch_scale_crop", "short_side_crop")
            key = json.dumps([view, settings])
            if key not in known:
                pair = {"before": before, "after": after}
                known[key] = {name: measure(p, work, view, settings, masks) for name, p in pair.items()}
            what = "mIoU of the segmenter" if masks else "mIoU of the class maps, best threshold"
            rows.append({"recipe": recipe, "step": step, "view": view, "what": what, **known[key]})
            print(*rows[-1].values(), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, required=True, help="src of a checkout from before the change")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "views_scenes.json")
    args = parser.parse_args()
    after = Path(__file__).parents[1] / "src"
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(args.before.resolve(), after, Path(folder))
    record = {
        "task": f"views of the recipes, {UPDATES} updates of 16 views of {SIZE} px; before: "
        "views of floats are divided by 255 once more",
        "data": f"{SCENES} generated scenes of {SIZE} px to learn from, {HELD_OUT} others to score on",
        "backbone": "tagmask_demo",
        "command": "python benchmarks/views_scenes.py --before OLD/src",
        "machine": f"CPU, 1 thread of 2 cores, shared, {platform.machine()}",
        "seed": 0,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "rows": rows,
    }
    args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

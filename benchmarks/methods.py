"""All methods on the same images with the same budget, three seeds: ``python benchmarks/methods.py``.

Every method trains on the tags of the same generated scenes for the same number of updates. Its class maps
are scored with the true tags on other scenes, at the threshold that suits them best, which is what all
methods have in common. Four of them share one backbone with the same weights (``tagmask_demo``). AFA, PSA and
TransCAM are built on networks of their own for which the package has no weights; they start from random ones
and are marked so. Learning rates were set once and not tuned. Seeds that the file has already are kept:
``--only afa --seeds 1`` adds one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

import tagmask
from tagmask.data.datasets.scenes import write_dataset

SIZE, SCENES, HELD_OUT, UPDATES, SEEDS = 96, 200, 100, 120, (0, 1, 2)
SHARED = {"backbone": "tagmask_demo"}
MODELS: dict[str, dict[str, Any]] = {
    "more": SHARED
    | {
        "normalisation": "weights",
        "register_noise": 0,
        "pooling": "lse",
        "aux_pooling": "lse",
        "aux_block": -2,
    }
    | {"scales": [1.0], "flip": False, "mct_from": 60, "ptc_from": 60, "lir_from": 60, "seg_from": UPDATES}
    | {"w_energy": 0, "decoder_width": 128, "lr": 3e-4, "lr_heads": 2e-3, "lr_decoder": 3e-3, "warmup": 20},
    "mctformer": SHARED | {"lr": 1e-3, "epochs": 10, "drop_path": 0.0},
    "aream": SHARED | {"lr": 1e-3, "epochs": 10, "drop_path": 0.0, "affinity_from": 80},
    "weaktr": SHARED | {"lr": 1e-3, "epochs": 10, "warmup_epochs": 1, "drop_path": 0.0},
    "transcam": {"backbone": "conformer:dim=96,depth=6,heads=2,ratio=1,base=16", "base": None, "lr": 1e-3},
    "afa": {"backbone": "mit_b0", "lr": 3e-4, "warmup": 20, "tags_until": 80, "walk_after": 120}
    | {"pooling": "mean"},
    "psa": {"width": 8},
}


OWN = ("transcam", "afa", "psa")


def recipe(method: str) -> dict[str, Any]:
    """What ``tagmask run`` is given for a method."""
    train = {"iterations": UPDATES, "batch_size": 16, "size": SIZE, "eval_every": 0, "view": "resized_crop"}
    model = MODELS[method]
    if method in OWN:
        model = model | {"weights": "none"}
    return {
        "method": method,
        "model": model,
        "train": train | {"view_settings": {"scale": [0.5, 1.0]}},
        "localize": {"kinds": ["cam"], "scales": [1.0], "split": "val"},
        "evaluate": {"background": "best", "what": ["cam"]},
        "runtime": {"threads": 1},
    }


def measure(method: str, seed: int, data: Path, work: Path) -> tuple[float, float]:
    """Mean IoU of the class maps in percent, and seconds of the training."""
    given, out = work / f"{method}.yaml", work / f"{method}-{seed}"
    given.write_text(yaml.safe_dump(recipe(method)), encoding="utf-8")
    tagmask.run(given, data, out=out, seed=seed, until="localize", progress=False)
    tagmask.evaluate(out)
    score = json.loads((out / "scores" / "val-cam.json").read_text())
    steps = json.loads((out / "run.json").read_text())["steps"]
    return round(100 * float(score["miou"]), 1), float(steps["train"]["seconds"])


def added(row: dict[str, Any], seed: int, score: float, seconds: float) -> dict[str, Any]:
    """A method's row with one more seed."""
    seeds, scores = [*row["seeds"], seed], [*row["miou"], score]
    taken = row["train_seconds"] * len(row["seeds"]) + seconds
    return row | {
        "seeds": seeds,
        "miou": scores,
        "mean": round(statistics.mean(scores), 1),
        "train_seconds": round(taken / len(seeds), 1),
    }


def empty(method: str) -> dict[str, Any]:
    """The row of a method that was not measured yet."""
    own = f"{MODELS[method].get('backbone', 'resnet38')}, random weights"
    network = own if method in OWN else "tagmask_demo"
    return {"method": method, "network": network, "seeds": [], "miou": [], "train_seconds": 0.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "methods_scenes.json")
    args = parser.parse_args()
    task = f"class maps with true tags, best threshold, {UPDATES} updates of 16 crops of {SIZE} px"
    record = json.loads(args.out.read_text(encoding="utf-8")) if args.out.is_file() else {}
    rows = {row["method"]: row for row in record["rows"]} if record.get("task") == task else {}
    with tempfile.TemporaryDirectory() as folder:
        data = write_dataset(Path(folder) / "data", SCENES, HELD_OUT, SIZE)
        for seed, method in itertools.product(args.seeds, args.only):
            row = rows.get(method, empty(method))
            if seed not in row["seeds"]:
                rows[method] = added(row, seed, *measure(method, seed, data, Path(folder)))
                print(*rows[method].values(), flush=True)
                write(args.out, task, [rows[name] for name in MODELS if name in rows])


def write(place: Path, task: str, rows: list[dict[str, Any]]) -> None:
    """The result file; what was measured before for the same task stays in it."""
    record = {
        "task": task,
        "data": f"{SCENES} generated scenes of {SIZE} px to train on, {HELD_OUT} others to score on",
        "command": "python benchmarks/methods.py",
        "machine": f"CPU, 1 thread of 2 cores, crowded by other programs, {platform.machine()}",
        "precision": "fp32",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "rows": rows,
        "settings": {row["method"]: json.dumps(MODELS[row["method"]]) for row in rows},
    }
    place.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

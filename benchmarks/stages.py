"""What each step of a multi-stage run costs: ``python benchmarks/stages.py [--out FILE]``.

The recipe `small-stages` with random weights on procedural pictures of 288 x 288 pixels, the size of a small
photograph. The clock is the processor time of one thread, which other programs hardly disturb; a whole run
goes before the measured one.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from tagmask.data.datasets.scenes import write_dataset
from tagmask.pipeline.config import read_config
from tagmask.pipeline.run import STEPS, run

SIZE, NUM_TRAIN, NUM_VAL, UPDATES = 288, 2, 2, 2
UNITS = {
    "train": "update of 16 views, 192 px, tags alone",
    "train, affinity phase": "update of 16 views, 192 px",
    "localize": "image and its mirror image",
    "refine": "image (PAR)",
    "affinity": "update of 4 crops, 256 px",
    "walk": "image, 64 steps, network included",
    "student": "update of 8 crops, 224 px",
    "segment": "image and its mirror image, CRF",
    "evaluate": "image, all scores",
    "report": "page",
}
COUNTS = {"localize": 4, "refine": 4, "walk": 4, "segment": 2, "evaluate": 2, "report": 1}


def measure(data: Path, out: Path) -> dict[str, float]:
    """Processor seconds of every step per unit."""
    given = [f"{part}model.weights=none" for part in ("", "affinity.", "student.")]
    given += [f"{part}train.iterations={UPDATES}" for part in ("", "affinity.", "student.")]
    given += ["train.log_every=1", "runtime.threads=1", f"data.root={data}"]
    seconds = {}
    for name, begin in (("train, affinity phase", 0), ("train", 1000)):
        config = read_config("small-stages", {}, [*given, f"model.affinity_from={begin}"])
        steps = ("train",) if begin == 0 else STEPS
        for step in steps:
            before = time.process_time()
            run(config, out / str(begin), (step,))
            taken = time.process_time() - before
            seconds[name if step == "train" else step] = taken / COUNTS.get(step, UPDATES)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "stages.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = write_dataset(Path(folder) / "data", NUM_TRAIN, NUM_VAL, size=SIZE)
        measure(data, Path(folder) / "first")
        seconds = measure(data, Path(folder) / "second")
    record: dict[str, Any] = {
        "task": f"steps of the recipe small-stages (DeiT-tiny, random weights), pictures of {SIZE} x {SIZE}",
        "command": "python benchmarks/stages.py",
        "machine": f"CPU, 1 thread of 2 cores, shared, processor time, {platform.machine()}",
        "seed": 0,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "seconds": {name: {"per": per, "seconds": round(seconds[name], 3)} for name, per in UNITS.items()},
    }
    args.out.write_text(json.dumps(record, indent=1) + "\n")
    for name, value in record["seconds"].items():
        print(f"{name:24s} {value['seconds']:.3f} s per {value['per']}")


if __name__ == "__main__":
    main()

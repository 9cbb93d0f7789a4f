"""Folders of 8-bit photographs are read as before other pixels came, bit by bit and as fast.

    python benchmarks/photographs.py --before b252e47 --out benchmarks/results/photographs.json

Both versions open the same folder and read every picture of it in turn, several times, in processes of their
own; what counts is the processor's time, since a machine is seldom alone. A few updates follow once.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

_SEED = 0
_CHILD = """
import hashlib, json, sys, time
from pathlib import Path
import tagmask
from tagmask.data.parts import DataConfig, Parts

root, out, updates = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
began = time.process_time()
dataset, digest = Parts(DataConfig(root=root, holdout=0)).open("train"), hashlib.sha256()
opened = time.process_time()
pictures = [dataset.image(index) for index in range(len(dataset))]
read = time.process_time()
for picture in pictures:
    digest.update(picture.tobytes())
weights = ""
if updates:
    settings = {"train.tensorboard": False, "train.eval_every": 0, "data.holdout": 0}
    model = {"model.backbone": "vit:patch=8,dim=32,depth=2,heads=2,size=64", "model.weights": "none",
             "model.aux_block": -2}
    tagmask.train(root, method="more", out=out, settings=settings | model, iterations=updates, size=64,
                  batch_size=4, device="cpu", progress=False)
    from safetensors.torch import load_file
    values = load_file(out / "model" / "weights.safetensors")
    whole = hashlib.sha256()
    for name in sorted(values):
        whole.update(name.encode() + values[name].numpy().tobytes())
    weights = whole.hexdigest()
print(json.dumps({"opening": opened - began, "reading": read - opened, "pixels": digest.hexdigest(),
                  "weights": weights}))
"""


def make_folder(root: Path, count: int) -> None:
    """Photographs' sizes and endings, in plain noise of low frequency."""
    rng = np.random.default_rng(_SEED)
    (root / "images").mkdir(parents=True)
    rows = ["image,tags"]
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
        name = f"{number:04d}.{'png' if number % 4 == 0 else 'jpg'}"
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(root / "images" / name, quality=90)
        rows.append(f"{name},{'ab'[number % 2]}")
    (root / "tags.csv").write_text("\n".join(rows) + "\n")


def look(source: Path, root: Path, out: Path, updates: int) -> dict[str, object]:
    """What one version makes of the folder."""
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", _CHILD, str(root), str(out), str(updates)]
    done = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", required=True, help="Commit to compare with.")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    here = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as spare:
        work = Path(spare)
        packed = subprocess.run(
            ["git", "archive", args.before, "src"], cwd=here, check=True, capture_output=True
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(work / "before", filter="data")
        make_folder(work / "data", args.images)
        sources = {"before": work / "before" / "src", "now": here / "src"}
        found: dict[str, list[dict[str, object]]] = {"before": [], "now": []}
        for turn in range(args.rounds):
            for name, source in sources.items():
                updates = args.updates if turn == 0 else 0
                found[name].append(look(source, work / "data", work / f"{name}-{turn}", updates))
    least = {
        key: {name: min(float(str(row[key])) for row in rows) for name, rows in found.items()}
        for key in ("opening", "reading")
    }
    result = {
        "command": f"python benchmarks/photographs.py --before {args.before} --images {args.images}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, shared with other work",
        "threads": 1,
        "seed": _SEED,
        "images": args.images,
        "rounds": args.rounds,
        "same_pixels": len({str(row["pixels"]) for rows in found.values() for row in rows}) == 1,
        "same_weights": len({str(rows[0]["weights"]) for rows in found.values()}) == 1,
        "updates": args.updates,
        **{f"{key}_cpu_seconds": {n: round(v, 4) for n, v in both.items()} for key, both in least.items()},
        **{f"{key}_ratio": round(both["now"] / both["before"], 3) for key, both in least.items()},
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

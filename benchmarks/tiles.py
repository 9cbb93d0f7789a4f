"""Peak memory and time of `tagmask predict` on one picture of any size, and what tiles change in its mask.

    python benchmarks/tiles.py MODEL --sides 1000 5000 20000 --out benchmarks/results/tiles.json
    python benchmarks/tiles.py MODEL --sides --compare PICTURE... --out benchmarks/results/tiles.json

MODEL is a run or model folder, or "tiny" for a MoRe of 2 blocks of width 32 with random weights, enough for
the memory that a picture causes. Pictures are photographs (--photos) or scenes, repeated to the size.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tagmask.data.classes import ClassTable
from tagmask.data.datasets.scenes import CLASSES, render
from tagmask.data.readers.images import read_image
from tagmask.models.trained import build_method, save_method
from tagmask.store.labels import read_mask


def tiny(folder: Path) -> Path:
    settings = {
        "backbone": "vit:patch=16,dim=32,depth=2,heads=2,size=224",
        "weights": "none",
        "aux_block": -2,
        "decoder_width": 32,
    }
    method = build_method("more", settings, len(CLASSES))
    save_method(folder, method, "more", ClassTable(CLASSES), {}, {})
    return folder


def picture(side: int, photos: list[Path], path: Path) -> None:
    patch = [read_image(photo) for photo in photos] or [render(i, 0, size=500).image for i in range(4)]
    edge = min(min(p.shape[:2]) for p in patch)
    row = np.concatenate([p[:edge, :edge] for p in patch], 1)
    canvas = Image.new("RGB", (side, side))
    block = Image.fromarray(row)
    for top in range(0, side, edge):
        for left in range(-edge * (top // edge % len(patch)), side, block.width):
            canvas.paste(block, (left, top))
    canvas.save(path, quality=90)


def predict(model: Path, source: Path, out: Path, tile: int, scales: str) -> tuple[float, float]:
    """Wall seconds and peak memory in MB of one command."""
    command = [sys.executable, "-m", "tagmask", "predict", str(model), str(source), "--out", str(out)]
    command += ["--tile", str(tile), "--scales", scales, "--device", "cpu", "--batch-size", "1"]
    started = time.perf_counter()
    process = subprocess.Popen([*command, "--set", "flip=none"], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"predict failed with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def sizes(args: argparse.Namespace, model: Path, work: Path) -> list[dict[str, Any]]:
    rows = []
    for side in args.sides:
        source = work / f"{side}.jpg"
        picture(side, args.photos, source)
        out = work / f"out-{side}"
        seconds, peak = predict(model, source, out, args.tile, args.scales)
        row = json.loads((out / "summary.jsonl").read_text(encoding="utf-8"))
        rows.append(
            {"side": side, "tiles": row["tiles"], "peak_memory_mb": round(peak), "seconds": round(seconds, 1)}
        )
        print(rows[-1], flush=True)
    return rows


def compare(args: argparse.Namespace, model: Path, work: Path) -> list[dict[str, Any]]:
    """The mask of one pass over the whole picture against that of tiles."""
    rows = []
    for source in args.compare:
        for side in args.compare_tiles:
            masks = []
            for name, tile in (("whole", 1 << 14), ("tiles", side)):
                out = work / f"{source.stem}-{side}-{name}"
                predict(model, source, out, tile, args.scales)
                masks.append(read_mask(out / "masks" / f"{source.stem}.png"))
            whole, tiled = masks
            ious = [
                ((whole == k) & (tiled == k)).sum() / ((whole == k) | (tiled == k)).sum()
                for k in np.union1d(whole, tiled)
            ]
            rows.append(
                {
                    "picture": f"{whole.shape[1]} x {whole.shape[0]}",
                    "tile": side,
                    "equal_pixels": round(float((whole == tiled).mean()), 4),
                    "mean_iou": round(float(np.mean(ious)), 4),
                }
            )
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--sides", type=int, nargs="*", default=[1000, 5000, 20000])
    parser.add_argument("--photos", type=Path, nargs="*", default=[])
    parser.add_argument("--compare", type=Path, nargs="*", default=[])
    parser.add_argument("--compare-tiles", type=int, nargs="*", default=[512])
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--scales", default="1")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model = tiny(work / "model") if args.model == "tiny" else Path(args.model)
        about = {
            "model": "tiny" if args.model == "tiny" else "MoRe on ViT-Ti/16",
            "tile": args.tile,
            "scales": args.scales,
        }
        found = {"sizes": sizes(args, model, work), "agreement": compare(args, model, work)}
    result = json.loads(args.out.read_text(encoding="utf-8")) if args.out.is_file() else {}
    result["machine"] = "CPU, 2 cores shared with other work, 1 thread"
    # One call measures sizes, another compares; both keep what the other wrote.
    result |= {part: [about | row for row in rows] for part, rows in found.items() if rows}
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Memory and time of `tagmask predict` on a scene of 40,000 x 40,000 pixels with four bands.

    python benchmarks/pixels.py --out benchmarks/results/pixels.json

The scene is a cloud-optimised GeoTIFF of 16 bits, made of plain fields, so that it is small on disk; its
model is a small vision transformer with random weights, and looks at one scale. Neither changes what has to
be held in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from tagmask.backbones.bands import with_bands
from tagmask.data import ClassTable
from tagmask.data.levels import Reading
from tagmask.models.trained import build_method, save_method

_FIELD = 512
_SEED = 0
_MODEL = {"backbone": "vit:patch=16,dim=32,depth=3,heads=2,size=256", "weights": "none", "decoder_width": 32}


def make_scene(path: Path, side: int) -> None:
    """A scene of plain fields, four bands, 16 bits."""
    import rasterio
    import rasterio.shutil
    from rasterio.transform import from_origin

    rng, draft = np.random.default_rng(_SEED), path.with_suffix(".draft.tif")
    place = {"crs": "EPSG:32632", "transform": from_origin(500_000, 5_400_000, 0.3, 0.3)}
    tiles = {"tiled": True, "blockxsize": _FIELD, "blockysize": _FIELD, "compress": "zstd", "zstd_level": 1}
    with rasterio.open(
        draft,
        "w",
        driver="GTiff",
        height=side,
        width=side,
        count=4,
        dtype="uint16",
        nodata=0,
        **tiles,
        **place,
    ) as file:
        for top in range(0, side, _FIELD):
            rows = min(_FIELD, side - top)
            values = rng.integers(1, 10_000, (4, -(-side // _FIELD)), np.uint16)
            strip = np.broadcast_to(np.repeat(values, _FIELD, 1)[:, None, :side], (4, rows, side))
            file.write(strip, window=((top, top + rows), (0, side)))
    rasterio.shutil.copy(draft, path, driver="COG", compress="zstd", overview_resampling="nearest")
    draft.unlink()


def make_model(folder: Path) -> None:
    """A small network for four bands."""
    torch.manual_seed(_SEED)
    method = build_method("more", _MODEL, 5)
    with_bands(method, 4)
    classes = ClassTable(("field", "forest", "road", "roof", "water"))
    reading = Reading((1, 2, 3, 4), ((0.0, 10_000.0),), True, "fixed")
    save_method(folder, method, "more", classes, {}, {"pixels": reading.as_values()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=40_000)
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--work", type=Path, help="folder for the scene, kept; a temporary one if not given")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as spare:
        work = args.work or Path(spare)
        work.mkdir(parents=True, exist_ok=True)
        scene, model, out = work / "scene.tif", work / "model", work / "out"
        if not scene.exists():
            make_scene(scene, args.side)
        make_model(model)
        command = ["predict", "model", "scene.tif", "--out", "out", "--overwrite"]
        command += ["--tile", str(args.tile), "--batch-size", "8", "--set", "overlap=64", "--device", "cpu"]
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "tagmask", *command], cwd=work, check=True)
        seconds = time.perf_counter() - started
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        peak = used.ru_maxrss * 1024 / 1e9
        row = json.loads((out / "summary.jsonl").read_text().splitlines()[0])
        found = {
            "peak_gb": round(peak, 3),
            "seconds_per_megapixel": round(seconds / (args.side**2 / 1e6), 4),
            "cpu_seconds_per_megapixel": round((used.ru_utime + used.ru_stime) / (args.side**2 / 1e6), 4),
            "command": f"python benchmarks/pixels.py --side {args.side} --tile {args.tile} --out ...",
            "predict": " ".join(["tagmask", *command]),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, shared with other work",
            "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
            "seed": _SEED,
            "pixels": [args.side, args.side],
            "bands": 4,
            "dtype": "uint16",
            "scene_mb": round(scene.stat().st_size / 1e6, 1),
            "tiles": row["tiles"],
            "model": _MODEL["backbone"],
            "torch": torch.__version__,
        }
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

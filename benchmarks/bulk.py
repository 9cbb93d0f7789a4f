"""Label generated pictures with Ray, one worker killed midway, and look at memory, speed and completeness.

python benchmarks/bulk.py --images 20000 --out benchmarks/results/bulk.json --plot docs/images/bulk-memory.png

With --photo-model RUN --photos FOLDER also the speed of a real network on photographs, one process, one core.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import platform
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path

from family import family
from matplotlib.figure import Figure
from PIL import Image

from tagmask.data.datasets.scenes import render, write_dataset

VIT = "vit:patch=8,dim=64,depth=4,heads=2,size=96"
FLAGS = ["--device=cpu", "--scales=1", "--batch-size=16", "--set=overlays=false", "--set=confidence=false"]
DISTINCT = 500
PER_SHARD = 1000


def tagmask(*words: object) -> None:
    command = [sys.executable, "-m", "tagmask", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)


def train(folder: Path) -> Path:
    """A small MoRe, hardly trained: what it sees does not matter here."""
    data = write_dataset(folder / "data", 12, 4, size=96)
    flags = [
        "--method=more",
        f"--backbone={VIT}",
        "--weights=none",
        "--size=96",
        "--device=cpu",
        "--batch-size=4",
    ]
    flags += ["--iterations=5", "--set=model.aux_block=-2", "--set=train.eval_every=0"]
    tagmask("train", "--data", data, "--out", folder / "run", *flags)
    return folder / "run"


def write_shards(folder: Path, count: int) -> None:
    """Tar shards of `count` pictures of 96 x 96; the names differ, the pictures repeat."""
    folder.mkdir()
    pictures = []
    for number in range(min(DISTINCT, count)):
        buffer = io.BytesIO()
        Image.fromarray(render(number, 0, size=96).image).save(buffer, "JPEG", quality=90)
        pictures.append(buffer.getvalue())
    for first in range(0, count, PER_SHARD):
        with tarfile.open(folder / f"{first // PER_SHARD:05d}.tar", "w") as shard:
            for number in range(first, min(first + PER_SHARD, count)):
                entry = tarfile.TarInfo(f"{number // PER_SHARD:05d}/{number:07d}.jpg")
                content = pictures[number % len(pictures)]
                entry.size = len(content)
                shard.addfile(entry, io.BytesIO(content))


def watch(
    process: subprocess.Popen[str], out: Path, kill_at: int, rows: list[dict[str, float]]
) -> int | None:
    """Note memory every few seconds until the end; kill a worker once `kill_at` chunks are done."""
    started, killed = time.monotonic(), None
    while process.poll() is None:
        found = list(family(process.pid))
        workers = [(pid, size) for pid, name, size, _ in found if name.startswith("ray::MapWorker")]
        done = sum(1 for _ in (out / "bulk" / "done").rglob("*.jsonl"))
        rows.append(
            {
                "seconds": round(time.monotonic() - started, 1),
                "chunks": done,
                "driver": round(next((size for pid, _, size, _ in found if pid == process.pid), 0.0), 1),
                "workers": round(sum(size for _, size in workers), 1),
                "all": round(sum(size for _, _, size, _ in found), 1),
            }
        )
        if killed is None and done >= kill_at and workers:
            killed = workers[0][0]
            os.kill(killed, signal.SIGKILL)
        time.sleep(3)
    return killed


def plot(rows: list[dict[str, float]], path: Path) -> None:
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    for key, label in (("all", "all processes"), ("workers", "two workers"), ("driver", "driver")):
        axes.plot([row["seconds"] for row in rows], [row[key] for row in rows], label=label)
    highest = max((row["all"] for row in rows), default=1.0)
    axes.set(xlabel="seconds", ylabel="MiB", ylim=(0, 1.25 * highest))
    axes.legend(frameon=False, loc="upper center", ncols=3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def photo_speed(model: Path, photos: Path, count: int, folder: Path) -> float:
    """Photographs per second of one process on one core; its start does not count."""
    chosen = sorted(photos.glob("*.jpg"))[:count]
    took = []
    for part in (chosen[:1], chosen):
        started = time.monotonic()
        tagmask("predict", model, *part, "--out", folder / f"seen-{len(part)}", *FLAGS)
        took.append(time.monotonic() - started)
    return (count - 1) / (took[1] - took[0])


def million(rates: dict[str, float], mask_bytes: float) -> dict[str, float]:
    """Hours for a million pictures at these measured rates, and the disk their masks fill."""
    hours = {f"hours, {name}": round(1e6 / rate / 3600, 1) for name, rate in rates.items()}
    return {**hours, "masks of 96 x 96, GiB": round(1e6 * mask_bytes / 2**30, 2)}


def completeness(out: Path, count: int) -> dict[str, int]:
    names = [json.loads(line)["name"] for line in (out / "summary.jsonl").open()]
    with (out / "failed.csv").open() as file:
        failed = len(list(csv.DictReader(file)))
    masks = sum(1 for _ in (out / "masks").rglob("*.png"))
    twice = len(names) - len(set(names))
    return {"listed": count, "labelled": len(names), "twice": twice, "masks": masks, "failed": failed}


def differing(first: Path, second: Path) -> int:
    return sum(
        path.read_bytes() != (second / path.relative_to(first)).read_bytes()
        for path in (first / "masks").rglob("*.png")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20000)
    parser.add_argument("--single", type=int, default=2000, help="pictures for the single process")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--photo-model", type=Path)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--plot", type=Path, required=True)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run = train(folder)
        write_shards(folder / "shards", args.images)
        # The single process reads no shards: the first pictures as files.
        files = folder / "files"
        for number in range(0, args.single, PER_SHARD):
            with tarfile.open(folder / "shards" / f"{number // PER_SHARD:05d}.tar") as shard:
                shard.extractall(files, filter="data")
        single = folder / "single"
        started = time.monotonic()
        tagmask("predict", run, files, "--out", single, *FLAGS)
        alone = time.monotonic() - started
        out = folder / "out"
        command = [
            sys.executable,
            "-m",
            "tagmask",
            "predict",
            run,
            folder / "shards" / "*.tar",
            "--out",
            out,
            *FLAGS,
        ]
        command += ["--engine=ray", f"--workers={args.workers}"]
        rows: list[dict[str, float]] = []
        started = time.monotonic()
        process = subprocess.Popen(
            list(map(str, command)), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        said: list[str] = []
        reader = threading.Thread(target=lambda: said.extend(process.communicate()))
        reader.start()
        killed = watch(process, out, args.images // 64 // 2, rows)
        reader.join()
        seconds = time.monotonic() - started
        if process.returncode:
            sys.exit(said[1])
        bulk = json.loads((out / "bulk" / "bulk.json").read_text())
        # Without the start and the end, when the workers come and go.
        late = [row["all"] for row in rows if 0.1 < 64 * row["chunks"] / args.images < 0.99]
        result = {
            "about": {
                "command": f"python benchmarks/bulk.py --images {args.images} --single {args.single} "
                f"--workers {args.workers} --out {args.out} --plot {args.plot}",
                "machine": f"{os.cpu_count()}-core CPU, {platform.machine()}, one thread a worker",
                "versions": {name: version(name) for name in ("torch", "ray", "tagmask")},
                "network": f"MoRe, {VIT}, pictures of 96 x 96, one view, masks only",
            },
            "single": {
                "images": args.single,
                "seconds": round(alone, 1),
                "images_per_second": round(args.single / alone, 1),
            },
            "ray": {
                "workers": args.workers,
                "seconds_with_start": round(seconds, 1),
                "seconds": round(bulk["seconds"], 1),
                "images_per_second": round(bulk["images_per_second"], 1),
                "worker_killed_midway": killed is not None,
                **completeness(out, args.images),
                "masks_unlike_the_single_process": differing(single, out),
            },
            "memory_mib": {
                "at_a_quarter": late[len(late) // 4] if late else None,
                "at_three_quarters": late[3 * len(late) // 4] if late else None,
                "most": max((row["all"] for row in rows), default=None),
            },
        }
        rates = {f"this network, {args.workers} cores": bulk["images_per_second"]}
        if args.photo_model and args.photos:
            rate = photo_speed(args.photo_model, args.photos, 100, folder)
            result["photos"] = {"images_per_second_of_one_core": round(rate, 2)}
            rates["ViT-Ti/16 on photographs, 1 core"] = rate
        sizes = [path.stat().st_size for path in (single / "masks").rglob("*.png")]
        result["million"] = million(rates, sum(sizes) / len(sizes))
        plot(rows, args.plot)
        with args.out.with_name("bulk_memory.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: result[key] for key in ("single", "ray", "memory_mib", "million")}, indent=1))


if __name__ == "__main__":
    main()

"""A million pictures through Ray, from and to an S3 store, with broken ones, killed workers and a full disk.

    pip install s3fs 'moto[s3,server]'
    mkdir disk && sudo mount -t tmpfs -o size=6g tmpfs disk
    python benchmarks/bulk_million.py --disk disk --out benchmarks/results/bulk_million.json

The store is moto's server, whose objects lie on `--disk`, a small file system of their own: it is filled for
a minute in the middle of the run. All workers are killed at once before that. One picture in a hundred cannot
be decoded. Pictures are few and small under a million names: the way is looked at, not the network.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import math
import os
import platform
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import fsspec
import torch
from family import family
from PIL import Image

from tagmask.data.classes import ClassTable
from tagmask.data.datasets.scenes import CLASSES, render
from tagmask.inference.place import Place
from tagmask.models.trained import build_method, save_method

SIDE, DISTINCT, PER_SHARD = 32, 500, 1000
VIT = f"vit:patch=8,dim=32,depth=3,heads=2,size={SIDE}"
FLAGS = [
    "--engine=ray", f"--chunk={PER_SHARD}", "--device=cpu", "--scales=1", "--batch-size=100",
    "--set=flip=none", "--set=overlays=false", "--set=confidence=false",
]  # fmt: skip


@dataclass(frozen=True)
class Events:
    """Attributes: shares of the chunks done when workers are killed and the disk is filled; for how long."""

    kill_at: float
    full_at: float
    full_seconds: float


@dataclass
class Seen:
    """What was seen of a run while it went on.

    Attributes:
        rows: Time, finished chunks and memory of all processes in MiB, every few seconds.
        cpu: Processor seconds of every process.
        workers: Processes that were workers, those that replaced killed ones included.
        killed: Workers that were killed.
        full: Seconds after the start at which the disk was filled and cleared.
        free: Bytes free on the disk whenever it was looked at while it was full.
        starts: How often the command was given.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    cpu: dict[int, float] = field(default_factory=dict)
    workers: set[int] = field(default_factory=set)
    killed: int = 0
    full: tuple[float, float] | None = None
    free: list[int] = field(default_factory=list)
    starts: int = 0


def is_poison(number: int) -> bool:
    return number * 7919 % 100 == 13


def name_of(number: int) -> str:
    return f"{number // PER_SHARD:04d}/{number:07d}"


def bodies() -> tuple[list[bytes], list[bytes]]:
    """Pictures, and what is none: cut off, text, nothing at all."""
    found = []
    for number in range(DISTINCT):
        buffer = io.BytesIO()
        picture = Image.fromarray(render(number, 0, size=64).image).resize((SIDE, SIDE))
        picture.save(buffer, "JPEG", quality=80)
        found.append(buffer.getvalue())
    return found, [found[0][: len(found[0]) // 2], b"no picture", b""]


def upload(system: Any, count: int) -> None:
    """Tar shards under ``bulk/in``."""
    good, bad = bodies()
    for first in range(0, count, PER_SHARD):
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as shard:
            for number in range(first, min(first + PER_SHARD, count)):
                body = bad[number % len(bad)] if is_poison(number) else good[number % DISTINCT]
                entry = tarfile.TarInfo(f"{name_of(number)}.jpg")
                entry.size = len(body)
                shard.addfile(entry, io.BytesIO(body))
        system.pipe_file(f"bulk/in/{first // PER_SHARD:05d}.tar", content.getvalue())


def make_model(folder: Path) -> None:
    torch.manual_seed(0)
    method = build_method("more", {"backbone": VIT, "weights": "none", "decoder_width": 32}, len(CLASSES))
    save_method(folder, method.eval(), "more", ClassTable(tuple(CLASSES)), {}, {})


def fill(disk: Path) -> None:
    """Leave no byte on a file system."""
    with (disk / "filler").open("wb", buffering=0) as file:
        piece = bytes(1 << 20)
        try:
            os.posix_fallocate(file.fileno(), 0, max(shutil.disk_usage(disk).free - 64 * len(piece), 1))
            file.seek(0, os.SEEK_END)
            while True:
                file.write(piece)
        except OSError:
            pass


def watch(
    process: subprocess.Popen[str],
    system: Any,
    disk: Path,
    chunks: int,
    seen: Seen,
    began: float,
    limit: float,
    events: Events,
) -> None:
    """Look at memory and progress until the end; kill the workers and fill the disk when it is time."""
    while process.poll() is None:
        found = list(family(process.pid))
        workers = [pid for pid, name, *_ in found if name.startswith("ray::MapWorker")]
        seen.workers.update(workers)
        done, now = len(system.find("bulk/out/bulk/done")), time.monotonic() - began
        sizes = {"driver": 0.0, "workers": 0.0, "ray": 0.0}
        for pid, _, size, cpu in found:
            part = "driver" if pid == process.pid else "workers" if pid in workers else "ray"
            sizes[part] += size
            seen.cpu[pid] = max(cpu, seen.cpu.get(pid, 0.0))
        row = {"seconds": round(now, 1), "chunks": done, **{k: round(v, 1) for k, v in sizes.items()}}
        seen.rows.append({**row, "all": round(sum(sizes.values()), 1)})
        if not seen.killed and done >= events.kill_at * chunks and workers:
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
            seen.killed = len(workers)
        if seen.full is None and done >= events.full_at * chunks:
            fill(disk)
            seen.full = (now, now)
        if (disk / "filler").exists():
            seen.free.append(shutil.disk_usage(disk).free)
        if (disk / "filler").exists() and seen.full is not None and now > seen.full[0] + events.full_seconds:
            (disk / "filler").unlink()
            seen.full = (seen.full[0], now)
        if now > limit:
            process.send_signal(signal.SIGINT)  # finished chunks are kept
            limit = math.inf
        time.sleep(5)
    (disk / "filler").unlink(missing_ok=True)


def label(
    model: Path, workers: int, system: Any, disk: Path, chunks: int, limit: float, events: Events
) -> tuple[Seen, float, int]:
    """Give the command until it is through; what was seen, seconds, chunks.

    After `limit` seconds it is interrupted and given again for as many shards as it has got to.
    """
    inputs, seen, began, code = ["s3://bulk/in/*.tar"], Seen(), time.monotonic(), -1
    while code not in (0, 3):
        seen.starts += 1
        command = [sys.executable, "-m", "tagmask", "predict", str(model), *inputs, "--out", "s3://bulk/out"]
        command += [*FLAGS, f"--workers={workers}"]
        with tempfile.TemporaryFile("w+") as told:
            process = subprocess.Popen(command, stderr=told, stdout=told, text=True)
            watch(process, system, disk, chunks, seen, began, limit, events)
            code, said = process.wait(), _read(told)
        print(f"exit code {code}: {said[-400:]}", flush=True)
        if time.monotonic() - began > limit and len(inputs) == 1:
            reached = [int(Path(one).name[:6]) for one in system.find("bulk/out/shards")]
            chunks = max(reached) + 1
            inputs, limit = [f"s3://bulk/in/{number:05d}.tar" for number in range(chunks)], math.inf
        elif seen.starts == 5:
            sys.exit("it ended five times")
    return seen, time.monotonic() - began, chunks


def _read(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def completeness(system: Any, count: int) -> dict[str, Any]:
    """Every picture once, as a mask or as a failure; pictures of one body have one mask."""
    masks: Counter[str] = Counter()
    bytes_of: dict[int, set[str]] = {}
    for shard in sorted(system.find("bulk/out/shards")):
        with tarfile.open(fileobj=io.BytesIO(system.cat_file(shard))) as archive:
            for entry in archive:
                name = entry.name.removeprefix("masks/").removesuffix(".png")
                masks[name] += 1
                content = archive.extractfile(entry)
                assert content is not None
                body = int(name[-7:]) % DISTINCT
                bytes_of.setdefault(body, set()).add(hashlib.sha256(content.read()).hexdigest())
    listed: Counter[str] = Counter()
    # Not by the lines of a file of fsspec: each of them copies megabytes.
    for line in Place("s3://bulk/out").lines("summary.jsonl"):
        listed[json.loads(line)["name"]] += 1
    with system.open("bulk/out/failed.csv", "r", newline="") as file:
        failed = Counter(row["source"].rsplit(":", 1)[1].removesuffix(".jpg") for row in csv.DictReader(file))
    wanted = {name_of(number) for number in range(count) if not is_poison(number)}
    broken = {name_of(number) for number in range(count) if is_poison(number)}
    twice = sum(n > 1 for found in (masks, listed, failed) for n in found.values())
    return {
        "images": count,
        "lost": len(wanted - masks.keys()) + len(wanted - listed.keys()) + len(broken - failed.keys()),
        "twice": twice + len(masks.keys() & failed.keys()),
        "masks": len(masks),
        "failed": len(failed),
        "never_listed": len((masks.keys() | failed.keys()) - wanted - broken),
        "bodies_with_more_than_one_mask": sum(len(found) > 1 for found in bytes_of.values()),
    }


def around(rows: list[dict[str, float]], chunks: float, reach: float, part: str) -> float | None:
    """What part of the program held in the middle of the time in which about so many chunks were done."""
    near = [row[part] for row in rows if abs(row["chunks"] - chunks) <= reach]
    return round(statistics.median(near), 1) if near else None


def finished_within(rows: list[dict[str, float]], span: tuple[float, float] | None) -> int | None:
    """Chunks finished in a span of time."""
    inside = [int(row["chunks"]) for row in rows if span is not None and span[0] <= row["seconds"] <= span[1]]
    return inside[-1] - inside[0] if inside else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--disk", type=Path, required=True, help="a small file system for the store")
    parser.add_argument("--server", default="moto_server -H 127.0.0.1 -p {port}", help="how it is started")
    parser.add_argument("--port", type=int, default=9123)
    parser.add_argument("--minutes", type=float, default=math.inf, help="then what was reached is finished")
    parser.add_argument("--kill-at", type=float, default=0.2, help="share of the chunks")
    parser.add_argument("--full-at", type=float, default=0.35, help="share of the chunks")
    parser.add_argument("--full-seconds", type=float, default=60.0)
    parser.add_argument("--price", type=float, default=0.04, help="of a core for an hour")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    events = Events(args.kill_at, args.full_at, args.full_seconds)
    endpoint = f"http://127.0.0.1:{args.port}"
    os.environ |= {"OMP_NUM_THREADS": "1", "AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
    # Objects of more than a few bytes lie in files on the small disk.
    place = {"TMPDIR": str(args.disk), "MOTO_S3_DEFAULT_KEY_BUFFER_SIZE": "4096"}
    words = shlex.split(args.server.format(port=args.port))
    server = subprocess.Popen(
        words, env={**os.environ, **place}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        system = fsspec.filesystem("s3", use_listings_cache=False)
        _answering(system, server)
        system.mkdir("bulk")
        upload(system, args.images)
        print("uploaded", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            make_model(Path(folder) / "model")
            chunks = -(-args.images // PER_SHARD)
            where = Path(folder) / "model"
            seen, seconds, chunks = label(
                where, args.workers, system, args.disk, chunks, 60 * args.minutes, events
            )
        count = min(args.images, chunks * PER_SHARD)
        told = completeness(system, count)
        bulk = json.loads(system.cat_file("bulk/out/bulk/bulk.json"))
    finally:
        server.terminate()
        server.wait()
    cpu = sum(seen.cpu.values())
    million = cpu * 1e6 / count / 3600
    result = {
        **told,
        "peak_gb": round(max(row["all"] for row in seen.rows) * 2**20 / 1e9, 3),
        "mib": {
            f"{part}, {when}": around(seen.rows, share * chunks, chunks / 20, part)
            for part in ("driver", "workers", "all")
            for when, share in (("at a quarter", 0.25), ("at three quarters", 0.75))
        },
        "seconds": round(seconds, 1),
        "images_per_second": round(count / seconds, 1),
        "images_per_second_of_last_start": round(bulk["images_per_second"], 1),
        "processor_seconds": round(cpu, 1),
        "workers_killed_at_once": seen.killed,
        "workers_in_all": len(seen.workers),
        "disk_full_seconds": round(seen.full[1] - seen.full[0], 1) if seen.full else 0,
        "most_bytes_free_meanwhile": max(seen.free, default=None),
        "chunks_finished_meanwhile": finished_within(seen.rows, seen.full),
        "starts": seen.starts,
        "core_hours_per_million": round(million, 3),
        "cost_per_million": f"{million * args.price:.3f} at {args.price} for an hour of a core",
        "command": f"python benchmarks/bulk_million.py --images {args.images} --workers {args.workers} "
        f"--disk DISK --minutes {args.minutes:g} --kill-at {args.kill_at} --full-at {args.full_at} "
        f"--full-seconds {args.full_seconds:g} --out ...",
        "machine": f"{os.cpu_count()}-core CPU, {platform.machine()}, shared with other work and the store",
        "network": f"MoRe, {VIT}, pictures of {SIDE} x {SIDE}, one view, masks only",
        "seed": 0,
        "seconds, chunks, MiB of the workers, of all": [
            [row[key] for key in ("seconds", "chunks", "workers", "all")]
            for row in seen.rows[:: max(1, len(seen.rows) // 40)]
        ],
        "versions": {name: version(name) for name in ("torch", "ray", "s3fs", "tagmask")},
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def _answering(system: Any, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and server.poll() is None:
        try:
            system.ls("", refresh=True)
            return
        except Exception:
            time.sleep(0.5)
    sys.exit("the store does not answer")


if __name__ == "__main__":
    main()

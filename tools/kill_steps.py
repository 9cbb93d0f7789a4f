"""Kill every command of a run at random moments, finish it, and compare its files with an undisturbed run's.

python tools/kill_steps.py --kills 40 --out benchmarks/results/killed_steps.json

Every command works in a child of this process that is killed with SIGKILL at a moment drawn at random; the
same command is then given again until it ends by itself. Files must be equal afterwards, but for clocks.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import importlib
import io
import json
import os
import pkgutil
import platform
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

FLAGS = [
    "--method=more", "--backbone=vit:patch=8,dim=32,depth=2,heads=2,size=64", "--weights=none", "--size=64",
    "--batch-size=2", "--device=cpu", "--iterations=8", "--set=model.aux_block=-2",
    "--set=model.scales=[1.0,0.5]", "--set=train.tensorboard=false", "--set=runtime.threads=1",
    "--set=train.eval_maps.kinds=[cam]", "--set=train.eval_every=4", "--set=train.save_every=2",
]  # fmt: skip
NOT_RESULTS = {"run.json", ".lock", ".checksums", ".unfinished", "taught"}
TIMES = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(\+00:00|Z)?|\b\d{19}\b|[\d.]+ (s|min|images/s)</dd>"
"""Moments, also in nanoseconds, and what steps took."""
CLOCKS = ("steps_per_second", "images_per_second", "seconds", "gpu_memory_gb")


@dataclass(frozen=True)
class Command:
    """Attributes: its name, its words (given the folder it works in), what it makes, its share of kills."""

    name: str
    words: Callable[[Path], list[str]]
    makes: str
    share: int
    exact: bool = True


COMMANDS = (
    Command(
        "train",
        lambda at: ["train", "--data", "data", "--out", str(at / "run"), *FLAGS, "--resume"],
        "run",
        9,
    ),
    Command("run", lambda at: ["run", str(at / "run"), "--out", str(at / "run")], "run", 9),
    Command("review", lambda at: ["review", str(at / "run")], "run", 4),
    Command(
        "verdict",
        lambda at: ["run", str(at / "run"), "--out", str(at / "run"), "--from", "verdict"],
        "run",
        2,
    ),
    Command(
        "predict", lambda at: ["predict", str(at / "run"), "data/images", "--out", str(at / "out")], "out", 5
    ),
    Command(
        "annotate export",
        lambda at: ["annotate", "export", str(at / "out"), "--format", "voc", "--out", str(at / "voc")],
        "voc",
        3,
    ),
    Command(
        "annotate import",
        lambda at: ["annotate", "import", str(at / "voc"), str(at / "out"), "--out", str(at / "back")],
        "back",
        2,
    ),
    Command(
        "animate",
        lambda at: ["animate", str(at / "run"), "data/images", str(at / "film"), "--limit", "6"],
        "film",
        2,
    ),
    Command(
        "export",
        lambda at: ["export", str(at / "run"), "--format", "torch", "--out", str(at / "model.pt2")],
        "model.pt2",
        2,
        exact=False,
    ),
    # What is learned in a given time differs; the run that it learns from must not.
    Command(
        "teach", lambda at: ["teach", str(at / "run"), "--corrections", "fixed", "--time", "4s"], "run", 2
    ),
)


@dataclass
class Life:
    """What became of the children of one command."""

    kills: list[float] = field(default_factory=list)
    early: int = 0


def start(words: list[str]) -> int:
    """A child that runs a command of tagmask; returns its process number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with Path("said.txt").open("w") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        from tagmask.cli.main import main as tagmask

        sys.argv = ["tagmask", *words]
        tagmask()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    finally:
        os._exit(code)


def _load() -> None:
    """Import once what every child needs: it takes longer than most commands, and kills should meet work."""
    libraries = ("timm", "torchvision.transforms.v2", "torch._dynamo", "matplotlib.backends.backend_svg")
    rooms = ("tagmask.cli.main", "tagmask.methods.more", "tagmask.pipeline.run", "tagmask.steps")
    for name in (*libraries, *rooms):
        importlib.import_module(name)
    for module in pkgutil.iter_modules(sys.modules["tagmask.steps"].__path__):
        importlib.import_module(f"tagmask.steps.{module.name}")


def finish(words: list[str]) -> float:
    """Run a command to its end; the seconds it took."""
    began = time.monotonic()
    status = os.waitpid(start(words), 0)[1]
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{' '.join(words)} failed ({status}):\n{Path('said.txt').read_text()}")
    return time.monotonic() - began


def killed(words: list[str], after: float) -> bool:
    """Whether a command was killed `after` seconds; else it had ended before, and well."""
    child, until = start(words), time.monotonic() + after
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            if os.waitstatus_to_exitcode(status) != 0:
                sys.exit(f"{' '.join(words)} failed:\n{Path('said.txt').read_text()}")
            return False
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def content(path: Path, at: Path) -> bytes:
    """Of a file, without clocks and without the folder it lies in."""
    raw = path.read_bytes()
    if path.suffix == ".csv":
        rows = csv.DictReader(io.StringIO(raw.decode()))
        return json.dumps([{k: v for k, v in row.items() if k not in CLOCKS} for row in rows]).encode()
    if path.suffix in (".html", ".json", ".jsonl", ".yaml", ".md", ".txt"):
        text = re.sub(
            r"data:image/svg\+xml;base64,([\w+/=]+)", _drawing, raw.decode().replace(at.name, "HERE")
        )
        return re.sub(TIMES, "THEN", text).encode()
    return raw


def _drawing(found: re.Match[str]) -> str:
    """A drawing without the marks by which its parts refer to each other, drawn anew every time."""
    return re.sub(r"\b[a-z]?[0-9a-f]{10}\b", "MARK", base64.b64decode(found[1]).decode())


def checksums(at: Path, command: Command) -> dict[str, str]:
    """Every file that a command makes."""
    root = at / command.makes
    paths = [root] if root.is_file() else sorted(root.rglob("*"))
    return {
        path.relative_to(at).as_posix(): hashlib.sha256(content(path, at)).hexdigest()
        for path in paths
        if path.is_file() and not NOT_RESULTS & {*path.parts}
    }


@contextmanager
def folder() -> Any:
    """An empty folder to work in, with data and corrected masks."""
    from tagmask.data.datasets.scenes import render, write_dataset

    before = Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        write_dataset(Path("data"), 12, 4, size=64)
        Path("fixed").mkdir()
        for index in range(6):
            Image.fromarray(render(index, 0, 64).mask).save(f"fixed/{index:05d}.png")
        try:
            yield
        finally:
            os.chdir(before)


def again(command: Command, at: Path, kills: int, seconds: float, rng: random.Random) -> Life:
    """Kill a command so many times, going on each time, then let it end."""
    life, made, kept = Life(), at / command.makes, at / "before"
    _copy(made, kept)
    while len(life.kills) < kills and life.early < 20 * kills:
        after = rng.uniform(0, seconds)
        if killed(command.words(at), after):
            life.kills.append(round(after, 3))
        else:
            life.early += 1
            _copy(kept, made)  # it ended before the kill: from the beginning
    _remove(kept)
    finish(command.words(at))
    return life


def _copy(source: Path, target: Path) -> None:
    _remove(target)
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.exists():
        shutil.copyfile(source, target)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def suite(kills: int, seed: int, only: list[str]) -> dict[str, Any]:
    """Do every command undisturbed, then in another folder with kills, and compare after each."""
    rng = random.Random(seed)
    chosen = [command for command in COMMANDS if not only or command.name in only]
    total = sum(command.share for command in chosen)
    whole, struck = Path("runs_1"), Path("runs_2")
    result: dict[str, Any] = {}
    for command in chosen:
        seconds = finish(command.words(whole))
        share = max(1, round(kills * command.share / total))
        life = again(command, struck, share, seconds, rng)
        first, second = checksums(whole, command), checksums(struck, command)
        differing = sorted(k for k in first.keys() | second.keys() if first.get(k) != second.get(k))
        result[command.name] = {
            "seconds_undisturbed": round(seconds, 2),
            "killed_after": life.kills,
            "ended_before_the_kill": life.early,
            "files": len(first),
            "differing": differing
            if command.exact
            else [k for k in differing if k not in first.keys() & second],
        }
        print(command.name, result[command.name], flush=True)
    finish(["check", str(struck / "run")])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[], choices=[command.name for command in COMMANDS])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    _load()
    out = args.out.absolute()
    with folder():
        commands = suite(args.kills, args.seed, args.only)
    result = {
        "about": {
            "command": f"python tools/kill_steps.py --kills {args.kills} --seed {args.seed} --out {args.out}",
            "machine": f"{os.cpu_count()}-core CPU, {platform.machine()}, one thread",
            "versions": {name: version(name) for name in ("torch", "safetensors", "tagmask")},
        },
        "kills": sum(len(one["killed_after"]) for one in commands.values()),
        "differing_files": sum(len(one["differing"]) for one in commands.values()),
        "commands": commands,
    }
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print({key: result[key] for key in ("kills", "differing_files")})


if __name__ == "__main__":
    main()

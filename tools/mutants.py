"""Change one thing in a copy of the code and see whether the fast tests notice.

    python tools/mutants.py --out benchmarks/results/mutants.json
    python tools/mutants.py --only ramp --only walk

The changes stand in ``tools/mutants.yaml``. Each one goes into a scratch copy of ``src``; the test files
that it names run on that copy, and, where they see nothing and ``--whole`` is given, the whole fast suite.
A change whose anchor is gone from the code is an error: it has to be written anew, not skipped.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

HOME = Path(__file__).resolve().parent.parent
LIST = Path(__file__).with_suffix(".yaml")
SEAMS = "tests/seams"
# Longer than any of these test files takes on a slow machine: a change that hangs is found, too.
LIMIT = 420


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        name: Short and unique.
        group: "seam" for what lies between two parts, else the room it is in.
        file: Below ``src/tagmask``.
        old: Regular expression that must match there exactly once.
        new: What takes its place, as `re.sub` writes it.
        why: What would go wrong.
        tests: Test files or folders that should notice.
    """

    name: str
    group: str
    file: str
    old: str
    new: str
    why: str
    tests: tuple[str, ...]

    def applied(self, text: str) -> str:
        """The changed file."""
        return re.sub(self.old, self.new, text)

    def problem(self) -> str | None:
        """Why it cannot be tried on this code, if so."""
        if missing := [test for test in self.tests if not (HOME / test).exists()]:
            return f"there is no {missing[0]}"
        path = HOME / "src" / "tagmask" / self.file
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        found = len(re.findall(self.old, text))
        if found != 1 or self.applied(text) == text:
            return f"its anchor matches {found} times in {self.file}; write it anew"
        return None


def read_list(only: list[str]) -> list[Mutant]:
    """The changes of the list, or those whose names hold one of some words."""
    rows = yaml.safe_load(LIST.read_text(encoding="utf-8"))
    mutants = [Mutant(**{**row, "tests": tuple(row["tests"])}) for row in rows]
    if len({mutant.name for mutant in mutants}) != len(mutants):
        sys.exit(f"{LIST} gives a name twice")
    if gone := [f"{mutant.name}: {problem}" for mutant in mutants if (problem := mutant.problem())]:
        sys.exit("\n".join(gone))
    return [m for m in mutants if not only or any(word in m.name for word in only)]


def child(source: Path, tests: tuple[str, ...], first: bool, log: Path) -> None:
    """Run tests on a copy of the code, in a process of its own that this one was split into."""
    os.chdir(HOME)
    # For tests that start processes themselves.
    os.environ |= {"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.path[:0] = [str(source), str(HOME)]
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        import tagmask

        if not str(tagmask.__file__).startswith(str(source)):
            os._exit(99)
        options = ["-q", "-m", "not slow", "-rfE", "--tb=no", *(["-x"] if first else [])]
        code = pytest.main([*options, *tests])
        sys.stdout.flush()
        os._exit(int(code))


class Trial:
    """Tests running on a copy of the code.

    Args:
        source: The copy.
        tests: Test files or folders.
        first: Stop at the first failure, and after `LIMIT` seconds.
    """

    def __init__(self, source: Path, tests: tuple[str, ...], first: bool = True) -> None:
        self.log = source.with_suffix(".log")
        self.limit = LIMIT if first else 20 * LIMIT
        self.start = time.perf_counter()
        self.process = multiprocessing.get_context("fork").Process(
            target=child, args=(source, tests, first, self.log)
        )
        self.process.start()

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.perf_counter() - self.start

    def verdict(self) -> tuple[str, str] | None:
        """("killed", the test) or ("survived", ""); None while it runs.

        Raises:
            SystemExit: The tests ended without a verdict.
        """
        if self.process.is_alive():
            if self.seconds < self.limit:
                return None
            self.process.kill()
            self.process.join()
            return "killed", f"still running after {self.limit} s"
        self.process.join()
        if self.process.exitcode == 0:
            return "survived", ""
        text = self.log.read_text(encoding="utf-8")
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", text, re.MULTILINE)
        if not failed:
            sys.exit(f"pytest ended with {self.process.exitcode} and named no test:\n{text[-3000:]}")
        return "killed", failed[0]


def finished(trial: Trial) -> tuple[str, str]:
    """The verdict, when there is one."""
    while (verdict := trial.verdict()) is None:
        time.sleep(0.2)
    return verdict


def try_all(mutants: list[Mutant], copies: list[Path], whole: bool) -> list[dict[str, Any]]:
    """Apply each change to a free copy, run its tests, and undo it."""
    waiting, running, rows = list(mutants), {}, []
    while waiting or running:
        while waiting and len(running) < len(copies):
            mutant = waiting.pop(0)
            copy = next(copy for copy in copies if copy not in running)
            path = copy / "tagmask" / mutant.file
            before = path.read_text(encoding="utf-8")
            path.write_text(mutant.applied(before), encoding="utf-8")
            running[copy] = (mutant, path, before, Trial(copy, mutant.tests))
        time.sleep(0.2)
        for copy, (mutant, path, before, trial) in list(running.items()):
            if (verdict := trial.verdict()) is None:
                continue
            if verdict[0] == "survived" and whole:
                verdict = finished(Trial(copy, ("tests",)))
            path.write_text(before, encoding="utf-8")
            del running[copy]
            status, test = verdict
            print(f"{status:9}{mutant.name:44}{test}", flush=True)
            about = {key: getattr(mutant, key) for key in ("name", "group", "file", "why")}
            verdict_of = {"status": status, "killed_by": test or None, "seconds": round(trial.seconds, 1)}
            rows.append({**about, **verdict_of})
    order = {mutant.name: place for place, mutant in enumerate(mutants)}
    return sorted(rows, key=lambda row: order[row["name"]])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    parser.add_argument(
        "--only", action="append", default=[], help="only changes with this word in their name"
    )
    parser.add_argument("--jobs", type=int, default=2, help="changes tried at the same time")
    parser.add_argument("--whole", action="store_true", help="let survivors meet the whole fast suite")
    parser.add_argument(
        "--seams", action="store_true", help="only the seam changes, against the seam tests alone"
    )
    given = parser.parse_args()
    mutants = read_list(given.only)
    if given.seams:
        mutants = [Mutant(**{**asdict(m), "tests": (SEAMS,)}) for m in mutants if m.group == "seam"]
    os.environ["OMP_NUM_THREADS"] = "1"
    # Loaded once, here: every test process begins as a copy of this one.
    for heavy in ("torch", "torchvision.transforms.v2", "timm", "accelerate", "scipy.ndimage", "pydantic"):
        importlib.import_module(heavy)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies = [Path(shutil.copytree(HOME / "src", Path(folder) / str(i))) for i in range(given.jobs)]
        every = tuple(sorted({test for mutant in mutants for test in mutant.tests}))
        status, test = finished(Trial(copies[0], every, first=False))
        if status != "survived":
            sys.exit(f"the unchanged code already fails {test}")
        rows = try_all(mutants, copies, given.whole)
    killed = [row for row in rows if row["status"] == "killed"]
    print(f"{len(killed)} of {len(rows)} killed")
    if given.out is not None:
        record = {
            "tried": len(rows),
            "killed": len(killed),
            "survivors": [row["name"] for row in rows if row["status"] != "killed"],
            "command": f"python tools/mutants.py --jobs {given.jobs}{' --whole' * given.whole}",
            "machine": f"CPU, {os.cpu_count()} cores, {platform.machine()}",
            "python": platform.python_version(),
            "mutants": rows,
        }
        given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Compare tagmask with stored outputs of the originals: ``python tests/parity/check.py FILE.npz ...``.

Prints the largest difference per output, and a table at the end. Exit status: 0 all within tolerance, 1
something beyond it, 2 a file that cannot be read or whose case is not known (nothing else is said about it).
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import sys
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a script: the tests folder's parent is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from tests.parity.golden import Check, Golden, load_golden

Case = Callable[[Golden], Iterable[Check]]
METHODS = {
    "afa": "AFA",
    "aream": "AReAM",
    "crf": "Dense CRF",
    "energy": "Dense energy loss",
    "mctformer": "MCTformer",
    "metrics": "Metrics",
    "more": "MoRe",
    "psa": "PSA",
    "seg": "Segmentation stage",
    "transcam": "TransCAM",
    "weaktr": "WeakTr",
}


def known_cases() -> dict[str, Case]:
    """Every case some module of tests/parity/cases knows, by file stem."""
    from tests.parity import cases

    found: dict[str, Case] = {}
    for info in pkgutil.iter_modules(cases.__path__):
        module = importlib.import_module(f"{cases.__name__}.{info.name}")
        found |= module.CASES
    return found


def case_of(stem: str, cases: dict[str, Case]) -> str | None:
    """The case that a file belongs to: that of its name, or the longest one that its name begins with."""
    fitting = [name for name in cases if stem == name or stem.startswith(f"{name}_")]
    return max(fitting, key=len, default=None)


def run_case(path: Path, cases: dict[str, Case]) -> list[Check]:
    """All comparisons for one file."""
    golden = load_golden(path)
    torch.manual_seed(0)
    name = case_of(golden.name, cases)
    if name is None:
        raise KeyError(golden.name)
    return list(cases[name](golden))


def closest(checks: Sequence[Check]) -> Check:
    """The comparison that came closest to its tolerance, or went furthest beyond it."""

    def share(check: Check) -> float:
        difference = check.difference()
        return difference / check.tolerance if check.tolerance else float("inf") * bool(difference)

    return max(checks, key=lambda check: -1.0 if share(check) != share(check) else share(check))


def judge(path: Path, cases: dict[str, Case], verbose: bool) -> tuple[int, dict[str, Any] | None]:
    """Compare one file and print what came of it; its exit status and its row of the table."""
    if case_of(path.stem, cases) is None:
        print(f"{path.name}: REFUSED, no case of that name (known: {len(cases)})", flush=True)
        return 2, None
    try:
        checks = run_case(path, cases)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        print(f"{path.name}: REFUSED, {type(error).__name__}: {error}", flush=True)
        return 2, None
    except Exception as error:  # whatever one case runs into, the others are still judged
        print(f"{path.name}: FAILED, {type(error).__name__}: {error}", flush=True)
        return 1, None
    failed = [check for check in checks if not check.passes()]
    print(f"{path.name}: {'FAILED' if failed or not checks else 'ok'} ({len(checks)} outputs)", flush=True)
    for check in checks if verbose else failed:
        mark = "ok " if check.passes() else "BAD"
        print(f"  {mark} {check.name}: {check.kind} {check.difference():.3g} (allowed {check.tolerance:g})")
    if not checks:
        return 1, None
    worst = closest(checks)
    row = {
        "method": METHODS.get(path.stem.partition("_")[0], "Other"),
        "file": path.stem,
        **source(load_golden(path)),
        "checks": len(checks),
        "worst": f"{worst.name} ({worst.kind})",
        "difference": worst.difference(),
        "tolerance": worst.tolerance,
    }
    return int(bool(failed)), row


def source(golden: Golden) -> dict[str, Any]:
    """Which code gave a stored file, "owner/name@commit", and its largest input with its shape."""
    named = golden.meta.get("repository") or []
    commit = golden.meta.get("commit", "")
    originals = []
    for name in [named] if isinstance(named, str) else named:
        project, _, at = name.removeprefix("https://github.com/").partition("@")
        originals.append(f"{project}@{(at or commit)[:7]}")
    arrays = {key: array for key, array in golden.inputs.items() if array.size > 1}
    if not arrays:
        return {"originals": originals, "input": "none"}
    largest = max(arrays, key=lambda key: arrays[key].size)
    return {"originals": originals, "input": f"{largest}, {' x '.join(map(str, arrays[largest].shape))}"}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows for people."""
    lines = [f"{'file':<32} {'outputs':>7}  {'difference':>10} of {'allowed':>8}  closest to its limit"]
    lines += [
        "{file:<32} {checks:>7}  {difference:>10.2g} of {tolerance:>8.2g}  {worst}".format(**row)
        for row in rows
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("-v", "--verbose", action="store_true", help="print passing outputs too")
    parser.add_argument("--record", type=Path, help="write the table as JSON, for the documentation")
    args = parser.parse_args(argv)
    cases = known_cases()
    states, rows = [], []
    for path in args.files:
        state, row = judge(path, cases, args.verbose)
        states.append(state)
        rows += [] if row is None else [row]
        if args.record is not None:  # after every file: all of them take a quarter of an hour
            keep(args.record, rows)
    print(f"\n{table(rows)}\n")
    print(f"{len(states)} files: {states.count(0)} ok, {states.count(1)} failed, {states.count(2)} refused")
    return max(states)


def keep(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the table as the documentation reads it."""
    record = {
        "command": "python tests/parity/check.py FILE.npz ...",
        "machine": f"{os.cpu_count()}-core CPU, PyTorch {torch.__version__.partition('+')[0]}",
        "files": list(rows),
    }
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())

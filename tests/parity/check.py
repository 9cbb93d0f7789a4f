"""Compare tagmask with stored outputs of the originals: ``python tests/parity/check.py FILE.npz ...``.

Prints the largest difference per output. Exit status: 0 all within tolerance, 1 something beyond it,
2 a file that cannot be read or whose case is not known (nothing else is said about such a file).
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

if __name__ == "__main__":  # run as a script: the tests folder's parent is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from tests.parity.golden import Check, Golden, load_golden

Case = Callable[[Golden], Iterable[Check]]


def known_cases() -> dict[str, Case]:
    """Every case some module of tests/parity/cases knows, by file stem."""
    from tests.parity import cases

    found: dict[str, Case] = {}
    for info in pkgutil.iter_modules(cases.__path__):
        module = importlib.import_module(f"{cases.__name__}.{info.name}")
        found |= module.CASES
    return found


def run_case(path: Path, cases: dict[str, Case]) -> list[Check]:
    """All comparisons for one file."""
    golden = load_golden(path)
    torch.manual_seed(0)
    return list(cases[golden.name](golden))


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("-v", "--verbose", action="store_true", help="print passing outputs too")
    args = parser.parse_args(argv)
    cases = known_cases()
    worst = 0
    for path in args.files:
        if path.stem not in cases:
            print(f"{path.name}: REFUSED, no case of that name (known: {len(cases)})")
            worst = 2
            continue
        try:
            checks = run_case(path, cases)
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            print(f"{path.name}: REFUSED, {type(error).__name__}: {error}")
            worst = 2
            continue
        except Exception as error:  # whatever one case runs into, the others are still judged
            print(f"{path.name}: FAILED, {type(error).__name__}: {error}")
            worst = max(worst, 1)
            continue
        failed = [check for check in checks if not check.passes()]
        print(f"{path.name}: {'FAILED' if failed or not checks else 'ok'} ({len(checks)} outputs)")
        for check in checks if args.verbose else failed:
            mark = "ok " if check.passes() else "BAD"
            print(
                f"  {mark} {check.name}: {check.kind} {check.difference():.3g} (allowed {check.tolerance:g})"
            )
        if failed or not checks:
            worst = max(worst, 1)
    return worst


if __name__ == "__main__":
    raise SystemExit(main())

"""Give every command its bad inputs and write what it answers as `docs/reference/errors.md`.

python tools/bad_inputs_table.py --out docs/reference/errors.md
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

from tests.cli import tagmask, train_args
from tests.cli.bad_inputs import CASES, Case, Place
from tests.toy import toy_root

HEAD = """# Error messages

Every command answers bad input with one line and an exit code. `TAGMASK_DEBUG=1`, or `-v`, adds the
traceback; `--json` gives the code and the line as one JSON object on standard output.

| exit code | means |
|---|---|
| 0 | done |
| 1 | a fault of tagmask's own; please report it |
| 2 | something that was given cannot be used: a flag, a setting, a file, a folder, a model |
| 3 | done, but some inputs failed; each is named (`failed.csv`) |
| 130 | stopped by Ctrl-C; repeat the command to continue. Others: 128 plus the signal (SIGTERM: 143) |

Python raises `tagmask.UserError` (`ConfigError`, `DataError`, `CheckpointError`) with the same sentence, in
the words of Python: `out=DIR` where the command line says `--out DIR`. The table is made by
`tools/bad_inputs_table.py` from the cases that the tests run.

"""


def answer(case: Case, place: Place) -> tuple[int, str]:
    """Exit code and message, without names of this machine."""
    result = tagmask(*case.command.split(), *case.arguments(place))
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    text = lines[-1] if lines else ""
    if "Usage:" in result.stderr:
        # The argument parser draws a box.
        text = " ".join(line.strip("│ ") for line in lines[2:] if line.startswith("│")) or text
    for path, name in ((place.tmp, "."), (place.toy, "toy"), (place.finished, "run")):
        text = text.replace(str(path), name)
    text = text.replace(f"{Path.cwd()}/", "")
    text = re.sub(r" at 0x[0-9a-f]+", "", text)
    return result.exit_code, re.sub(r"\d+ MiB free there", "N MiB free there", text)


def cell(text: str, most: int = 420) -> str:
    text = text if len(text) <= most else text[:most].rstrip() + " ..."
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\0", "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        toy, finished = toy_root(Path(folder)), Path(folder) / "run"
        done = tagmask(*train_args(toy, finished, 3, "--set=train.eval_every=2"))
        assert done.exit_code == 0, done.stderr
        done = tagmask("run", finished, "--out", finished)
        assert done.exit_code == 0, done.stderr
        for number, case in enumerate(CASES):
            tmp = Path(folder) / f"case{number}"
            tmp.mkdir()
            code, text = answer(case, Place(tmp, toy, finished))
            rows.append(f"| `{case.command}` | {case.came} | {code} | {cell(text)} |")
    head = ["| command | what came | exit code | answer |", "|---|---|---|---|"]
    args.out.write_text(HEAD + "\n".join([*head, *rows]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

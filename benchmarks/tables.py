"""The page of results, made from the files in benchmarks/results: nobody copies a figure by hand.

    python benchmarks/tables.py > results.md

The documentation calls `page` whenever it is built, so that its tables cannot be older than the files.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
ABOUT = (
    *("task", "recipe", "includes", "data", "model", "backbone", "method", "command"),
    *("machine", "device", "precision", "seed", "versions", "note"),
)
NAMES = {"Afa": "AFA", "Aream": "AReAM", "Psa": "PSA", "Weaktr": "WeakTr", "More": "MoRe"}
METHOD_FILES = re.compile(r"(afa|aream|psa|weaktr|more)_")
LONG = 40  # rows of a CSV file; of more, every n-th is shown
LETTERS = 300  # of a text in a row; longer ones, such as lists of all names, end in dots
WIDE = 12  # columns; a table of more is turned over, or becomes a list if most of its cells are empty
MANY = 25  # rows; a table of more is folded
INTRO = """# Results

Measured with tagmask; every section is one file of `benchmarks/results`, as its command wrote it. The
authors' own figures are on the method pages, with their source. One seed and one machine, unless a section
says otherwise: differences of a few points mean nothing.
"""


def page(folder: Path = RESULTS) -> str:
    """The whole page as Markdown."""
    lacking = [f"`{name}` ({', '.join(keys)})" for name, keys in gaps(folder).items()]
    parts = [INTRO, f"Not recorded in the files themselves: {'; '.join(lacking)}.\n" if lacking else ""]
    for path in files(folder):
        parts += [f"## {title(path)}\n", body(path)]
    return "\n".join(parts)


def files(folder: Path = RESULTS) -> list[Path]:
    """All result files, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix in (".json", ".csv"))


def gaps(folder: Path = RESULTS) -> dict[str, list[str]]:
    """What a file of results does not say of how it was made: its command, its machine."""
    found = {}
    for path in files(folder):
        text = path.read_text(encoding="utf-8")
        keys = ("command", "machine|device|cpu") if path.suffix == ".json" else ("machine|device",)
        lacking = [key.partition("|")[0] for key in keys if not re.search(rf"\b({key})s?\b", text)]
        if path.suffix == ".json" and not re.search(r'seeds?"?:? ?\[?\s*\d', text):
            lacking.append("seed")
        if lacking:
            found[path.name] = lacking
    return found


def body(path: Path) -> str:
    """What one file holds."""
    if path.suffix == ".json":
        return section(json.loads(path.read_text(encoding="utf-8")))
    with path.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    step = -(-len(rows) // LONG)
    told = f"{len(rows)} rows; one of every {step} is shown.\n\n" if step > 1 else ""
    cells = [[_text(cell) for cell in row] for row in rows[::step]]
    return told + _grid([[_words(name) for name in head], *cells])


def title(path: Path) -> str:
    """The name of a file as a heading."""
    words = re.sub("[-_]", " ", path.stem)
    words = words[:1].upper() + words[1:]
    first = words.partition(" ")[0]
    return words.replace(first, NAMES.get(first, first), 1) if METHOD_FILES.match(path.stem) else words


def section(record: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> str:
    """What a file says about itself, then its figures; a list of rows says it in every row."""
    if not isinstance(record, Mapping):
        same = {k: v for k, v in record[0].items() if k in ABOUT and all(row.get(k) == v for row in record)}
        record = {**same, "rows": [{k: v for k, v in row.items() if k not in same} for row in record]}
    record = {**record.get("about", {}), **{k: v for k, v in record.items() if k != "about"}}
    about = [(key, _text(record[key])) for key in ABOUT if key in record]
    rest = {key: value for key, value in record.items() if key not in ABOUT}
    plain = [(_words(key), _text(value)) for key, value in rest.items() if not _deep(value)]
    parts = [_table(("about", ""), about), _table(("figure", ""), plain)]
    for key, value in rest.items():
        if _deep(value):
            parts.append(_titled(_words(key), figures(_opened(value))))
    return "\n".join(part for part in parts if part)


def figures(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """One table: rows of a list, or of a mapping; what lies deeper becomes columns.

    Nobody can read a table of fifty columns: with few rows it is turned over, and settings of steps that have
    hardly a key in common become a list.
    """
    if isinstance(value, Mapping) and not all(isinstance(row, Mapping) for row in value.values()):
        return _list(value)
    rows = value.items() if isinstance(value, Mapping) else enumerate(value, 1)
    flat = [(str(name), _flat(row)) for name, row in rows]
    columns = list(dict.fromkeys(column for _, row in flat for column in row))
    empty = sum(len(columns) - len(row) for _, row in flat)
    if isinstance(value, Mapping) and len(columns) > WIDE and 2 * empty > len(flat) * len(columns):
        return _list(value)
    body = [(_words(name), *(_cut(_text(row.get(column, ""))) for column in columns)) for name, row in flat]
    return _grid([("", *(_words(column) for column in columns)), *body])


def _grid(rows: Sequence[Sequence[str]]) -> str:
    """A table; one with many columns and fewer rows is turned over."""
    head, *body = zip(*rows, strict=True) if len(rows) <= len(rows[0]) > WIDE else rows
    return _table(head, body)


def _list(value: Mapping[str, Any]) -> str:
    return _table(("", ""), [(_words(name), _text(cell)) for name, cell in _flat(value).items()])


def _titled(words: str, table: str) -> str:
    """A table below its title; a long one opens when its title is clicked."""
    rows = table.count("\n") - 2
    if rows <= MANY:
        return f"**{words}**\n\n{table}"
    return f"<details markdown>\n<summary>{words}: {rows} rows</summary>\n\n{table}\n</details>\n"


def _opened(value: Any) -> Any:
    """Settings that a file holds as JSON in a text, like all others."""
    if isinstance(value, Mapping):
        return {key: _opened(inner) for key, inner in value.items()}
    return json.loads(value) if isinstance(value, str) and value.startswith("{") else value


def _deep(value: Any) -> bool:
    """Whether a value needs a table of its own; a list of numbers fits a line."""
    return isinstance(value, Mapping) or (
        isinstance(value, list) and any(isinstance(v, Mapping) for v in value)
    )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        found: dict[str, Any] = {}
        for key, inner in value.items():
            found |= _flat(inner, f"{prefix} {key}".strip())
        return found
    return {prefix: value}


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(_text(inner) for inner in value)
    return str(value).replace("|", "\\|").replace("\n", " ")


def _cut(text: str) -> str:
    return text if len(text) <= LETTERS else f"{text[:LETTERS].rstrip()} ..."


def _words(name: str) -> str:
    return _text(name.replace("_", " "))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


if __name__ == "__main__":
    print(page())

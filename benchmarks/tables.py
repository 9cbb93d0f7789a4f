"""The page of results, made from the files in benchmarks/results: nobody copies a figure by hand.

    python benchmarks/tables.py > results.md

The documentation calls `page` whenever it is built, so that its tables cannot be older than the files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
ABOUT = (
    *("task", "recipe", "includes", "data", "model", "backbone", "method", "command"),
    *("machine", "device", "precision", "seed", "versions", "note"),
)
INTRO = """# Results

Measured with tagmask; every section is one file of `benchmarks/results`, as its command wrote it.
Figures of the authors stand on the methods' pages, with their source. One seed and one machine, unless
a section says more: differences of a few points mean nothing.
"""


def page(folder: Path = RESULTS) -> str:
    """The whole page as Markdown."""
    parts = [INTRO]
    for path in sorted(folder.glob("*.json")):
        parts += [
            f"## {_title(path)}\n",
            section(json.loads(path.read_text(encoding="utf-8"))),
        ]
    return "\n".join(parts)


def _title(path: Path) -> str:
    words = path.stem.replace("_", " ")
    return words[:1].upper() + words[1:]


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
            parts += [f"**{_words(key)}**\n", figures(value)]
    return "\n".join(part for part in parts if part)


def figures(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """One table: rows of a list, or of a mapping; what lies deeper becomes columns."""
    if isinstance(value, Mapping) and not all(isinstance(row, Mapping) for row in value.values()):
        return _table(("", ""), [(_words(name), _text(cell)) for name, cell in _flat(value).items()])
    rows = value.items() if isinstance(value, Mapping) else enumerate(value, 1)
    flat = [(str(name), _flat(row)) for name, row in rows]
    columns = list(dict.fromkeys(column for _, row in flat for column in row))
    body = [(_words(name), *(_text(row.get(column, "")) for column in columns)) for name, row in flat]
    return _table(("", *(_words(column) for column in columns)), body)


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


def _words(name: str) -> str:
    return _text(name.replace("_", " "))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


if __name__ == "__main__":
    print(page())

"""Tables as CSV: written so that no spreadsheet runs a cell, and read back as they were."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["cell", "csv_text", "plain_cell"]

_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV; texts that a spreadsheet would run get an apostrophe in front, see `cell`.

    Args:
        rows: Cells; numbers are written as they are.
    """
    text = io.StringIO(newline="")
    csv.writer(text).writerows([cell(value) for value in row] for row in rows)
    return text.getvalue()


def cell(value: Any) -> Any:
    """A value as a cell holds it. `plain_cell` gives a text back."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def plain_cell(text: str) -> str:
    """A text as it was before `cell`."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text

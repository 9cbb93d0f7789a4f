"""A predicted IoU beside every line of a prediction's summary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tagmask.data import ClassTable
from tagmask.data.tables import csv_text
from tagmask.inference.place import Place
from tagmask.inference.summary import each_row, table_head, table_row
from tagmask.store.files import atomic_write

__all__ = ["EXPECTED", "add_expected"]

EXPECTED = ("iou", "iou low", "iou high")
"""The columns."""


def add_expected(folder: Path, classes: ClassTable, found: Mapping[str, tuple[float, float, float]]) -> None:
    """Write ``summary.jsonl`` and ``summary.csv`` again, with what is expected of every mask.

    Args:
        folder: Of the prediction, complete.
        classes: Those of the model.
        found: Name of a picture to its predicted IoU and the ends of its interval, 0 to 1.

    Raises:
        DataError: The summary cannot be read.
        KeyError: A picture is missing.
    """
    rows = [
        {**row, "expected": [round(value, 4) for value in found[row["name"]]]}
        for row in each_row(Place(folder))
    ]
    table = [[*table_head(classes), *EXPECTED]]
    table += [[*table_row(row, classes), *row["expected"]] for row in rows]
    with atomic_write(folder / "summary.jsonl") as target:
        target.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    with atomic_write(folder / "summary.csv") as target:
        target.write_text(csv_text(table), encoding="utf-8", newline="")

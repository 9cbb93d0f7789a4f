"""Tables that spreadsheets open: no cell is run, and class names come back."""

from __future__ import annotations

import csv
import io
from functools import partial

import pytest

from tagmask.app.decisions import Decision, Decisions
from tagmask.app.library import read_queue
from tagmask.data import ClassTable
from tagmask.data.classes import voc_palette
from tagmask.data.datasets.tagcells import split_cells
from tagmask.inference.summary import Summary
from tagmask.review.queue import Row
from tagmask.review.tables import queue_table
from tagmask.steps.review import listed, write_csv

NAMES = ("=cmd|' -C calc'!A0", "+traffic light", "a, b", "dog")


def cells(path):
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    for row in rows:
        for text in row.values():
            assert not text.startswith(("=", "+", "-", "@"))
    return rows


@pytest.mark.parametrize("name", ["=1+1", "@x", "-y", "+z"])
def test_no_table_holds_a_formula(tmp_path, name):
    classes = ClassTable(NAMES)
    with Summary(tmp_path, "key", overwrite=False) as summary:
        figures = {"source": name, "stamp": "", "height": 1, "width": 1, "confidence": 0.5, "unsure": 0.0}
        summary.add({"name": name, "file": name, **figures, "classes": {NAMES[0]: 0.5}, "warnings": [name]})
        summary.fail(name, name)
    summary.finish(classes)
    assert cells(tmp_path / "summary.csv")[0]["name"] == f"'{name}"
    assert cells(tmp_path / "failed.csv") == [{"source": f"'{name}", "reason": f"'{name}"}]
    decisions = Decisions(tmp_path / "review")
    decisions.put(Decision(name, "rejected", name, tags=NAMES[:2]), None, voc_palette())
    assert cells(tmp_path / "review" / "decisions.csv")[0]["note"] == f"'{name}"
    row = Row(name, {"overlap": 0.5}, {0: 0.5, 2: 0.1}, (0, 1), score=0.5, words=(name,))
    write_csv(tmp_path / "queue.csv", queue_table([row], NAMES, partial(listed, names=NAMES)))
    cells(tmp_path / "queue.csv")
    (entry,) = read_queue(tmp_path / "queue.csv")
    assert entry.name == name


def test_tags_in_the_queue_are_read_back_by_the_tag_reader(tmp_path):
    rows = [Row(str(k), {}, {}, tags, score=0.0) for k, tags in enumerate([(1,), (2, 3), (), (3,)])]
    names = ("fire hydrant", "traffic light", "a, b", "dog")
    write_csv(tmp_path / "queue.csv", queue_table(rows, names, partial(listed, names=names)))
    found = split_cells([(k, row["tags"]) for k, row in enumerate(cells(tmp_path / "queue.csv"))])
    assert found == [("traffic light",), ("a, b", "dog"), (), ("dog",)]

"""The parity page says of every stored file what it holds, its input, and which commit it came from."""

from __future__ import annotations

import json

import pytest

from tagmask.pipeline.config import read_config
from tests.docs.blocks import ROOT, site_pages
from tests.parity.check import source
from tests.parity.golden import load_golden

ROWS = json.loads((ROOT / "benchmarks/results/parity.json").read_text(encoding="utf-8"))["files"]
STORED = {path.stem: path for path in (ROOT / "tests" / "parity" / "data").glob("*.npz")}


@pytest.fixture(scope="module")
def page() -> str:
    return site_pages().generated()["evidence/parity.md"]


def test_every_row_says_what_it_is_and_where_it_came_from(page):
    for row in ROWS:
        line = next(line for line in page.splitlines() if line.endswith(f"| `{row['file']}` |"))
        assert row["input"] in line
        assert all(f"`{original}`" in page for original in row["originals"])
        assert all(len(original.partition("@")[2]) == 7 for original in row["originals"])


def test_the_record_speaks_of_the_files_as_they_are():
    known = {row["file"]: row for row in ROWS}
    assert STORED.keys() <= known.keys()
    for name in sorted(STORED)[::5]:  # a fifth of them: all would take half a minute
        told = {key: known[name][key] for key in ("originals", "input")}
        assert told == source(load_golden(STORED[name])), name


def test_how_much_smaller_a_stored_step_is_than_the_published_one(page):
    stored = load_golden(STORED["afa_train_step_voc"])
    published = read_config("voc/afa")
    size, radius = stored.config["crop_size"], stored.config["radius"]
    words = f"sees {size} x {size} pixels and pairs up to {radius} cells apart, the paper"
    plain = " ".join(page.split())
    assert f"{words} {published.train.size} and {published.model.get('radius', 8)}" in plain

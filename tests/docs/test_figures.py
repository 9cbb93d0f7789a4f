"""Scores that pages about methods tell are those of the committed result files."""

from __future__ import annotations

import json
import re

import pytest

from tests.docs.blocks import ROOT

RESULTS = ROOT / "benchmarks" / "results"
TOLD = {
    ("weaktr.md", "## A small run of our own"): ("weaktr_small_animals",),
    ("psa.md", "## A small run on PSA's view"): ("psa_view_small_animals", "psa_small_animals"),
    ("aream.md", "## Few images, small backbone"): ("aream_small_animals", "aream_small_animals_tagged"),
}


@pytest.mark.parametrize("place", TOLD, ids=lambda place: place[0])
def test_scores_of_a_page_come_from_its_result_file(place):
    page, title = place
    text = (ROOT / "docs" / "methods" / page).read_text(encoding="utf-8")
    part = text[text.index(title) :].split("\n## ")[0]
    told = re.findall(r"^\|.*\| ([\d.]+)(?: / ([\d.]+))? \|$", part, re.MULTILINE)
    measured = []
    for name in TOLD[place]:
        assert f"{name}.json" in part
        scores = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["scores"]
        measured += [100 * score["miou"] for score in scores.values()]
    figures = [float(figure) for row in told for figure in row if figure]
    assert figures
    half = 0.05 + 1e-6  # they are told to one decimal
    assert [f for f in figures if all(abs(f - value) > half for value in measured)] == []

"""The page of file formats says what a finished run and its predictions hold, and nothing else."""

from __future__ import annotations

import fnmatch
import json
import re
from pathlib import Path

import numpy as np
import pytest

from tagmask.annotations import formats
from tests.cli import tagmask

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "reference" / "file-formats.md").read_text(encoding="utf-8")
SOMETIMES = ("review/", "reviewed/", "changed/", ".unfinished/", "verdict.json", ".lock")


def listed(section: str) -> list[str]:
    """What the first column of a section's table names."""
    part = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    table = re.search(r"^\| .+ \| holds \|\n\|---\|---\|\n((?:\|.*\n)+)", part, re.MULTILINE)
    assert table is not None, section
    return [name for row in table[1].splitlines() for name in re.findall("`([^`]+)`", row.split(" | ")[0])]


def pattern(name: str) -> str:
    return re.sub(r"<\w+>", "*", name) + ("*" if name.endswith("/") else "")


@pytest.fixture(scope="module")
def predicted(finished, toy, tmp_path_factory):
    out = tmp_path_factory.mktemp("predicted")
    done = tagmask("predict", finished, next((toy / "images").rglob("*.png")), "--out", out, "--device=cpu")
    assert done.exit_code == 0, done.stderr
    return out


def test_every_file_of_a_run_is_on_the_page_and_the_other_way_round(finished):
    files = [path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()]
    patterns = {name: pattern(name) for name in listed("A run folder")}
    assert [f for f in files if not any(fnmatch.fnmatch(f, p) for p in patterns.values())] == []
    never = [name for name, p in patterns.items() if not fnmatch.filter(files, p)]
    assert set(never) <= set(SOMETIMES)


def test_scores_have_the_keys_of_the_page(finished):
    found = {key for path in (finished / "scores").glob("*.json") for key in json.loads(path.read_text())}
    assert found == set(listed("Scores"))


def test_header_and_record_have_the_keys_of_the_page(finished):
    assert set(json.loads((finished / "model" / "meta.json").read_text())) == set(
        listed("The model's header")
    )
    run = json.loads((finished / "run.json").read_text())
    assert set(run) == {"format", "tagmask", "steps"}
    for name, step in run["steps"].items():
        assert set(step) == set(listed("The record of a run")), name


def test_maps_have_the_arrays_of_the_page(finished):
    with np.load(next((finished / "maps" / "cam").glob("*.npz"))) as file:
        assert set(file.files) == set(listed("Maps"))
        assert (file["maps"].dtype, file["maps"].ndim, file["size"].shape) == (np.float16, 3, (2,))


def test_predictions_have_the_keys_of_the_page(predicted):
    row = json.loads((predicted / "summary.jsonl").read_text().splitlines()[0])
    assert set(row) == set(listed("Predictions"))
    assert (predicted / "failed.csv").read_text().split() == ["source,reason"]
    assert set(json.loads((predicted / "predict.json").read_text())) == {"key"}
    made = {path.relative_to(predicted).parts[0] for path in predicted.rglob("*") if path.is_file()}
    told = PAGE + (DOCS / "guide" / "predict.md").read_text(encoding="utf-8")
    assert [name for name in made if f"`{name}" not in told] == []


def test_every_annotation_format_is_in_the_table():
    page = (DOCS / "guide" / "review-and-correct.md").read_text(encoding="utf-8")
    assert [name for name in formats.names() if f"\n| `{name}` |" not in page] == []

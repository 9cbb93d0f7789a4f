"""The examples run: a method and a data set from another package, the tour and its notebook."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import sys
import tomllib

import pytest
from typer.testing import CliRunner

from tagmask import data, methods
from tagmask.cli.main import app
from tagmask.data import open_dataset
from tagmask.errors import DataError
from tests.docs.blocks import ROOT

OUTSIDE = ROOT / "examples" / "outside"


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """The example package as an installer leaves it: importable, with its entry points announced."""
    site = tmp_path / "site"
    shutil.copytree(OUTSIDE / "tagmask_outside", site / "tagmask_outside")
    project = tomllib.loads((OUTSIDE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = site / "tagmask_outside-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0.1.0\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(site))
    for name in [own for own in sys.modules if own.partition(".")[0] == "tagmask_outside"]:
        monkeypatch.delitem(sys.modules, name)  # of another test, from a folder that is gone
    return site


@pytest.fixture
def lines_data(workplace):
    """The reader's images with one text file of tags."""
    root = workplace / "lines"
    shutil.copytree(workplace / "mydata" / "images", root)
    (root / "tagged.txt").write_text("cat_001.jpg: cat sofa\ndog_007.jpg: dog\nempty.jpg:\n")
    return root


def test_the_outside_names_are_listed_and_explained(outside):
    assert "gap" in methods.names()
    assert "lines" in data.names()
    found = CliRunner().invoke(app, ["show", "gap"])
    assert found.exit_code == 0
    assert "AdamW's rate; the classifier learns ten times as fast." in found.output


def test_the_outside_data_set_opens_and_is_found_by_its_look(outside, lines_data):
    opened = open_dataset(lines_data, "auto")
    assert opened.about["kind"] == "lines"
    assert opened.classes.names == ("cat", "dog", "sofa")
    assert opened.tags(opened.position("cat_001")).tolist() == [1, 0, 1]
    assert opened.tags(opened.position("empty")).tolist() == [0, 0, 0]
    with (lines_data / "tagged.txt").open("a") as file:
        file.write("gone.jpg: cat\n")
    with pytest.raises(DataError, match=r"missing image 'gone\.jpg'"):
        open_dataset(lines_data, "lines")


def test_the_outside_method_learns_and_predicts_through_the_commands(outside, lines_data, tmp_path):
    out = tmp_path / "run"
    words = ["train", "--method", "gap", "--kind", "lines", "--data", str(lines_data), "--weights", "none"]
    words += ["--size", "64", "--iterations", "2", "--batch-size", "2", "--device", "cpu", "--out", str(out)]
    found = CliRunner().invoke(app, [*words, "--set", "train.workers=0"])
    assert found.exit_code == 0, found.output
    words = ["predict", str(out), str(lines_data), "--out", str(tmp_path / "masks"), "--device", "cpu"]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, found.output
    assert len(list((tmp_path / "masks" / "masks").glob("*.png"))) == 3


def test_the_notebook_is_the_script_and_was_executed():
    script = (ROOT / "examples" / "from_tags_to_masks.py").read_text(encoding="utf-8")
    cells = [c.partition("\n") for c in re.split(r"^# %%", script, flags=re.MULTILINE)[1:]]
    book = json.loads((ROOT / "examples" / "from_tags_to_masks.ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    want = [text.strip() for head, _, text in cells if "markdown" not in head]
    assert ["".join(cell["source"]) for cell in code] == want
    assert all(cell["execution_count"] for cell in code)
    outputs = [output for cell in code for output in cell["outputs"]]
    assert "error" not in {output["output_type"] for output in outputs}
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.slow
def test_the_tour_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOUR_UPDATES", "4")
    found = runpy.run_path(str(ROOT / "examples" / "from_tags_to_masks.py"))
    assert set(found["run"].scores) >= {"cam", "label", "segmentation"}
    assert (tmp_path / "tour" / "published" / "README.md").is_file()

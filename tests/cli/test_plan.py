"""What a run is going to do: its plan, the dry run, help and completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import timm

from tagmask.cli.complete import BACKBONES, backbones, known_methods, known_recipes
from tagmask.engine.log import Display
from tests.cli import TINY, tagmask

FLAGS = [f.replace("--size=", "--set=train.size=").replace("--batch-size=", "--set=train.batch_size=")
         for f in TINY if not f.startswith("--method")]  # fmt: skip


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text("method: more\n")
    return path


def tree(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_dry_run_names_steps_and_times_and_writes_nothing(toy, recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path) | tree(toy)
    said = tagmask("run", recipe, "--data", toy, "--iterations", "3", *FLAGS, "--dry-run")
    assert said.exit_code == 0, said.stderr
    assert "3 updates of 2 images" in said.stdout
    lines = [line.split() for line in said.stdout.splitlines() if line.startswith("  ")]
    assert [words[1] for words in lines][:3] == ["train", "localize", "refine"]
    assert all("about" in words for words in lines)
    assert tree(tmp_path) | tree(toy) == before


def test_a_dry_run_refuses_what_the_run_would_refuse(toy, recipe, tmp_path):
    said = tagmask("run", recipe, "--data", toy, *FLAGS, "--set=localize.kinds=[none]", "--dry-run")
    assert said.exit_code == 2
    assert "none" in said.stderr


def test_what_is_done_is_said_to_be_done(finished, toy):
    before = tree(finished)
    said = tagmask("run", finished, "--dry-run", "--json")
    assert said.exit_code == 0, said.stderr
    steps = {step["name"]: step["done"] for step in json.loads(said.stdout)["plan"]["steps"]}
    assert steps["train"]
    assert steps["segment"]
    again = tagmask("run", finished, "--dry-run", "--json", "--set=segment.scales=[0.5]")
    steps = {step["name"]: step["done"] for step in json.loads(again.stdout)["plan"]["steps"]}
    assert steps["refine"]
    assert not steps["segment"]
    assert not steps["evaluate"], "it reads the masks"
    assert tree(finished) == before


def test_a_run_tells_its_plan_and_which_step_it_is_at(toy, recipe, tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(Display, "step", lambda self, *words: steps.append(words))
    said = tagmask(
        "run", recipe, "--data", toy, "--out", tmp_path / "run", "--iterations", "2", *FLAGS,
        "--until=refine",
    )  # fmt: skip
    assert said.exit_code == 0, said.stderr
    assert said.stderr.startswith("plan: 3 steps")
    assert [words[:2] for words in steps] == [(1, 3), (2, 3), (3, 3)]
    later = [words[2] for words in steps]
    assert later[0] > later[1] > later[2] == 0
    silent = tagmask("run", tmp_path / "run", "--until=refine", "--quiet")
    assert silent.stderr == ""


def test_help_begins_with_run():
    lines = tagmask("--help").stdout.splitlines()
    panels = [line.split("─ ")[1].split(" ─")[0] for line in lines if line.startswith("╭─ ")]
    assert panels[1:3] == ["Start here", "Look, correct, teach"]
    first = next(i for i, line in enumerate(lines) if "Start here" in line) + 1
    assert lines[first].split()[1] == "run"


def test_every_command_stands_in_a_group():
    import typer

    from tagmask.cli.main import app
    from tagmask.cli.manner import GROUPS

    assert set(typer.main.get_command(app).commands) == {n for names in GROUPS.values() for n in names}


def test_completion_knows_recipes_methods_and_backbones():
    assert known_recipes("sm") == ["small", "small-stages", "small-weaktr"]
    assert known_methods("mo") == ["more"]
    assert "deit_tiny_patch16_224.fb_in1k" in backbones("deit_t")
    own = ("tagmask_demo", "mit_", "conformer_", "resnet38")
    for name in BACKBONES:
        assert name.startswith(own) or timm.is_model(name.partition(".")[0]), name


def test_the_shell_is_told_without_torch():
    code = "import sys\nfrom tagmask.cli.main import app\ntry:\n    app(prog_name='tagmask')\n" \
           "finally:\n    assert 'torch' not in sys.modules"  # fmt: skip
    words = {"_TAGMASK_COMPLETE": "complete_bash", "COMP_WORDS": "tagmask run sm", "COMP_CWORD": "2"}
    said = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **words}, capture_output=True, text=True, check=False
    )
    assert said.stdout.split() == ["small", "small-stages", "small-weaktr"], said.stderr

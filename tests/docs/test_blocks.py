"""Every code block of the README and the documentation: commands parse, Python runs, settings exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import torch
import typer
import yaml

from tagmask import data, methods, recipes
from tagmask.cli.main import app
from tagmask.data import ClassTable
from tagmask.export.write import ExportConfig, export_model
from tagmask.models.trained import Trained, build_method
from tagmask.pipeline.config import read_config
from tests.docs.blocks import PAGES, ROOT, Block, blocks, command_blocks, commands, included, site_pages

KNOWN = {"", "bash", "python", "yaml", "toml"}
COMMANDS = [(block, words) for block in command_blocks() for words in commands(block)]
CLI = typer.main.get_command(app)
GENERATED = {ROOT / "docs" / place for place in site_pages().generated()}
ELSEWHERE = {"gap", "lines", "more_scale"}  # the example package's names


def test_no_block_is_of_a_kind_that_nothing_checks():
    for page in PAGES:
        kinds = re.findall(r"^```([^\n`]+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(kinds) <= KNOWN, page


@pytest.mark.parametrize(("block", "words"), COMMANDS, ids=[f"{b}:{' '.join(w)[:60]}" for b, w in COMMANDS])
def test_commands_are_what_the_programs_take(block, words):
    program, rest = words[0], words[1:]
    if "tagmask" in words:  # alone, or behind torchrun and the like
        _parse(words[words.index("tagmask") + 1 :])
    elif program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert set(rest) <= set(targets)
    elif program == "pip":
        _check_install(rest)
    elif program == "python":
        assert (ROOT / rest[0]).is_file()
    else:
        pytest.fail(f"{block}: nothing here knows how to check '{program}'")


def _parse(words: list[str]) -> None:
    """Parse as the command line does, without running the command."""
    command, path, context = CLI, ["tagmask"], None
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"no command {' '.join([*path, words[0]])}"
        command, path, words = command.commands[words[0]], [*path, words[0]], words[1:]
    context = command.make_context(" ".join(path), list(words))
    values = context.params
    if name := values.get("method"):
        assert name in {*methods.names(), *ELSEWHERE, "par", "crf", "none"}
    if kind := values.get("kind"):
        known = {*data.names(), *ELSEWHERE, "auto", "onnx", "torch"}
        assert kind in known
    recipe = values.get("recipe")
    if recipe and not recipe.startswith(("runs/", "hf:")) and not recipe.endswith(".yaml"):
        assert recipe in {*recipes.names(), "RECIPE", "mydata"}  # a folder of images is for recipe auto
    outside = any(f"method={name}" in (values.get("settings") or ()) for name in ELSEWHERE)
    if path[1] in _RUNS and values.get("settings") and recipe in {None, *recipes.names()} and not outside:
        named = {"method": values["method"]} if values.get("method") else {}
        read_config(recipe, named, values["settings"])


_RUNS = ("train", "run", "localize", "refine", "walk", "segment", "evaluate")


def _check_install(words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    assert words[0] == "install"
    for word in words[1:]:
        if match := re.search(r"\[(.+)\]", word):
            assert set(match[1].split(",")) <= set(extras)
        elif "/" in word:
            assert (ROOT / word / "pyproject.toml").is_file()


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_recipes_are_accepted(block, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(block.text, encoding="utf-8")
    given = yaml.safe_load(block.text)
    assert read_config(str(path), {}, ()).method == given["method"]


@pytest.mark.parametrize("block", [b for kind in ("toml", "python") for b in blocks(kind)], ids=str)
def test_included_files_exist(block):
    for file in included(block):
        assert (ROOT / file).is_file()


def runs(block: Block) -> bool:
    return not included(block) and "needs a network" not in block.text


PYTHON = [block for block in blocks("python") if runs(block)]
EXPORTED = "docs/guide/export-and-share.md"  # whose reader has exported a model, which takes a while
SMALL = "vit:patch=16,dim=32,depth=1,heads=2,size=64"


@pytest.mark.parametrize("page", sorted({block.page for block in PYTHON} - {EXPORTED}))
def test_python_runs(page, workplace, monkeypatch):
    """The blocks of a page one after the other, as a reader would, in a folder with a run and images."""
    monkeypatch.chdir(workplace)
    names: dict[str, object] = {}
    for block in PYTHON:
        if block.page == page:
            exec(compile(block.text, str(block), "exec"), names)


@pytest.mark.slow
def test_python_runs_on_an_exported_model(workplace, monkeypatch):
    torch.manual_seed(0)
    method = build_method("segmenter", {"backbone": SMALL}, 3).eval()
    trained = Trained(method, "segmenter", ClassTable(("cat", "dog", "sofa")), "", {})
    export_model(ExportConfig(format="torch"), trained, workplace / "model.pt2")
    test_python_runs(EXPORTED, workplace, monkeypatch)


def test_cheap_commands_run(workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    for words in (
        ["list"], ["version"], ["show", "more"], ["show", "settings"], ["show", "small"],
        ["data", "check", "mydata"], ["predict", "runs/first", "mydata/images", "--out", "masks"],
    ):  # fmt: skip
        assert CLI.main(words, standalone_mode=False) in (None, 0), words
    assert len(list(Path("masks/masks").glob("*.png"))) == 3

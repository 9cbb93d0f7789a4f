"""Messages speak of flags on the command line and of arguments in Python; flags mean one thing each."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys

import pytest
import typer

import tagmask
from tagmask.cli.main import app
from tagmask.cli.manner import RENAMED
from tagmask.errors import ConfigError, UserError, in_commands, in_python
from tests.cli import tagmask as command


@pytest.mark.parametrize(
    ("shell", "python"),
    [
        ("say where the images are: --data DIR (or", "say where the images are: data=DIR (or"),
        ("another --out, or replace with --overwrite", "another out=, or replace with overwrite=True"),
        ("go on with --resume", "go on with resume=True"),
        ("use --device auto or --device cpu", 'use device="auto" or device="cpu"'),
        ("or use --precision bf16", 'or use precision="bf16"'),
        ("(--set localize.tags=classifier)", '(settings={"localize.tags": "classifier"})'),
        ("give --set train.iterations=1000 or more", 'give settings={"train.iterations": 1000} or more'),
        ("(--weights w.safetensors); or --weights none", '(weights="w.safetensors"); or weights="none"'),
        ("run 'tagmask localize' first", "run tagmask.localize first"),
        ("choose another --batch-size", "choose another batch_size="),
        ("a-b --- c, well--known", "a-b --- c, well--known"),
    ],
)  # fmt: skip
def test_a_message_is_said_in_the_words_of_where_one_is(shell, python):
    assert in_python(shell) == python
    assert str(ConfigError(shell)) == python
    with in_commands():
        assert str(ConfigError(shell)) == shell
    assert str(ConfigError(shell)) == python


def test_one_fault_on_the_command_line_and_in_python(tmp_path):
    said = command("train", "--out", tmp_path / "a")
    assert (said.exit_code, "--data DIR" in said.stderr) == (2, True)
    with pytest.raises(UserError, match="data=DIR"):
        tagmask.train(out=tmp_path / "a", progress=False)


def options() -> dict[str, dict[str, str]]:
    """Flag to command to the help it has there."""
    found: dict[str, dict[str, str]] = {}
    for name, kind in typer.main.get_command(app).commands.items():
        for param in getattr(kind, "params", []):
            for flag in param.opts:
                if flag.startswith("--"):
                    found.setdefault(flag, {})[name] = param.help or ""
    return found


def test_flags_that_meant_several_things_mean_one():
    known = options()
    for flag in ("--classes", "--size", "--method", "--rate", "--maps"):
        assert len(set(known.get(flag, {}).values())) <= 2, (flag, known[flag])
    assert set(known["--size"]) == set(known["--method"]) | {"run"} == {"train", "run"}
    assert set(known["--maps"]) == {"localize", "export"}
    assert "--rate" not in known
    assert all("file" in text.lower() for text in known["--classes"].values())


def test_every_switch_can_be_switched_off():
    for name, kind in typer.main.get_command(app).commands.items():
        for param in getattr(kind, "params", []):
            if getattr(param, "is_bool_flag", False) and param.name != "help":
                assert param.secondary_opts, f"{name} {param.opts}"


@pytest.mark.parametrize(
    ("name", "old", "new"), [(c, o, n) for c, known in RENAMED.items() for o, n in known.items()]
)
def test_old_flags_work_and_warn(name, old, new, tmp_path):
    more = [tmp_path / "frames", tmp_path / "film.gif"] if name == "animate" else []
    said = command(name, tmp_path / "nowhere", *more, old, "3")
    assert (
        f"warning: {old} of 'tagmask {name}' is now {new}; the old name works until tagmask 0.4"
        in said.stderr
    )
    assert "No such option" not in said.stderr


@pytest.mark.parametrize("arguments", [["-V"], ["--version"]])
def test_version(arguments):
    said = command(*arguments)
    assert (said.exit_code, said.stdout.strip()) == (0, f"tagmask {tagmask.__version__}")


def test_help_in_short():
    assert command("-h").stdout == command("--help").stdout
    assert "--data" in command("train", "-h").stdout


@pytest.mark.parametrize("arguments", [["list", "--json"], ["--json", "list"]])
def test_json_wherever_it_stands(arguments):
    said = json.loads(command(*arguments).stdout)
    assert said["exit_code"] == 0
    assert "more" in said["methods"]


def test_json_of_a_refusal(tmp_path):
    said = command("evaluate", tmp_path / "nowhere", "--json")
    assert (said.exit_code, json.loads(said.stdout)["exit_code"]) == (2, 2)
    assert json.loads(said.stdout)["error"] == said.stderr.strip()


def test_verbose_shows_where_and_quiet_does_not(tmp_path):
    for flag, shown in (("-q", False), ("-v", True)):
        said = command("evaluate", tmp_path / "nowhere", flag)
        assert (said.exit_code, "Traceback" in said.stderr) == (2, shown)
        log = logging.getLogger("tagmask")
        assert (log.handlers, log.level) == ([], logging.NOTSET)
    # In a process of its own as well, with a command that needs no PyTorch to fail.
    done = subprocess.run(
        [sys.executable, "-m", "tagmask", "show", "nowhere", "-v"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (2, True)


def test_the_logger_is_a_real_one(caplog, tmp_path):
    from tagmask.engine.log import Display

    with caplog.at_level(logging.INFO, logger="tagmask"):
        Display(quiet=True).say("7 images are left out")
    assert [(record.name, record.getMessage()) for record in caplog.records] == [
        ("tagmask", "7 images are left out")
    ]


def test_what_a_wrong_name_says():
    with pytest.raises(AttributeError, match=re.escape("module 'tagmask' has no attribute 'loses'")):
        _ = tagmask.loses

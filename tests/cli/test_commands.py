from __future__ import annotations

import os
import subprocess
import sys

import pytest

import tagmask as package
from tests.cli import tagmask

HEAVY = ("torch", "timm", "torchvision", "matplotlib", "numpy")


@pytest.mark.parametrize("line", ["import tagmask", "from tagmask.cli.main import app"])
def test_importing_loads_nothing_heavy(line):
    code = f"{line}\nimport sys\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_commands_that_build_no_network_load_nothing_of_the_kind():
    heavy = ("timm", "torchvision", "torch._dynamo", "torch._inductor", "matplotlib", "pandas", "sympy")
    code = (
        "import sys\nimport tagmask.pipeline.run\nfrom tagmask import methods\n"
        "from tagmask.engine.runtime import Runtime\n"
        "for name in methods.names():\n    methods.get(name)\n"
        "Runtime.create('cpu')\n"
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [["list"], ["--help"], ["train", "--help"], ["data", "--help"]])
def test_looking_around_loads_no_torch(arguments):
    code = (
        "import sys\nfrom tagmask.cli.main import app\n"
        f"try:\n    app({arguments!r})\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "5000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_waiting_threads_soon_sleep_unless_the_user_says_otherwise(given, spins):
    code = (
        "import os, sys, tagmask.cli.main as cli\n"
        "cli.app = lambda: print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)\n"
        "cli.main()"
    )
    own = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=own | given)
    assert done.stdout.split() == [spins, "False"]


def test_list_names_methods_data_and_recipes():
    text = tagmask("list").stdout
    for name in ("more", "folder", "voc", "coco"):
        assert name in text


def test_show_explains_every_setting_of_a_method():
    from tagmask.methods.more import MoReConfig

    text = tagmask("show", "more").stdout
    for name in MoReConfig.model_fields:
        assert f"model.{name}  (" in text
    assert "maps: cam, aux_cam, lam" in text


def test_show_settings_lists_what_set_takes():
    text = tagmask("show", "settings").stdout
    for name in (
        "train.iterations",
        "data.root",
        "localize.size",
        "runtime.precision",
        "evaluate.background",
    ):
        assert f"\n{name}  (" in text


def test_version_names_what_matters():
    text = tagmask("version").stdout
    assert f"tagmask {package.__version__}" in text
    assert "torch 2." in text


def test_public_names_are_few_and_exist():
    assert len(package.__all__) <= 50
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError):
        _ = package.nonsense


def test_data_check_says_what_is_wrong(toy, tmp_path):
    fine = tagmask("data", "check", toy, "--split", "val")
    assert fine.exit_code == 0, fine.stderr
    assert "5 classes" in fine.stdout
    (tmp_path / "images").mkdir()
    (tmp_path / "tags.csv").write_text("image,tags\nmissing.png,cat\n")
    broken = tagmask("data", "check", tmp_path)
    assert broken.exit_code == 2
    assert "missing.png" in broken.stdout


def test_module_is_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "tagmask", "list"], capture_output=True, text=True, check=True, env=os.environ
    )
    assert "methods:" in done.stdout

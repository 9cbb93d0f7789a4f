"""The shape of the package: who may import whom, what nobody may call, how large things may grow."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import tagmask

ROOT = Path(tagmask.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
ENTRY = {path.stem for path in ROOT.glob("*cli*.py")} | {"__main__"}
TOP = {"api", "app", "model", "pipeline", "runconfig", "_journey", "_steps", "_demo", *ENTRY}
FOUNDATION = {"errors", "types", "config", "__init__"}
FOLDERS = {
    "errors": set(),
    "ops": {"errors"},
    "losses": {"errors", "ops"},
    "heads": {"errors", "ops"},
    "types": {"errors"},
    "config": {"errors"},
    "recipes": {"errors"},
    "backbones": {"ops", "errors"},
    "data": {"types", "errors", "ops.images"},
    "engine": {"types", "errors"},
    "store": {"types", "errors", "data.classes", "__init__"},
    "report": {"types", "errors", "data.classes"},
    "metrics": {"types", "errors", "ops"},
    "review": {"types", "errors", "ops"},
    "formats": {"types", "errors", "data.classes", "data.rle"},
    "methods": {"backbones", "heads", "losses", "ops", "types", "config", "errors"},
}
"""What each folder may import besides itself; stages may import all of these, the top level anything."""


def home(path: Path) -> str:
    """Top-level folder or module a file belongs to."""
    relative = path.relative_to(ROOT)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[str]:
    """Modules of ours that a file imports, wherever in it, as dotted names below the package."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module == "tagmask":
            yield from ("__init__" if a.name.startswith("__") else a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tagmask."):
            yield (node.module or "").removeprefix("tagmask.")
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("tagmask.") for a in node.names if a.name.startswith("tagmask"))


def external(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[0] for a in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_only_point_down(path):
    here = home(path)
    if here in TOP or here == "__init__":
        return
    allowed = FOLDERS.get(here, {*FOLDERS, "__init__"} if here == "stages" else None)
    assert allowed is not None, f"{here} has no rule; add one"
    for name in imports(path):
        target = name.split(".")[0]
        assert target == here or target in allowed or name in allowed, f"{here} must not import {name}"


def test_nothing_imports_the_top_from_inside():
    for path in FILES:
        if home(path) not in TOP | {"__init__"}:
            assert not {name.split(".")[0] for name in imports(path)} & TOP, path


def test_methods_and_stages_do_not_import_each_other():
    for folder in ("methods", "stages"):
        for path in (ROOT / folder).glob("*.py"):
            others = {name.split(".")[1] for name in imports(path) if name.startswith(f"{folder}.")}
            public = {name for name in others if not name.startswith("_") and name != "base"}
            assert not public, f"{path.name} imports {public}"


def test_there_is_no_circle():
    edges = defaultdict(set)
    for path in FILES:
        edges[home(path)] |= {name.split(".")[0] for name in imports(path)} - {home(path), "__init__"}
    done: set[str] = set()

    def walk(node: str, trail: tuple[str, ...]) -> None:
        assert node not in trail, " -> ".join([*trail, node])
        if node not in done:
            for target in edges[node]:
                walk(target, (*trail, node))
            done.add(node)

    for node in [n for n in edges if n != "__init__"]:
        walk(node, ())


def test_one_file_knows_accelerate_and_only_some_know_devices():
    for path in FILES:
        relative = path.relative_to(ROOT).as_posix()
        if relative != "engine/runtime.py":
            assert "accelerate" not in external(path), relative
        if home(path) not in ENTRY:
            assert "typer" not in external(path), relative
        if home(path) not in ENTRY | {"engine"}:
            assert "rich" not in external(path), relative


BANNED = (
    (r"\.cuda\(\)", "devices come from the runtime"),
    (r"\bNotImplementedError\b", "no stubs"),
    (r"#\s*(TODO|FIXME|XXX)\b", "no open ends"),
    (r"^\s*except\s*:", "no bare except"),
    (r"\bweights_only\s*=\s*False", "nothing in a checkpoint is executed"),
    (r"\b(pickle\.loads?|cPickle|marshal\.loads?|yaml\.load)\(", "no code from files"),
    (r"\b(eval|exec)\(", "no code from text"),
    (r"allow_pickle\s*=\s*True", "no pickles in arrays"),
    (r"import matplotlib\.pyplot|from matplotlib import pyplot", "no global figures"),
    (r"shell\s*=\s*True|os\.system\(", "no shell"),
)


@pytest.mark.parametrize(("pattern", "reason"), BANNED, ids=[reason for _, reason in BANNED])
def test_banned_calls(pattern, reason):
    for path in FILES:
        # A module in eval mode is fine; the builtin is not.
        text = re.sub(r"\.(eval|exec)\(", ".x(", path.read_text(encoding="utf-8"))
        found = re.search(pattern, text, re.MULTILINE)
        assert not found, f"{path.relative_to(ROOT)}: {found and found.group()} ({reason})"


def test_only_the_command_line_prints():
    for path in FILES:
        if home(path) in ENTRY:
            continue
        calls = [n for n in ast.walk(tree(path)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
        assert "print" not in {getattr(call.func, "id", "") for call in calls}, path


def test_files_and_functions_stay_small():
    for path in FILES:
        lines = path.read_text(encoding="utf-8").count("\n")
        assert lines <= 350, f"{path.relative_to(ROOT)} has {lines} lines"
        for node in ast.walk(tree(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                assert length <= 80, f"{path.relative_to(ROOT)}: {node.name} has {length} lines"


def test_every_module_says_what_it_is_for():
    for path in FILES:
        if path.stat().st_size:
            assert ast.get_docstring(tree(path)), path.relative_to(ROOT)


def test_public_names():
    assert sorted(tagmask.__all__) == sorted(PUBLIC)
    assert len(PUBLIC) <= 25


PUBLIC = (
    "CheckpointError", "ConfigError", "DataError", "Model", "Result", "Run", "RunConfig", "TagDataset",
    "UserError", "__version__", "check_data", "evaluate", "load", "localize", "open_dataset", "read_config",
    "refine", "run", "segment", "train", "write_report",
)  # fmt: skip

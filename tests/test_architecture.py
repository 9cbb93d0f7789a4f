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
TOP = ("model", "pipeline", "api", "app", "integrations", "tools", "cli", "__main__")
"""From here up nothing is imported from inside; each may import those before it and all folders."""
BELOW = {
    "errors": set(),
    "names": set(),
    "ops": {"errors"},
    "losses": {"errors", "ops"},
    "heads": {"errors", "ops"},
    "types": {"errors"},
    "config": {"errors"},
    "recipes": {"errors"},
    "backbones": {"ops", "errors"},
    # One function makes floats of pixels, for readers, views and whoever else holds some; sizes likewise.
    "data": {"types", "errors", "config", "ops.images", "ops.sizes"},
    "engine": {"types", "errors", "config"},
    # Names and distrust of files are the same for what people point at and for what steps leave.
    "store": {"types", "errors", "data.classes", "data.file_names", "data.readers.regular", "__init__"},
    "report": {"types", "errors", "data.classes"},
    "metrics": {"types", "errors", "ops"},
    "review": {"types", "errors", "ops"},
    "methods": {"backbones", "heads", "losses", "ops", "types", "config", "errors"},
    "annotations": {"data", "store", "engine.log", "types", "errors", "config"},
}
"""What each folder may import besides itself."""
BELOW["models"] = {"methods", "backbones", "data", "store", "config", "types", "errors", "report", "__init__"}
BELOW["inference"] = {*BELOW["methods"], "methods", "models", "data", "engine", "store", "report"}
BELOW["export"] = {"models", "inference", "methods", "ops", "store", "types", "config", "errors", "__init__"}
BELOW["training"] = {
    *BELOW["methods"], "methods", "models", "inference.views", "inference.given_views", "inference.predictor",
    "data", "engine", "store", "annotations.read", "metrics",
}  # fmt: skip
BELOW["steps"] = {*BELOW, "__init__"} - {"steps"}


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


def allowed(here: str) -> set[str]:
    if here in TOP:
        return {*BELOW, *TOP[: TOP.index(here)], "__init__"}
    assert here in BELOW, f"{here} has no rule; add one"
    return {*BELOW[here], "names"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_only_point_down(path):
    here = home(path)
    if here == "__init__":
        return
    for name in imports(path):
        targets = {name, name.split(".")[0], ".".join(name.split(".")[:2])}
        assert here in targets or targets & allowed(here), f"{here} must not import {name}"


def test_methods_and_steps_do_not_import_each_other():
    shared = {
        "methods": {"base"},
        "steps": {
            *("areas", "base", "classifiers", "cuts", "fitting", "models", "opinions", "panels", "scoring"),
            *("train", "trust"),
        },
    }
    for folder, common in shared.items():
        for path in (ROOT / folder).glob("*.py"):
            others = {name.split(".")[1] for name in imports(path) if name.startswith(f"{folder}.")}
            public = {name for name in others - common if not name.startswith("_")}
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
        if relative not in ("engine/runtime.py", "engine/trackers.py"):
            assert "accelerate" not in external(path), relative
        if home(path) not in ("cli", "__main__"):
            assert "typer" not in external(path), relative
        if home(path) not in ("cli", "__main__", "engine"):
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
        if home(path) in ("cli", "__main__"):
            continue
        calls = [n for n in ast.walk(tree(path)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
        assert "print" not in {getattr(call.func, "id", "") for call in calls}, path


def test_files_and_functions_stay_small():
    for path in FILES:
        lines = path.read_text(encoding="utf-8").count("\n")
        most = 600 if home(path) == "methods" else 300  # a method reads like its paper, in one file
        assert lines <= most, f"{path.relative_to(ROOT)} has {lines} lines"
        for node in ast.walk(tree(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                assert length <= 80, f"{path.relative_to(ROOT)}: {node.name} has {length} lines"


def test_the_root_holds_few_files_and_no_module_hides():
    assert len(list(ROOT.glob("*.py"))) <= 8
    hidden = [path for path in FILES if path.stem.startswith("_") and not path.stem.startswith("__")]
    assert not hidden, "what two files need is a public piece at the right height"


def test_names_with_an_underscore_stay_in_their_file():
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tagmask"):
                private = [a.name for a in node.names if a.name.startswith("_") and not a.name.endswith("__")]
                assert not private, f"{path.relative_to(ROOT)} imports {private} from {node.module}"


def test_one_function_makes_floats_of_pixels():
    for path in FILES:
        if path.relative_to(ROOT).as_posix() != "ops/images.py":
            found = re.search(r"\.div_?\(255|\.float\(\) ?/ ?255", path.read_text(encoding="utf-8"))
            assert not found, f"{path.relative_to(ROOT)}: {found and found.group()} (use ops.images.unit)"


SHARED_STATE = re.compile(
    r"torch\.(manual_seed|set_num_threads|set_num_interop_threads|set_default_\w+|use_deterministic_algorithms"
    r"|set_float32_matmul_precision|set_grad_enabled|backends\.|distributed\b)|\b(random|np\.random)\.seed\("
)


def test_only_the_engine_changes_what_the_whole_program_shares():
    for path in FILES:
        if home(path) != "engine":
            found = SHARED_STATE.search(path.read_text(encoding="utf-8"))
            assert not found, f"{path.relative_to(ROOT)}: {found and found.group()} (the runtime does that)"


def test_nothing_happens_at_import():
    for path in FILES:
        if home(path) in ("cli", "integrations"):
            continue  # commands are listed by calls; an integration makes itself known when asked for
        for node in tree(path).body:
            call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
            acts = call or isinstance(node, (ast.For, ast.While, ast.With))
            assert not acts, f"{path.relative_to(ROOT)}:{node.lineno} does something when imported"


def test_every_module_says_what_it_is_for():
    for path in FILES:
        if path.stat().st_size:
            assert ast.get_docstring(tree(path)), path.relative_to(ROOT)


def test_public_names():
    assert sorted(tagmask.__all__) == sorted(PUBLIC)
    assert len(PUBLIC) <= 50


PUBLIC = (
    "Callback", "CheckpointError", "ConfigError", "DataError", "EarlyStop", "Model", "Result", "Run",
    "RunConfig", "TagDataset", "UserError", "__version__", "affinity", "backbones", "check_data", "data",
    "entropy", "evaluate", "heads", "load", "localize", "losses", "methods", "metrics", "open_dataset",
    "ops", "read_config", "refine", "run", "segment", "student", "teach", "train", "walk", "write_report",
    "write_review",
)  # fmt: skip

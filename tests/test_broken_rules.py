"""Every rule of the architecture, broken once in a copy of the package: the rule must notice."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

import tagmask

HERE = Path(__file__).parent
ALONE = "test_methods_and_steps_do_not_import_each_other"
KNOWN = "test_one_file_knows_accelerate_and_only_some_know_devices"
SHARED = "test_only_the_engine_changes_what_the_whole_program_shares"
PRIVATE = "test_names_with_an_underscore_stay_in_their_file"
BROKEN = (
    # rule (or what a banned call is about), file, content below its description
    ("test_imports_only_point_down", "ops/extra.py", "from tagmask.data import TagDataset"),
    ("test_imports_only_point_down", "methods/extra.py", "import tagmask.store.files"),
    ("test_imports_only_point_down", "steps/extra.py", "def f():\n    from tagmask.pipeline.run import run"),
    ("test_imports_only_point_down", "new_folder/extra.py", "from tagmask.errors import DataError"),
    (ALONE, "methods/extra.py", "from tagmask.methods.afa import AFA"),
    (ALONE, "steps/extra.py", "from tagmask.steps.walk import WALK"),
    ("test_there_is_no_circle", "losses/extra.py", "from tagmask.methods.base import Method"),
    (KNOWN, "steps/extra.py", "import accelerate.utils"),
    (KNOWN, "pipeline/extra.py", "import typer"),
    (KNOWN, "training/extra.py", "from rich import print"),
    ("devices come from the runtime", "losses/extra.py", "x = y.cuda()"),
    ("no stubs", "heads/extra.py", "def f():\n    raise NotImplementedError"),
    ("no open ends", "heads/extra.py", "x = 1  # TODO: think"),
    ("no bare except", "data/extra.py", "try:\n    x = 1\nexcept:\n    x = 2"),
    ("nothing in a checkpoint is executed", "models/extra.py", "x = torch.load(p, weights_only=False)"),
    ("no code from files", "store/extra.py", "x = pickle.load(f)"),
    ("no code from text", "report/extra.py", "x = eval(text)"),
    ("no pickles in arrays", "store/extra.py", "x = np.load(p, allow_pickle=True)"),
    ("no global figures", "report/extra.py", "import matplotlib.pyplot as plt"),
    ("no shell", "engine/extra.py", "x = subprocess.run(c, shell=True)"),
    ("test_only_the_command_line_prints", "steps/extra.py", "def f():\n    print(1)"),
    ("test_files_and_functions_stay_small", "data/extra.py", "x = 1\n" * 300),
    ("test_files_and_functions_stay_small", "methods/extra.py", "x = 1\n" * 600),
    ("test_files_and_functions_stay_small", "ops/extra.py", "def long():\n" + "    x = 1\n" * 80),
    ("test_the_root_holds_few_files_and_no_module_hides", "extra.py", "x = 1"),
    ("test_the_root_holds_few_files_and_no_module_hides", "data/_extra.py", "x = 1"),
    (PRIVATE, "cli/extra.py", "from tagmask.ops.crf import _positions"),
    ("test_one_function_makes_floats_of_pixels", "data/extra.py", "x = pixels.float() / 255"),
    (SHARED, "steps/extra.py", "torch.manual_seed(0)"),
    (SHARED, "ops/extra.py", "x = torch.backends.cudnn"),
    ("test_nothing_happens_at_import", "data/extra.py", "logging.basicConfig()"),
    ("test_nothing_happens_at_import", "ops/extra.py", "for x in range(3):\n    y = x"),
)
WHOLE = ("test_there_is_no_circle",)
"""Rules that one file alone cannot break."""


@pytest.fixture(scope="module")
def rules(tmp_path_factory):
    """The module of the rules, looking at a copy of the package."""
    package, copy = Path(tagmask.__file__).parent, tmp_path_factory.mktemp("copy") / "tagmask"
    for path in package.rglob("*.py"):
        target = copy / path.relative_to(package)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    spec = importlib.util.spec_from_file_location("copied_rules", HERE / "test_architecture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.ROOT = copy
    module.tree = module.tree.__wrapped__  # files change here
    return module


def obeyed(rules, rule: str, path: Path) -> bool:
    """Whether a rule finds nothing; it looks at one file unless it needs them all."""
    rules.FILES = sorted(rules.ROOT.rglob("*.py")) if rule in WHOLE else [path]
    patterns = {reason: pattern for pattern, reason in rules.BANNED}
    try:
        if rule in patterns:
            rules.test_banned_calls(patterns[rule], rule)
        elif rule == "test_imports_only_point_down":
            rules.test_imports_only_point_down(path)
        else:
            getattr(rules, rule)()
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize(("rule", "place", "text"), BROKEN, ids=[f"{r} {p}" for r, p, _ in BROKEN])
def test_a_broken_rule_is_noticed(rules, rule, place, text):
    fine, path = rules.ROOT / "ops" / "fine.py", rules.ROOT / place
    path.parent.mkdir(exist_ok=True)
    try:
        if rule not in WHOLE:
            fine.write_text('"""Nothing in it."""\n')
            assert obeyed(rules, rule, fine)
        path.write_text(f'"""What breaks a rule."""\n{text}\n')
        assert not obeyed(rules, rule, path)
    finally:
        fine.unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def test_a_module_without_a_description_is_noticed(rules):
    path = rules.ROOT / "ops" / "wordless.py"
    path.write_text("x = 1\n")
    assert not obeyed(rules, "test_every_module_says_what_it_is_for", path)
    path.unlink()


@pytest.mark.parametrize("names", [("extra",), tuple(f"extra{i}" for i in range(50))])
def test_a_public_name_that_nobody_agreed_on_is_noticed(rules, monkeypatch, names):
    monkeypatch.setattr(rules, "PUBLIC", (*rules.PUBLIC, *names))
    assert not obeyed(rules, "test_public_names", rules.ROOT / "api.py")


def test_every_rule_is_broken_here(rules):
    own = {"test_every_module_says_what_it_is_for", "test_public_names", "test_banned_calls"}
    named = {name for name in vars(rules) if name.startswith("test_")}
    assert {rule for rule, _, _ in BROKEN} | own == named | {reason for _, reason in rules.BANNED}

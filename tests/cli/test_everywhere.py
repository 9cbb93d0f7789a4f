"""What only POSIX systems have is never needed: every module is imported and a run is done without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.cli import TINY

ROOT = Path(__file__).parents[2]
WITHOUT = textwrap.dedent(
    """
    import importlib, importlib.abc, os, pkgutil, signal, sys, warnings

    class Gone(importlib.abc.MetaPathFinder):
        names = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty"}

        def find_spec(self, name, path=None, target=None):
            if name in self.names:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for name in Gone.names:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, Gone())
    for name in ("fork", "forkpty", "mkfifo", "nice", "getuid", "killpg", "setsid", "O_NONBLOCK", "O_NOCTTY",
                 "O_CLOEXEC", "O_NOFOLLOW"):
        delattr(os, name)
    windows = {"SIGINT", "SIGTERM", "SIGABRT", "SIGFPE", "SIGILL", "SIGSEGV"}
    for name in [n for n in dir(signal) if n.startswith("SIG") and n[3] != "_" and n not in windows]:
        delattr(signal, name)
    warnings.filterwarnings("ignore", "only soft file lock")
    """
)


# Every module, then each of the calls in turn: one process for all, for loading takes longer than the work.
EVERYTHING = textwrap.dedent(
    """
    import json
    import tagmask

    missing = {}
    for module in pkgutil.walk_packages(tagmask.__path__, "tagmask."):
        if not module.name.endswith("__main__"):
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:
                missing[module.name] = error.name

    from tagmask.cli.main import app

    codes = []
    for call in json.loads(sys.argv[1]):
        try:
            app(call)
            codes.append(None)
        except SystemExit as end:
            codes.append(end.code)
    told = {"missing": missing, "modules": sorted(sys.modules), "codes": codes}
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(told, file)
    """
)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, toy: Path) -> SimpleNamespace:
    """What a process without all that found; its calls wrote into the folder of the run and of the masks."""
    place = tmp_path_factory.mktemp("everywhere")
    out, masks = place / "run", place / "masks"
    more = ("--iterations=2", *TINY, "--set=train.eval_every=0")
    calls = [
        ["train", "--data", toy, "--out", out, *more],
        ["run", out, "--out", out, "--until", "refine"],
        ["predict", out, toy / "images", "--out", masks, "--device=cpu"],
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    told = place / "told.json"
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT + EVERYTHING, json.dumps(calls, default=str), told],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    return SimpleNamespace(
        **json.loads(told.read_text()), run=out, masks=masks / "masks", said=ended.stdout + ended.stderr
    )


@pytest.mark.slow
def test_every_module_is_imported_without_what_only_posix_has(done: SimpleNamespace):
    assert {"tagmask.store.files", "tagmask.pipeline.run"} <= {*done.modules}
    # What belongs to an extra may be missing with the extra, and nothing else.
    extras = {"starlette", "uvicorn", "ray", "fsspec", "pyarrow", "transformers"}
    assert {*done.missing.values()} <= extras, done.missing


@pytest.mark.slow
def test_a_run_and_a_prediction_without_what_only_posix_has(done: SimpleNamespace, toy: Path):
    assert done.codes == [0, 0, 0], done.said
    assert len(list((done.run / "labels").glob("*.png"))) > 0
    assert len(list(done.masks.glob("*.png"))) == len(list((toy / "images").iterdir()))

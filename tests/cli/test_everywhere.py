"""What only POSIX systems have is never needed: every module is imported and a run is done without it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

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


def without(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=300,
    )


@pytest.mark.slow
def test_every_module_is_imported_without_what_only_posix_has():
    done = without(
        """
        import tagmask
        missing = {}
        for module in pkgutil.walk_packages(tagmask.__path__, "tagmask."):
            if not module.name.endswith("__main__"):
                try:
                    importlib.import_module(module.name)
                except ModuleNotFoundError as error:
                    missing[module.name] = error.name
        assert "tagmask.store.files" in sys.modules and "tagmask.pipeline.run" in sys.modules
        # What belongs to an extra may be missing with the extra, and nothing else.
        extras = {"starlette", "uvicorn", "ray", "fsspec", "pyarrow", "transformers"}
        assert set(missing.values()) <= extras, missing
        """
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_run_and_a_prediction_without_what_only_posix_has(tmp_path: Path, toy: Path):
    code = """
        from tagmask.cli.main import app
        app(sys.argv[1:])
        """
    out = tmp_path / "run"
    more = ("--iterations=2", *TINY, "--set=train.eval_every=0")
    done = without(code, "train", "--data", toy, "--out", out, *more)
    assert done.returncode == 0, done.stderr
    done = without(code, "run", out, "--out", out, "--until", "refine")
    assert done.returncode == 0, done.stderr
    assert len(list((out / "labels").glob("*.png"))) > 0
    done = without(code, "predict", out, toy / "images", "--out", tmp_path / "masks", "--device=cpu")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "masks" / "masks").glob("*.png"))) == len(list((toy / "images").iterdir()))

"""Too little address space and too little shared memory, truly limited: one line that names the setting."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.cli import train_args

resource = pytest.importorskip("resource", reason="this system has no such limits")
pytestmark = pytest.mark.slow
SECONDS = 10
"""Of computing: the machine of a test may be busy with others."""


def spent() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def refused(command: list[object], **more: object) -> str:
    """The one line on which a command ends with exit code 2, soon.

    What loading the libraries takes, 4 to 9 seconds of a machine, is not the command's: it prints them.
    """
    before = spent()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=environment, timeout=300, **more
    )
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    loading = float(done.stdout.split()[0]) if "loaded" in done.stdout else 0
    assert spent() - before - loading < SECONDS
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert done.stderr.splitlines()[-1] == line
    assert "Traceback" not in done.stderr
    return line


def test_a_shell_that_is_limited_before_anything_is_loaded(finished, toy, tmp_path):
    size = 5 << 29
    line = refused(
        [sys.executable, "-m", "tagmask", "predict", finished, toy / "images", "--out", tmp_path / "o"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size)),
    )
    assert "memory ran out" in line
    assert "ulimit -v" in line


LOADED = textwrap.dedent(
    """
    import re, resource, sys, time
    from pathlib import Path
    import tagmask.steps.train, tagmask.inference.predict, timm  # what is loaded is no longer asked for
    from tagmask.cli.main import app
    print(time.process_time(), "loaded", flush=True)
    """
)
LIMITED = LOADED + textwrap.dedent(
    """
    now = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (now + (int(sys.argv[1]) << 20),) * 2)
    app(sys.argv[2:])
    """
)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="asks Linux how much is in use")
def test_a_network_that_finds_no_room(toy, tmp_path):
    large = "--backbone=vit:patch=8,dim=2048,depth=12,heads=2,size=64"
    arguments = [*train_args(toy, tmp_path / "o", 2), large, "--set=train.workers=2"]
    line = refused([sys.executable, "-c", LIMITED, 200, *arguments])
    assert "memory ran out" in line
    assert re.search("ulimit -v|Lower|Raise", line)
    assert not (tmp_path / "o" / "model").exists()


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_shared_memory_of_64_kilobytes(toy, tmp_path):
    script = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"'
    alone = ["unshare", "-m", "sh", "-c", script, "sh"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system gives no mounts of one's own")
    arguments = train_args(toy, tmp_path / "o", 2, "--set=train.workers=2")
    line = refused([*alone, sys.executable, "-c", f"{LOADED}app(sys.argv[1:])", *arguments])
    assert "/dev/shm" in line
    assert "train.workers=0" in line


@pytest.mark.parametrize("kilobytes", [3_140_000, 3_200_000, 3_400_000, 3_600_000])
def test_a_training_in_a_limited_shell_works_or_says_what_is_too_low(toy, tmp_path, kilobytes):
    before, limit = spent(), kilobytes * 1024
    done = subprocess.run(
        [sys.executable, "-m", "tagmask", *map(str, train_args(toy, tmp_path / "o", 2))],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip
    if done.returncode:
        assert done.returncode == 2, done.stderr
        assert "ulimit -v" in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
        assert spent() - before < SECONDS

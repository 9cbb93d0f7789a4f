"""The container file: hadolint reads it, and its install lines run in a fresh environment.

Nothing here builds an image. The install takes some gigabytes, so TAGMASK_CONTAINER=1 has to ask for it, as
``make tools-test`` does.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tagmask.data import ClassTable
from tagmask.models.trained import build_method, save_method
from tests.contract.test_methods import TINY
from tests.docs.test_container import FILE, ROOT, steps

LINTER = shutil.which(
    "hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
)


@pytest.mark.skipif(LINTER is None, reason="hadolint is not installed")
def test_hadolint_has_nothing_to_say():
    done = subprocess.run([str(LINTER), str(FILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.slow
@pytest.mark.skipif("TAGMASK_CONTAINER" not in os.environ, reason="asked for by TAGMASK_CONTAINER=1")
def test_its_install_lines_give_a_page_whose_health_check_answers(tmp_path: Path):
    found, env = dict(steps()), {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    home, data = tmp_path / "package", tmp_path / "data"
    for word, rest in steps():
        if word == "COPY":
            *sources, _ = rest.split()
            for source in sources:
                place = ROOT / source
                home.mkdir(exist_ok=True)
                shutil.copytree(place, home / source) if place.is_dir() else shutil.copy(place, home)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    commands = tmp_path / "venv" / "bin"
    # PyTorch comes from the index that pip is set up for; its own one is not reached from everywhere.
    lines = re.sub(r'--index-url "\$TORCH_INDEX" ', "", found["RUN"])
    for line in (part for part in lines.split("&&") if part.strip().startswith("pip ")):
        subprocess.run([commands / "pip", *shlex.split(line)[1:]], cwd=home, env=env, check=True)
    save_method(data, build_method("more", TINY["more"], 2), "more", ClassTable(("cat", "dog")), {}, {})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    given = {found["VOLUME"]: str(data), found["EXPOSE"]: port}
    program = [given.get(word, word) for word in json.loads(found["CMD"])]
    check = json.loads(found["HEALTHCHECK"].partition("CMD")[2].replace(found["EXPOSE"], port))
    check[0] = str(commands / check[0])
    assert subprocess.run(check, capture_output=True, check=False).returncode != 0
    page = subprocess.Popen([str(commands / "tagmask"), *program], cwd=data, env=env)
    try:
        end = time.monotonic() + 300
        while subprocess.run(check, capture_output=True, check=False).returncode != 0:
            assert page.poll() is None, "the page has ended"
            assert time.monotonic() < end, "nothing answers"
            time.sleep(1)
    finally:
        page.terminate()
        page.wait(30)

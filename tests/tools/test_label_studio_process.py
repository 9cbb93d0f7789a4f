"""The backend as a program of its own, killed in the middle of a training."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest

from tagmask.data import ClassTable
from tagmask.models.trained import build_method, save_method
from tests.contract.test_methods import TINY
from tests.tools.backend import NAMES, annotation, asked, call, set_up
from tests.tools.label_studio import until

pytest.importorskip("uvicorn")
pytestmark = pytest.mark.slow


class Program:
    """``tagmask serve label-studio`` on a free port."""

    def __init__(self, model, url, out):
        flags = ["--url", url, "--port", "0", "--out", out, "--device", "cpu", "--fit-after", "0"]
        flags += ["--fit-seconds", "5"]
        command = [sys.executable, "-m", "tagmask", "serve", "label-studio", model, *flags]
        self.log = out / "serve.log"
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file)
        until(lambda: self.process.poll() is not None or self.address(), 300, 0.2)
        assert self.process.poll() is None, self.log.read_text()
        self.url = self.address()
        until(lambda: call(f"{self.url}/health"), 300, 0.2)

    def address(self):
        found = re.search(r"add (http://\S+)", self.log.read_text())
        return found and found[1]

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(120)


@pytest.fixture
def start(place, tmp_path):
    """Starts the program; whatever still runs is killed at the end."""
    model, out, begun = tmp_path / "model", tmp_path / "out", []
    save_method(model, build_method("more", TINY["more"], 2), "more", ClassTable(NAMES), {}, {})
    out.mkdir()

    def one():
        begun.append(Program(model, place[0], out))
        return begun[-1]

    yield one
    for program in begun:
        if program.process.poll() is None:
            program.end(signal.SIGKILL)


def test_killed_in_the_middle_of_a_training_it_goes_on_with_every_correction(start):
    first = start()
    set_up(first.url)
    for number in (1, 2, 3):
        assert call(f"{first.url}/webhook", annotation(number))[0] == 200
    version = call(f"{first.url}/health")[1]["model_version"]
    assert call(f"{first.url}/fit", {"project": "7"})[0] == 200
    assert call(f"{first.url}/health")[1]["training"]["running"]
    first.end(signal.SIGKILL)
    again = start()
    health = call(f"{again.url}/health")[1]
    assert (health["corrections"], health["new_corrections"]) == (3, 3)
    assert health["model_version"] == version
    # The project is known, predictions come, and the training can be asked for again.
    assert call(f"{again.url}/predict", asked("/0.png"))[0] == 200
    assert call(f"{again.url}/fit", {"project": "7"})[0] == 200
    until(lambda: not call(f"{again.url}/health")[1]["training"]["running"], 300)
    assert call(f"{again.url}/health")[1]["new_corrections"] == 0
    again.end()
    assert again.process.returncode in (0, -signal.SIGTERM, 128 + signal.SIGTERM), again.log.read_text()

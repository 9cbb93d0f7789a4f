from __future__ import annotations

import importlib
import socket
import sys

import pytest

from tagmask.store.files import exclusive
from tests.cli import tagmask


def test_without_its_server_the_command_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "tagmask.app.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    done = tagmask("app", tmp_path)
    assert done.exit_code == 2
    assert done.stderr == "error: the page needs a web server; install it with: pip install 'tagmask[app]'\n"


def test_what_the_command_refuses(tmp_path):
    pytest.importorskip("starlette", reason="the extra app is not installed")
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = str(busy.getsockname()[1])
        done = tagmask("app", tmp_path, "--port", port)
        assert (done.exit_code, f"cannot listen on 127.0.0.1:{port}" in done.stderr) == (2, True)
    for port in ("70000", "-1"):
        assert tagmask("app", tmp_path, "--port", port).exit_code == 2
    (tmp_path / "empty").mkdir()
    done = tagmask("app", tmp_path / "empty", "--port", "0", "--out", tmp_path / "out")
    assert (done.exit_code, "neither a run folder" in done.stderr) == (2, True)
    assert not (tmp_path / "out").exists()


def test_one_app_writes_to_a_folder(tmp_path, monkeypatch):
    pytest.importorskip("starlette", reason="the extra app is not installed")
    server = importlib.import_module("tagmask.app.server")
    monkeypatch.setattr(server, "_prepare", lambda *_: (None, None, 0.5, None))
    with exclusive(tmp_path / "out" / "reviewed"):
        done = tagmask("app", tmp_path, "--port", "0", "--out", tmp_path / "out")
    assert (done.exit_code, "another tagmask is working" in done.stderr) == (2, True)

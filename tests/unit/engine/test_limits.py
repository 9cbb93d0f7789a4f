"""A limited address space: some is kept for saying so, and PyTorch is tried before it is loaded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tagmask.engine import memory

resource = pytest.importorskip("resource", reason="this system has no such limits")
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits as Linux knows them")


@pytest.fixture
def limit():
    """So large a limit that nothing comes near it, until the test ends."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    if before[0] != resource.RLIM_INFINITY:
        pytest.skip("limited already")
    resource.setrlimit(resource.RLIMIT_AS, (2**44, before[1]))
    yield 2**44
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("error", [MemoryError, OSError(12, "Cannot allocate memory"), SystemError])
def test_no_memory_to_ask_how_much_is_in_use_means_that_the_limit_is_reached(limit, monkeypatch, error):
    assert not memory.near_limit()

    def read(*_args, **_how):
        raise error

    monkeypatch.setattr(Path, "read_bytes", read)
    assert memory.near_limit()


def test_room_is_kept_while_a_command_works_and_there_when_it_has_failed(limit):
    inside = []

    def command():
        with memory.room_kept():
            inside.append(memory.address_space())
            raise MemoryError

    with pytest.raises(MemoryError):
        command()
    assert inside == [limit - 2**26]
    assert memory.address_space() == limit


def test_where_nothing_is_limited_nothing_is_done():
    if memory.address_space() is not None:
        pytest.skip("limited already")
    finders = list(sys.meta_path)
    with memory.room_kept():
        assert memory.address_space() is None
        assert sys.meta_path == finders


def test_a_library_that_ends_its_process_is_found_out_in_another_one(limit, tmp_path, monkeypatch):
    (tmp_path / "tm_kills.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    (tmp_path / "tm_starves.py").write_text("raise MemoryError")
    (tmp_path / "tm_breaks.py").write_text("raise ImportError('another reason')")
    (tmp_path / "tm_loads.py").write_text("import os; print(os.getpid())")
    monkeypatch.syspath_prepend(tmp_path)
    assert not memory._fits("tm_kills", 1)
    assert not memory._fits("tm_starves", 1)
    assert memory._fits("tm_breaks", 1)
    assert memory._fits("tm_loads", 1)
    assert not memory._fits("tm_loads", limit)
    assert not {"tm_kills", "tm_starves", "tm_breaks", "tm_loads"} & sys.modules.keys()


@pytest.mark.parametrize("module", ["torch", "numpy", "scipy"])
@pytest.mark.parametrize("size", [2**32, 2**44])
def test_what_takes_a_limit_badly_is_refused_where_the_limit_is_small(limit, monkeypatch, module, size):
    monkeypatch.setattr(memory, "address_space", lambda: size)
    monkeypatch.setattr(memory, "_set_limit", lambda _: None)
    monkeypatch.setattr(memory, "_fits", lambda name, room: name != "torch")
    monkeypatch.setattr(memory, "_BLAS", limit)
    finders = list(sys.meta_path)
    with memory.room_kept():
        gate = sys.meta_path[0]
        assert gate.find_spec("json") is None
        if size == 2**32:
            with pytest.raises(MemoryError, match=rf"{module} does not fit into 4\.3 GB"):
                gate.find_spec(module)
        assert gate.find_spec(module) is None
    assert sys.meta_path == finders


def test_room_for_linear_algebra_is_asked_for_and_given_back(limit):
    assert all(memory._is_there(2**33) for _ in range(3000))
    assert not memory._is_there(limit)

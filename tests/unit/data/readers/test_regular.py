from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tagmask.data.readers.regular import (
    Inside,
    check_regular,
    irregular,
    is_output,
    open_regular,
    read_bytes,
    read_text,
)
from tagmask.errors import CheckpointError, DataError

posix = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")


@posix
def test_pipes_sockets_devices_and_folders_are_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        kinds = {"pipe": "a named pipe", "socket": "a socket", "folder": "a folder"}
        (tmp_path / "folder").mkdir()
        for name, words in kinds.items():
            for read in (read_bytes, read_text, open_regular, check_regular):
                with pytest.raises(DataError, match=f"is {words}; only plain files are read"):
                    read(tmp_path / name)
    (tmp_path / "link").symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match="is a device"):
        check_regular(tmp_path / "link", error=CheckpointError)


@posix
def test_what_cannot_be_reached_is_described(tmp_path):
    (tmp_path / "a").symlink_to("b")
    assert irregular(tmp_path / "a") == "is a link to nothing"
    (tmp_path / "b").symlink_to("a")
    assert "Too many levels" in irregular(tmp_path / "a")
    assert irregular(tmp_path / "c") == "does not exist"
    assert irregular(tmp_path / ("x" * 300)) == "cannot be read (File name too long)"
    (tmp_path / "file").write_bytes(b"abc")
    assert irregular(tmp_path / "file") is None


def test_sizes_are_bounded_also_of_a_file_that_grows(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"a\r\nb\rc\n")
    assert read_bytes(path) == b"a\r\nb\rc\n"
    assert read_text(path) == "a\nb\nc\n"
    with pytest.raises(DataError, match="has 7 bytes; at most 3 are read"):
        read_bytes(path, 3)
    seen = os.fstat(os.open(path, os.O_RDONLY))
    path.write_bytes(b"x" * 5000)
    monkeypatch.setattr(os, "fstat", lambda number: seen)
    monkeypatch.setattr(Path, "stat", lambda self, **more: seen)
    with pytest.raises(DataError, match="more than 10 bytes"):
        read_bytes(path, 10)


@posix
def test_links_may_stay_inside_or_lead_where_it_was_allowed(tmp_path, monkeypatch):
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "sub").mkdir(parents=True)
    outside.mkdir()
    for folder in (root / "sub", outside):
        (folder / "file").write_text("x")
    (root / "in").symlink_to(root / "sub" / "file")
    (root / "out").symlink_to(outside / "file")
    (root / "folder-out").symlink_to(outside)
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    # The root may itself be a link: whoever named it named what it leads to.
    (tmp_path / "name").symlink_to(root)
    for top in (root, tmp_path / "name"):
        inside = Inside([top])
        assert inside.reason(top / "in") is None
        assert inside.reason(top / "sub" / "file") is None
        for name in ("out", "folder-out/file"):
            assert f"a link that leads out, to {outside}" in str(inside.reason(top / name))
            assert f"to allow it set TAGMASK_ALLOW={outside}" in str(inside.reason(top / name))
        assert inside.reason(top / "a") == "is a link that leads in a circle"
        assert inside.reason(top / "..") is not None
    with pytest.raises(DataError, match="leads out"):
        read_bytes(root / "out", inside=root)
    monkeypatch.setenv("TAGMASK_ALLOW", os.pathsep.join(["/nowhere", str(outside)]))
    assert Inside([root]).reason(root / "folder-out" / "file") is None
    assert read_bytes(root / "out", inside=root) == b"x"


def test_what_tagmask_wrote_is_recognised(tmp_path):
    assert not is_output(tmp_path)
    (tmp_path / "predict.json").write_text("{}")
    assert is_output(tmp_path)

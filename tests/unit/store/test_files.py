from __future__ import annotations

import multiprocessing
import os

import pytest

from tagmask.errors import CheckpointError, DataError
from tagmask.store.files import (
    NameRefused,
    atomic_write,
    clear_partial,
    digest,
    exclusive,
    file_for,
    sha256,
    write_json,
)


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def broken():
        with atomic_write(path) as target:
            target.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        broken()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_the_systems_refusal_becomes_one_clear_error(tmp_path):
    def full():
        with atomic_write(tmp_path / "x" / "a.bin", CheckpointError):
            raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match=r"No space left on device \(\d+ MiB free there\)"):
        full()


def test_leftovers_of_a_killed_writer_are_cleared(tmp_path):
    partial = tmp_path / "labels" / ".partial"
    partial.mkdir(parents=True)
    (partial / "12-a.png").write_bytes(b"half")
    clear_partial(tmp_path)
    assert list((tmp_path / "labels").iterdir()) == []


def test_names_become_paths_inside_the_folder(tmp_path):
    assert file_for(tmp_path, "a/b.c", ".png") == tmp_path / "a" / "b.c.png"
    for name in ("../x", "/etc/x", "a/../../x", "", "a\\b", "a\0"):
        with pytest.raises(DataError):
            file_for(tmp_path, name, ".png")


def test_digests(tmp_path):
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    write_json(tmp_path / "v.json", {"ä": 1})
    assert sha256(tmp_path / "v.json") == sha256(tmp_path / "v.json")
    assert "ä" in (tmp_path / "v.json").read_text(encoding="utf-8")


def write_many(folder, writer):
    for index in range(400):
        with atomic_write(folder / f"{writer}-{index}.txt") as target:
            target.write_text("x")


def test_writers_of_one_folder_do_not_take_it_from_each_other(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(tmp_path, name)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert len(list(tmp_path.iterdir())) == 1200


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_folder_that_is_written_to_holds_nothing_that_leads_out(tmp_path):
    victim, out = tmp_path / "victim", tmp_path / "out"
    victim.write_text("precious")
    out.mkdir()
    for name in ("masks", "summary.jsonl"):
        (out / name).symlink_to(victim)
        with pytest.raises(DataError, match=f"{name} is reached by a link that leads out"), exclusive(out):
            pass
        (out / name).unlink()
    (out / ".lock").symlink_to(victim)
    with pytest.raises(DataError, match="lock is no plain file; delete it"), exclusive(out):
        pass
    (out / ".lock").unlink()
    os.mkfifo(out / ".lock")
    with pytest.raises(DataError, match="lock is no plain file; delete it"), exclusive(out):
        pass
    (out / ".lock").unlink()
    with exclusive(out), pytest.raises(DataError, match="another tagmask is working"), exclusive(out):
        pass
    (tmp_path / "elsewhere").mkdir()
    (out / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NameRefused, match="leads out"):
        file_for(out, "sub/a", ".png")
    assert victim.read_text() == "precious"


def test_a_name_that_cannot_be_written_is_told_from_a_disk_that_cannot(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / ("x" * 300), tmp_path / "file" / "a.png", tmp_path / "folder.png"):
        with pytest.raises(NameRefused, match="cannot write"), atomic_write(path) as target:
            target.write_text("x")
    longest = tmp_path / ("x" * 251 + ".png")
    with atomic_write(longest) as target:
        target.write_text("x")
    assert longest.read_text() == "x"

    def full():
        with atomic_write(tmp_path / "a.bin"):
            raise OSError(28, "No space left on device")

    with pytest.raises(DataError) as caught:
        full()
    assert not isinstance(caught.value, NameRefused)

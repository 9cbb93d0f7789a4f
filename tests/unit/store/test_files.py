from __future__ import annotations

import multiprocessing

import pytest

from tagmask.errors import CheckpointError, DataError
from tagmask.store.files import atomic_write, clear_partial, digest, file_for, sha256, write_json


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

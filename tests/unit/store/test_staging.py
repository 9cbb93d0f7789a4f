"""New results take the place of old ones whole: whatever ends the program, one of them is there."""

from __future__ import annotations

import os

import pytest

from tagmask.store.ledger import Ledger, file_state, is_whole, read_list
from tagmask.store.manifest import Manifest
from tagmask.store.staging import Staging, recover


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs."""


def old_run(folder):
    (folder / "maps").mkdir()
    (folder / "maps" / "a.npz").write_bytes(b"old")
    (folder / "page.html").write_bytes(b"old page")
    manifest = Manifest(folder)
    manifest.begin("localize", {"size": 1}, {})
    manifest.finish("localize", [folder / "maps", folder / "page.html"], 1.0, {"images": 1})


def stage(folder):
    staging = Staging(folder, "localize")
    staging.begin({"size": 2}, {})
    (staging.root / "maps").mkdir()
    (staging.root / "maps" / "a.npz").write_bytes(b"new")
    (staging.root / "maps" / "b.npz").write_bytes(b"new too")
    (staging.root / "page.html").write_bytes(b"new page")
    return staging


def contents(folder):
    return {p.name: p.read_bytes() for p in (*(folder / "maps").glob("*"), folder / "page.html")}


OLD = {"a.npz": b"old", "page.html": b"old page"}
NEW = {"a.npz": b"new", "b.npz": b"new too", "page.html": b"new page"}
FINISH = {"seconds": 2.0, "results": {"images": 2}}


@pytest.mark.parametrize("moment", range(9))
def test_a_kill_between_any_two_moves_leaves_the_old_or_the_new(tmp_path, monkeypatch, moment):
    old_run(tmp_path)
    staging, moves = stage(tmp_path), []

    def guarded(real):
        def move(*args):
            if len(moves) == moment:
                raise Killed
            moves.append(args)
            return real(*args)

        return move

    monkeypatch.setattr(os, "rename", guarded(os.rename))
    monkeypatch.setattr(os, "replace", guarded(os.replace))
    killed = False
    try:
        staging.complete(["maps", "page.html"], [], FINISH)
    except Killed:
        killed = True
    monkeypatch.undo()
    assert killed == (moment < 7), "the list, the note, two moves of a folder, one of a file, list and record"
    recover(tmp_path)
    expected = NEW if moment >= 2 else OLD
    assert contents(tmp_path) == expected
    manifest = Manifest(tmp_path)
    assert manifest.steps["localize"]["settings"] == {"size": 2 if expected is NEW else 1}
    assert not manifest.differences("localize")
    assert (tmp_path / ".unfinished").exists() == (expected is OLD)


def test_unfinished_work_goes_on_only_where_it_is_the_same(tmp_path):
    staging = stage(tmp_path)
    assert staging.goes_on({"size": 2}, {})
    assert not staging.goes_on({"size": 3}, {})
    assert not Staging(tmp_path, "segment").goes_on({"size": 2}, {})
    staging.stop("stopped", "SIGTERM")
    assert staging.record()["status"] == "stopped"
    assert staging.goes_on({"size": 2}, {})
    staging.begin({"size": 3}, {})
    assert not (staging.root / "maps").exists()


def test_a_file_is_whole_only_if_it_was_made_and_is_unchanged(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(b"1234")
    ledger = Ledger(tmp_path)
    assert not ledger.whole(file), "it is there, but nobody says who made it"
    ledger.note([file])
    assert Ledger(tmp_path, rank=1).whole(file)
    os.utime(file, (1, 1))
    assert ledger.whole(file)
    file.write_bytes(b"1235")
    assert not ledger.whole(file)
    file.write_bytes(b"")
    assert not ledger.whole(file)
    file.unlink()
    assert not ledger.whole(file)
    file.symlink_to("/dev/null")
    assert not ledger.whole(file)


def test_half_a_row_of_a_killed_writer_is_left_out(tmp_path):
    file = tmp_path / "a b \n ü.png"
    file.write_bytes(b"1234")
    Ledger(tmp_path).note([file])
    path = tmp_path / "files-0.jsonl"
    with open(path, "a") as rows:
        rows.write('["c.png", "12')
    assert read_list(path) == {"a b \n ü.png": file_state(file)}
    assert is_whole(file, read_list(path)["a b \n ü.png"])


def test_only_damaged_files_are_made_again(tmp_path):
    old_run(tmp_path)
    (tmp_path / "maps" / "b.npz").write_bytes(b"stranger")
    manifest = Manifest(tmp_path)
    assert manifest.differences("localize") == {"maps/b.npz": "not from this step"}
    (tmp_path / "page.html").write_bytes(b"")
    assert manifest.differences("localize") == {
        "maps/b.npz": "not from this step", "page.html": "changed",
    }  # fmt: skip
    staging = Staging(tmp_path, "localize")
    staging.begin({"size": 1}, {})
    staging.adopt(manifest.files("localize"), manifest.differences("localize"))
    assert Ledger(staging.root).whole(staging.root / "maps" / "a.npz")
    assert not (staging.root / "page.html").exists()


def test_a_lost_list_leaves_what_is_known_of_the_whole(tmp_path):
    old_run(tmp_path)
    for path in (tmp_path / ".checksums").iterdir():
        path.write_text("nonsense")
    manifest = Manifest(tmp_path)
    assert not manifest.differences("localize")
    (tmp_path / "maps" / "a.npz").write_bytes(b"odd")
    assert manifest.differences("localize") == {"maps": "changed"}

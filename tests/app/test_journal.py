"""A decision that was confirmed outlives a power cut; nothing that somebody did later is undone by that."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from tagmask.app.decisions import Decision, Decisions
from tagmask.app.journal import Change, Journal
from tagmask.data.classes import class_palette
from tagmask.errors import DataError
from tagmask.store.labels import read_mask, write_mask

PALETTE = class_palette()
MASK = np.eye(8, dtype=np.uint8)


def decide(folder, name="a/b", verdict="accepted", value=1):
    store = Decisions(folder)
    kept = "mask" if verdict == "accepted" else ""
    store.put(Decision(name, verdict, kept=kept), MASK * value if kept else None, PALETTE)
    return store


@pytest.mark.parametrize("cut", ["missing", "empty", "half", "old"])
def test_what_a_power_cut_took_is_made_again(tmp_path, cut):
    decide(tmp_path)
    store = decide(tmp_path, value=2)
    record, mask = tmp_path / "decisions" / "a" / "b.json", tmp_path / "masks" / "a" / "b.png"
    for path in (record, mask):
        content = path.read_bytes()
        if cut == "missing":
            path.unlink()
        elif cut == "old":
            path.write_bytes(b"what was there before")
            os.utime(path, (time.time() - 100,) * 2)
        else:
            path.write_bytes(b"" if cut == "empty" else content[: len(content) // 2])
    again = Decisions(tmp_path)
    assert again.get("a/b") == store.get("a/b")
    assert read_mask(mask).max() == 2
    assert (tmp_path / "journal.jsonl").stat().st_size == 0


def test_a_removed_mask_stays_removed(tmp_path):
    decide(tmp_path)
    decide(tmp_path, verdict="rejected")
    write_mask(tmp_path / "masks" / "a" / "b.png", MASK)
    os.utime(tmp_path / "masks" / "a" / "b.png", (time.time() - 100,) * 2)
    assert Decisions(tmp_path).mask("a/b") is None


def test_a_mask_that_somebody_painted_later_is_left_alone(tmp_path):
    decide(tmp_path)
    mask = tmp_path / "masks" / "a" / "b.png"
    write_mask(mask, MASK * 5)
    os.utime(mask, (time.time() + 60,) * 2)
    Decisions(tmp_path)
    assert read_mask(mask).max() == 5


def test_a_line_that_was_cut_off_counts_for_nothing(tmp_path):
    decide(tmp_path)
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write('{"when": 1, "files": {"decisions/x.json": "e3')
    assert list(Decisions(tmp_path).known()) == ["a/b"]


def test_an_orderly_end_leaves_nothing_to_look_at(tmp_path):
    decide(tmp_path).settle()
    assert (tmp_path / "journal.jsonl").read_bytes() == b""
    assert Decisions(tmp_path).get("a/b").verdict == "accepted"


def test_a_change_that_cannot_be_written_leaves_what_was_there(tmp_path):
    journal = Journal(tmp_path)
    journal.add(Change({"a.txt": b"old"}))
    size = journal.path.stat().st_size
    (tmp_path / "b").write_text("a file where a folder should be")
    with pytest.raises((DataError, OSError)):
        journal.add(Change({"a.txt": b"new", "b/c.txt": b"new"}))
    assert (tmp_path / "a.txt").read_bytes() == b"old"
    assert journal.path.stat().st_size == size


def test_a_journal_cannot_write_outside_its_folder(tmp_path):
    folder = tmp_path / "reviewed"
    folder.mkdir()
    (folder / "journal.jsonl").write_text('{"when": 9e9, "files": {"../out.txt": "eA=="}}\n')
    with pytest.raises(DataError, match="outside"):
        Decisions(folder)
    assert not (tmp_path / "out.txt").exists()


def test_one_wait_for_the_disk_a_decision(tmp_path, monkeypatch):
    store = decide(tmp_path)
    waits = []
    monkeypatch.setattr(os, "fsync", waits.append)
    store.put(Decision("c", "accepted", kept="mask"), MASK, PALETTE)
    assert len(waits) == 1

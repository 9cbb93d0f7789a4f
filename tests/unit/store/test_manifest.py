from __future__ import annotations

import json
import os

import pytest

from tagmask.errors import DataError
from tagmask.store.ledger import fingerprint
from tagmask.store.manifest import Manifest


def finished(folder):
    manifest = Manifest(folder)
    manifest.begin("refine", {"method": "par"}, {"maps": "abc"})
    (folder / "labels").mkdir()
    (folder / "labels" / "a.png").write_bytes(b"1234")
    manifest.finish("refine", [folder / "labels"], 1.5, {"images": 1})
    return folder / "labels" / "a.png"


def done(folder, settings=None, inputs=None):
    return Manifest(folder).is_done("refine", settings or {"method": "par"}, inputs or {"maps": "abc"})


def test_a_finished_step_is_done_until_something_changes(tmp_path):
    output = finished(tmp_path)
    assert done(tmp_path)
    assert not done(tmp_path, settings={"method": "crf"})
    assert not done(tmp_path, inputs={"maps": "other"})
    os.utime(output, (1, 1))
    assert done(tmp_path), "a new date alone is no change"
    output.write_bytes(b"1235")
    assert not done(tmp_path)
    output.unlink()
    assert not done(tmp_path)


def test_stopped_and_running_steps_are_not_done(tmp_path):
    manifest = Manifest(tmp_path)
    manifest.begin("train", {"a": 1}, {})
    assert not Manifest(tmp_path).is_done("train", {"a": 1}, {})
    assert Manifest(tmp_path).same_work("train", {"a": 1}, {})
    assert not Manifest(tmp_path).same_work("train", {"a": 2}, {})
    manifest.stop("train", "stopped", "SIGTERM")
    content = json.loads((tmp_path / "run.json").read_text())
    assert content["steps"]["train"]["status"] == "stopped"
    assert content["steps"]["train"]["versions"]["torch"]


def test_a_setting_that_came_later_changes_nothing_while_it_has_its_default(tmp_path):
    Manifest(tmp_path).begin("train", {"a": 1}, {})
    later = Manifest(tmp_path)
    assert not later.same_work("train", {"a": 1, "b": 2}, {})
    assert later.same_work("train", {"a": 1, "b": 2}, {}, defaults={"a": 0, "b": 2})
    assert not later.same_work("train", {"a": 1, "b": 3}, {}, defaults={"a": 0, "b": 2})
    assert not later.same_work("train", {"a": 0, "b": 2}, {}, defaults={"a": 0, "b": 2})


def test_a_setting_that_came_later_inside_a_group_changes_nothing_either(tmp_path):
    Manifest(tmp_path).begin("train", {"maps": {"size": 1}, "views": None, "model": {"a": 1}}, {})
    later, defaults = Manifest(tmp_path), {"maps": {"size": 9, "fit": "x"}, "views": {"b": 2}}
    now = {"maps": {"size": 1, "fit": "x"}, "views": None, "model": {"a": 1}}
    assert later.same_work("train", now, {}, defaults)
    assert not later.same_work("train", {**now, "maps": {"size": 1, "fit": "y"}}, {}, defaults)
    assert not later.same_work("train", {**now, "views": {"b": 2}}, {}, defaults)
    assert not later.same_work("train", {**now, "model": {"a": 1, "c": 3}}, {}, defaults)


def test_checksum_of_an_output_feeds_the_next_step(tmp_path):
    finished(tmp_path)
    assert len(Manifest(tmp_path).checksum(tmp_path / "labels") or "") == 64
    assert Manifest(tmp_path).checksum(tmp_path / "maps") is None
    assert Manifest(tmp_path).checksum(tmp_path.parent) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1, "steps": 3}', '{"steps": {}}'])
def test_damaged_manifest_is_said(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(DataError, match=r"run\.json is damaged"):
        Manifest(tmp_path)


def test_newer_manifest_is_refused(tmp_path):
    (tmp_path / "run.json").write_text('{"format": 99, "steps": {}}')
    with pytest.raises(DataError, match="newer tagmask"):
        Manifest(tmp_path)


def test_every_output_must_be_there_under_its_own_name(tmp_path):
    manifest = Manifest(tmp_path)
    manifest.begin("segment", {}, {})
    for folder, content in (("masks", b"12"), ("extra", b"34")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(content)
        (tmp_path / folder / "b.png").write_bytes(content[::-1])
    manifest.finish("segment", [tmp_path / "masks", tmp_path / "extra"], 1.0, {})
    assert Manifest(tmp_path).is_done("segment", {}, {})
    first, second = (tmp_path / "masks" / name for name in ("a.png", "b.png"))
    swapped = first.read_bytes(), second.read_bytes()
    second.write_bytes(swapped[0])
    first.write_bytes(swapped[1])
    assert not Manifest(tmp_path).is_done("segment", {}, {})
    first.write_bytes(swapped[0])
    second.write_bytes(swapped[1])
    assert Manifest(tmp_path).is_done("segment", {}, {})
    # What was only touched must not hide what was changed before it.
    os.utime(tmp_path / "extra" / "a.png", (1, 1))
    assert Manifest(tmp_path).is_done("segment", {}, {})
    first.write_bytes(b"xx")
    assert not Manifest(tmp_path).is_done("segment", {}, {})
    first.write_bytes(swapped[0])
    (tmp_path / "extra" / "a.png").unlink()
    assert not Manifest(tmp_path).is_done("segment", {}, {})


def test_a_folders_checksum_knows_the_names_of_its_files(tmp_path):
    (tmp_path / "a.png").write_bytes(b"12")
    before = fingerprint(tmp_path)["sha256"]
    (tmp_path / "a.png").rename(tmp_path / "b.png")
    assert fingerprint(tmp_path)["sha256"] != before

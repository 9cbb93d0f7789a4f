"""Where bulk results lie, on disk and behind a URL, and the archives they are kept in."""

from __future__ import annotations

import errno
import io
import json
import tarfile
from dataclasses import replace

import fsspec
import numpy as np
import pytest
from PIL import Image

from tagmask.data.classes import ClassTable
from tagmask.engine.config import RuntimeConfig
from tagmask.errors import DataError
from tagmask.inference import ray_worker
from tagmask.inference.place import Place, passing
from tagmask.inference.ray_worker import Job, Plan, Worker, read_note
from tagmask.inference.remote import Item, list_items, read_item
from tagmask.inference.shard import Ahead, Shard
from tagmask.inference.writer import PredictConfig
from tagmask.models.trained import build_method, save_method
from tagmask.store.files import NameRefused, PerhapsLater
from tests.seams.pictures import CLASSES

CONFIG = PredictConfig(scales=(1.0,), overlays=False, confidence=True)


@pytest.fixture
def places(tmp_path):
    memory = fsspec.filesystem("memory")
    yield [Place(tmp_path / "out"), Place("memory://places/out/")]
    memory.rm("/places", recursive=True) if memory.exists("/places") else None


def test_a_place_is_the_same_on_disk_and_behind_a_url(places):
    for place in places:
        assert place.state("a/b.txt") is None
        assert place.names("a") == set()
        with pytest.raises(FileNotFoundError):
            place.read("a/b.txt")
        place.write("a/b.txt", b"one\ntwo\n")
        assert place.read("a/b.txt") == b"one\ntwo\n"
        assert place.read("a/b.txt", 4, 7) == b"two"
        assert place.names("a") == {"a/b.txt"}
        assert list(place.lines("a/b.txt")) == ["one\n", "two\n"]
        before = place.state("a/b.txt")
        assert before is not None
        assert before[0] == 8
        with place.writing("a/b.txt") as target:
            target.write_text("else")
        assert place.read("a/b.txt") == b"else"
        assert place.state("a/b.txt") != before
        place.remove("a/b.txt")
        place.remove("a/b.txt")
        assert place.state("a/b.txt") is None


def test_what_a_store_says_tells_a_missing_file_from_a_busy_store(monkeypatch):
    place = Place("memory://places/out")

    def busy(*_, **__):
        raise OSError(errno.EIO, "We encountered an internal error")

    system = fsspec.filesystem("memory")
    monkeypatch.setattr(type(system), "pipe_file", busy)
    with pytest.raises(PerhapsLater, match=r"cannot write memory://places/out/x .*internal error"):
        place.write("x", b"")
    assert passing(ConnectionResetError())
    assert passing(OSError(errno.EIO, "x"))
    assert not passing(FileNotFoundError())
    assert not passing(PermissionError())


def test_an_archive_is_the_same_bytes_and_holds_what_was_added():
    def made() -> bytes:
        shard = Shard()
        assert shard.add("masks", "a/ü:1", ".png", b"content") == "masks/a/ü%3A1.png"
        assert shard.files["masks/a/ü%3A1.png"][1:] == [7, 0]
        return shard.content()

    assert made() == made()
    with tarfile.open(fileobj=io.BytesIO(made())) as archive:
        assert archive.extractfile("masks/a/ü%3A1.png").read() == b"content"
    with pytest.raises(NameRefused, match="cannot be used"):
        Shard().add("masks", "../up", ".png", b"")


def test_pictures_of_an_archive_are_read_many_at_a_time(tmp_path, monkeypatch):
    with tarfile.open(tmp_path / "s.tar", "w") as shard:
        for number in range(20):
            entry = tarfile.TarInfo(f"{number}.png")
            entry.size = 40
            shard.addfile(entry, io.BytesIO(bytes([number]) * 40))
    items = [item for item in list_items([str(tmp_path / "s.tar")]) if isinstance(item, Item)]
    from fsspec.implementations.local import LocalFileSystem

    asked = []
    whole = LocalFileSystem.cat_file
    monkeypatch.setattr(LocalFileSystem, "cat_file", lambda *a, **k: asked.append(k) or whole(*a, **k))
    ahead = Ahead(items)
    assert [ahead.content(item)[0] for item in items] == list(range(20))
    assert len(asked) == 1
    assert Ahead(items[:1]).content(items[7]) == bytes([7]) * 40
    with pytest.raises(DataError, match="is cut off"):
        ahead.content(replace(items[3], start=10**6))


@pytest.fixture
def inputs(tmp_path):
    """Ten pictures and two that are none, in one shard, and a model."""
    with tarfile.open(tmp_path / "in.tar", "w") as shard:
        for number in range(12):
            buffer = io.BytesIO()
            pixels = np.full((16, 16, 3), 20 * number, np.uint8)
            Image.fromarray(pixels).save(buffer, "PNG")
            content = b"nothing" if number in (3, 8) else buffer.getvalue()
            entry = tarfile.TarInfo(f"{number:02d}.png")
            entry.size = len(content)
            shard.addfile(entry, io.BytesIO(content))
    values = {
        "backbone": "vit:patch=8,dim=32,depth=3,heads=2,size=32",
        "weights": "none",
        "decoder_width": 16,
    }
    method = build_method("more", values, len(CLASSES)).eval()
    save_method(tmp_path / "model", method, "more", ClassTable(CLASSES), {}, {})
    return tmp_path


def worker(folder, out, **more):
    job = Job(folder / "model", out, CONFIG, RuntimeConfig(device="cpu", threads=1), "s", True, **more)
    plan, one = Plan(Place(out)), Worker(job)
    items = [item for item in list_items([str(folder / "in.tar")]) if isinstance(item, Item)]
    plan.write(iter([items[:6], items[6:]]), one.key)
    return plan, one


def told(one, index):
    found = one({"chunk": np.array([index])})
    return int(found["images"][0]), int(found["failed"][0]), str(found["error"][0])


def test_a_chunk_becomes_one_archive_wherever_it_goes(inputs, places):
    contents = []
    for place in places:
        out = place.folder or str(place)
        plan, one = worker(inputs, out)
        assert [told(one, index) for index in (0, 1)] == [(5, 1, ""), (5, 1, "")]
        assert all(plan.is_done(key) for key in plan.keys)
        names = sorted(place.names("shards"))
        assert len(names) == 2
        contents.append([place.read(name) for name in names])
        with tarfile.open(fileobj=io.BytesIO(contents[-1][0])) as archive:
            assert archive.getnames()[:2] == ["masks/00.png", "confidence/00.png"]
        note = read_note(place, plan.note(plan.keys[0]))
        assert {row["shard"] for row in note.rows} == {names[0]}
        # Damaged and gone archives are made again, and only those.
        stamp = place.state(names[1])
        place.write(names[0], b"something else")
        assert [plan.is_done(key) for key in plan.keys] == [False, True]
        assert [told(one, index) for index in (0, 1)] == [(5, 1, ""), (5, 1, "")]
        assert place.read(names[0]) == contents[-1][0]
        assert place.state(names[1]) == stamp
    assert contents[0] == contents[1]


def test_a_finished_archive_is_asked_for_once_and_not_for_each_of_its_pictures(inputs, tmp_path, monkeypatch):
    plan, one = worker(inputs, tmp_path / "out")
    assert told(one, 0) == (5, 1, "")
    asked, state = [], Place.state
    monkeypatch.setattr(Place, "state", lambda self, name: asked.append(name) or state(self, name))
    assert plan.is_done(plan.keys[0])
    assert len(asked) == 1
    assert told(one, 0) == (5, 1, "")
    assert len(asked) == 2


def test_a_full_disk_is_waited_for_and_costs_nothing(inputs, tmp_path, monkeypatch):
    plan, one = worker(inputs, tmp_path / "out", patience=60.0)
    tries = iter([False, False, True])
    write = Place.write

    def sometimes(self, name, content):
        if name.startswith("shards/") and not next(tries):
            raise PerhapsLater("cannot write: No space left on device")
        write(self, name, content)

    monkeypatch.setattr(Place, "write", sometimes)
    monkeypatch.setattr(ray_worker, "_PAUSE", 0.0)
    assert told(one, 0) == (5, 1, "")
    assert plan.is_done(plan.keys[0])
    assert not plan.place.names("bulk/tries")


def test_a_store_that_does_not_answer_is_no_broken_picture(inputs, tmp_path, monkeypatch):
    plan, one = worker(inputs, tmp_path / "out")

    def gone(item, *_):
        raise PerhapsLater(f"{item.source} cannot be read (ConnectionError)")

    monkeypatch.setattr(ray_worker, "read_item", gone)
    assert "cannot be read" in told(one, 0)[2]
    assert not plan.is_done(plan.keys[0])
    monkeypatch.setattr(ray_worker, "read_item", read_item)
    assert told(one, 0) == (5, 1, "")


def test_notes_of_archives_tell_rows_failures_and_the_archive(places):
    for place in places:
        lines = [{"name": "a"}, {"failed": ["b", "why"]}, {"shard": ["s.tar", 3, "x"]}]
        place.write("note", "".join(f"{json.dumps(line)}\n" for line in lines).encode())
        note = read_note(place, "note")
        assert note == ([{"name": "a"}], [("b", "why")], ["s.tar", 3, "x"])


def test_scenes_keep_their_grid_in_a_bulk_run_and_are_named_where_they_cannot(inputs, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(0.3, 0, 5e5, 0, -0.3, 5e6)}
    folder = tmp_path / "scenes"
    folder.mkdir()
    head = {"driver": "GTiff", "height": 40, "width": 24, "count": 3, "dtype": "uint8"}
    with rasterio.open(folder / "a.tif", "w", **head, **place) as file:
        file.write(np.full((3, 40, 24), 200, np.uint8))
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(folder / "b.png")
    fsspec.filesystem("memory").pipe("/places/a.tif", (folder / "a.tif").read_bytes())
    items = [item for item in list_items([str(folder)]) if isinstance(item, Item)]
    assert [item.kind for item in items] == ["scene", ""]
    for shards in (False, True):
        out = tmp_path / f"out-{shards}"
        job = Job(inputs / "model", out, CONFIG, RuntimeConfig(device="cpu", threads=1), "s", shards)
        plan, one = Plan(Place(out)), Worker(job)
        plan.write(iter([items]), one.key)
        assert told(one, 0) == ((1, 1, "") if shards else (2, 0, ""))
        _, failed, _ = read_note(plan.place, plan.note(plan.keys[0]))
        if shards:
            assert failed == [(str(folder / "a.tif"), "is a scene, which no shard holds; leave out --shards")]
            continue
        with rasterio.open(out / "masks" / "a.tif") as made:
            assert (made.crs, made.transform) == (place["crs"], place["transform"])
            assert made.shape == (40, 24)
        assert (out / "masks" / "b.png").is_file()
        assert plan.is_done(plan.keys[0])
    (there,) = list_items(["memory://places/a.tif"])
    with pytest.raises(DataError, match="is a scene, which is read in parts and needs a disk; copy it"):
        read_item(there, 10**6)


def test_series_and_volumes_are_listed_once_and_refused_behind_urls(tmp_path):
    for name in ("scan/1.dcm", "scan/2.dcm", "head.nii.gz"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"x")
        fsspec.filesystem("memory").pipe(f"/places/in/{name}", b"x")
    found = list(list_items([str(tmp_path / "in")]))
    assert sorted((one.name, one.kind) for one in found) == [("head", "volume"), ("scan", "series")]
    for one in list_items(["memory://places/in"]):
        assert "copy it to one first" in one.reason, one
    fsspec.filesystem("memory").rm("/places", recursive=True)

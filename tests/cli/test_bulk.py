"""Bulk labelling: the masks of one process, from every kind of input, whatever dies on the way."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tagmask.data.datasets.scenes import render
from tagmask.engine.config import RuntimeConfig
from tagmask.inference.pictures import Broken, each_picture
from tagmask.inference.place import Place
from tagmask.inference.ray_worker import Job, Plan, Worker, _Tries, read_note
from tagmask.inference.remote import Item, list_items, read_item
from tagmask.inference.writer import PredictConfig
from tests.cli import tagmask
from tests.cli.strike import struck

FLAGS = ("--device=cpu", "--scales=1", "--batch-size=4", "--set=overlays=false")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Thirty scenes of two sizes in two folders, and a broken one."""
    root = tmp_path_factory.mktemp("pictures")
    for number in range(30):
        path = root / "ab"[number % 2] / f"{number:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(render(number, 0, size=48 + 16 * (number % 3 == 0)).image).save(path)
    (root / "a" / "broken.png").write_bytes(b"no picture")
    return root


def masks(out: Path) -> dict[str, bytes]:
    files = [*(out / "masks").rglob("*.png"), *(out / "confidence").rglob("*.png")]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def summary(out: Path) -> dict[str, dict]:
    # When a file was made differs.
    lines = (out / "summary.jsonl").read_text().splitlines()
    rows = [{k: v for k, v in json.loads(line).items() if k != "files"} for line in lines]
    assert len({row["name"] for row in rows}) == len(rows)
    return {row["name"]: row for row in rows}


@pytest.fixture(scope="module")
def single(tmp_path_factory, finished, pictures) -> Path:
    out = tmp_path_factory.mktemp("single") / "out"
    done = tagmask("predict", finished, pictures, "--out", out, *FLAGS)
    assert done.exit_code == 3, done.stderr
    return out


def job(finished: Path, out: Path, session: str = "s") -> Job:
    config = PredictConfig(scales=(1.0,), overlays=False)
    return Job(finished, out, config, RuntimeConfig(device="cpu", threads=1), session)


def chunks(items, size=8):
    items = [item for item in items if isinstance(item, Item)]
    return (items[i : i + size] for i in range(0, len(items), size))


def told(found):
    return found if isinstance(found, Broken) else (found.name, found.file, found.source, found.stamp)


def test_items_carry_the_names_and_stamps_of_the_single_process(pictures, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(pictures / "a" / "000.png", "a/000.png")
        archive.writestr("../evil.png", b"x")
    for inputs in (
        [str(pictures)],
        [str(pictures / "*" / "*.png")],
        [str(tmp_path / "x.zip")],
        ["/no/where"],
    ):
        theirs = [
            f if isinstance(f, Broken) else (f.name, f.file, f.source, f.stamp) for f in each_picture(inputs)
        ]
        ours = [
            f if isinstance(f, Broken) else (f.name, f.file, f.source, f.stamp) for f in list_items(inputs)
        ]
        assert ours == theirs


def test_shards_manifests_and_urls_give_the_same_pictures(pictures, tmp_path):
    import fsspec
    import pyarrow
    from pyarrow import parquet

    names = ["a/000.png", "b/001.png", "a/002.png"]
    with tarfile.open(tmp_path / "s-0.tar", "w") as shard:
        for name in names:
            shard.add(pictures / name, name)
            shard.add(tmp_path, name.replace(".png", ".json"), recursive=False)
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        shard.addfile(link)
    table = {"path": [str(pictures / n) for n in names] + ["../up.png"], "name": [*"xyz", "up"]}
    parquet.write_table(pyarrow.table(table), tmp_path / "list.parquet")
    memory = fsspec.filesystem("memory")
    for name in names:
        memory.pipe(f"/bulk/{name}", (pictures / name).read_bytes())
    memory.pipe("/shards/s-0.tar", (tmp_path / "s-0.tar").read_bytes())
    expected = [read_item(Item("", "", "", "", str(pictures / name)), 10**6).tobytes() for name in names]
    for given in (tmp_path / "s-*.tar", tmp_path / "list.parquet", "memory://bulk", "memory://shards/*.tar"):
        found = list(list_items([str(given)]))
        items = [f for f in found if isinstance(f, Item)]
        assert sorted(read_item(i, 10**6).tobytes() for i in items) == sorted(expected), given
        refused = [f.reason for f in found if isinstance(f, Broken)]
        assert len(refused) == ("bulk" not in str(given)), given
    named = [f.name for f in list_items([str(tmp_path / "list.parquet")]) if isinstance(f, Item)]
    assert named == ["x", "y", "z"]


@pytest.mark.parametrize("name", ["x.parquet", "x.tar", "x.zip", "gone.tar"])
def test_containers_that_are_none_are_named(tmp_path, name):
    (tmp_path / ("x" + name[name.index(".") :])).write_bytes(b"nothing of the kind" * 100)
    (found,) = list_items([str(tmp_path / name)])
    assert isinstance(found, Broken)
    assert name in f"{found.source} {found.reason}"


def test_a_worker_does_chunks_and_does_none_twice(finished, pictures, single, tmp_path):
    plan = Plan(Place(tmp_path))
    worker = Worker(job(finished, tmp_path))
    plan.write(chunks(list_items([str(pictures)])), worker.key)
    count = len(plan.keys)
    told = [worker({"chunk": np.array([i])}) for i in range(count)]
    assert sum(int(one["images"][0]) for one in told) == 30
    assert sum(int(one["failed"][0]) for one in told) == 1
    assert masks(tmp_path) == masks(single)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "masks").rglob("*.png")}
    again = worker({"chunk": np.array([0])})
    assert again["images"][0] == told[0]["images"][0]
    assert {path: path.stat().st_mtime_ns for path in made} == made
    # What is there and damaged, or gone, is done again; the rest of its chunk is left alone.
    damaged, gone = sorted(made)[:2]
    damaged.write_bytes(bytes(damaged.stat().st_size))
    gone.unlink()
    assert [plan.is_done(key) for key in plan.keys].count(False) == 1
    for index in range(count):
        worker({"chunk": np.array([index])})
    assert masks(tmp_path) == masks(single)
    assert {path for path in made if path.stat().st_mtime_ns != made[path]} == {damaged, gone}
    (tmp_path / plan.note(plan.keys[1])).write_text('{"name": "cut o')
    assert not plan.is_done(plan.keys[1])
    assert worker({"chunk": np.array([1])})["images"][0] == told[1]["images"][0]
    assert plan.is_done(plan.keys[1])


def test_a_picture_on_which_workers_die_is_put_aside(finished, pictures, tmp_path, monkeypatch):
    from tagmask.inference import ray_worker

    def poisoned(item, *how):
        if item.name == "a/004":
            raise KeyboardInterrupt
        return read_item(item, *how)

    monkeypatch.setattr(ray_worker, "read_item", poisoned)
    plan, worker = Plan(Place(tmp_path)), Worker(job(finished, tmp_path))
    plan.write(chunks(list_items([str(pictures)])), worker.key)
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            worker({"chunk": np.array([0])})
    told = worker({"chunk": np.array([0])})
    assert (told["images"][0], told["failed"][0]) == (7, 1)
    rows, failed, _ = read_note(plan.place, plan.note(plan.keys[0]))
    assert len(rows) == 7
    assert failed == [(str(pictures / "a" / "004.png"), "the worker that took it died, more than once")]
    assert _Tries(plan.place, f"bulk/tries/{plan.keys[0]}", "another").count == 1


def test_a_full_disk_ends_the_run_with_one_line(finished, pictures, tmp_path, monkeypatch):
    plan, worker = Plan(Place(tmp_path)), Worker(job(finished, tmp_path))
    plan.write(chunks(list_items([str(pictures)])), worker.key)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    told = worker({"chunk": np.array([0])})
    assert "No space left on device" in told["error"][0]
    monkeypatch.undo()
    assert worker({"chunk": np.array([0])})["error"][0] == ""


def test_without_ray_it_says_what_to_install(finished, pictures, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    done = tagmask("predict", finished, pictures, "--out", tmp_path / "o", "--engine=ray")
    assert done.exit_code == 2
    assert "pip install 'tagmask[ray]'" in done.stderr
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_two_workers_one_killed_give_the_masks_of_one_process(finished, pictures, single, tmp_path):
    pytest.importorskip("ray")
    out = tmp_path / "out"
    command = ("predict", finished, pictures, "--out", out, *FLAGS, "--workers=2", "--engine=ray")
    exit_code, said = struck(signal.SIGKILL, f"worker {tmp_path / 'killed'} 5", command)
    assert exit_code == 3, said
    assert "masks of 30 images" in said
    assert (tmp_path / "killed").exists()
    assert masks(out) == masks(single)
    assert summary(out) == summary(single)
    with (out / "failed.csv").open() as file:
        assert [row["source"] for row in csv.DictReader(file)] == [str(pictures / "a" / "broken.png")]
    # Nothing is left to do: no worker is started.
    again = tagmask(*command)
    assert "30 of them done before" in again.stdout or "31 of them done before" in again.stdout, again.output

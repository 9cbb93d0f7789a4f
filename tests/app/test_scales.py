"""The number to trust at the page, and tags repaired with one click."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest

from tagmask.app.decisions import Decision
from tagmask.app.desk import Desk
from tagmask.app.library import Folders, Library
from tagmask.app.routes import Routes
from tagmask.app.scales import Scales, tag_files
from tagmask.data import open_dataset
from tagmask.data.datasets.tagfile import read_tag_file
from tagmask.errors import ConfigError, DataError
from tagmask.store.files import write_json
from tagmask.store.labels import write_mask
from tests.app.conftest import CLASSES, ME


@pytest.fixture
def reviewed(desk, run, toy, tmp_path):
    """A desk whose run has a mask and signals of every training image, and doubts about two tags."""
    root = tmp_path / "data"
    dataset = open_dataset(root, "folder", "train")
    rng = np.random.default_rng(0)
    for index, name in enumerate(dataset.names):
        mask = np.zeros((64, 64), np.uint8)
        mask[8:40, 8:40] = 1 + index % len(CLASSES)
        write_mask(run / "masks" / f"{name}.png", mask)
        sure = float(rng.uniform(0.2, 0.8))
        record = {
            "name": name,
            "signals": {"overlap": sure},
            "areas": {str(index % len(CLASSES)): 0.25},
            "tags": list(dataset.items[index].tags or ()),
            "chances": [],
            "expected": {},
        }
        write_json(run / "review" / "signals" / f"{name}.json", record)
    first = dataset.items[0]
    held, lacking = CLASSES[first.tags[0]], next(c for k, c in enumerate(CLASSES) if k not in first.tags)
    lines = [
        "name,tag,perhaps,doubt,grade,probability,share of the mask",
        f"{first.name},{held},wrong,0.9,strong,0.1,0.0",
        f"{first.name},{lacking},missing,0.8,weak,0.8,0.1",
        f"gone,{held},wrong,0.7,weak,0.3,0.0",
    ]
    (run / "review" / "tag_doubts.csv").write_text("\n".join(lines) + "\n")
    library = Library(dataset, run, Folders.of([run, root]))
    return Desk(desk.lab, library, run, desk.inbox)


def accept(desk, names):
    for name in names:
        desk.decide(ME, Decision(name, "accepted", kept="mask"), None)


def test_nothing_is_said_before_ten_masks_are_checked(reviewed):
    scales = Scales(reviewed)
    names = [entry.name for entry in reviewed.library.entries]
    accept(reviewed, names[:9])
    told = scales.trust()
    assert (told["checked"], told["needed"], "images" in told) == (9, 10, False)
    assert sorted(told["draw"]) == sorted(names)


def test_checked_masks_say_what_the_others_have(reviewed):
    scales = Scales(reviewed)
    names = [entry.name for entry in reviewed.library.entries]
    accept(reviewed, names[:10])
    wrong = np.zeros((64, 64), np.uint8)
    wrong[:32] = 2
    reviewed.decide(ME, Decision(names[0], "accepted", kept="mended"), wrong)
    told = scales.trust()
    assert told["checked"] == 10
    assert set(told["images"]) == set(names)
    iou, low, high, checked = told["images"][names[0]]
    assert checked
    assert low == iou == high < 0.7
    iou, low, high, checked = told["images"][names[-1]]
    assert not checked
    assert 0 <= low <= iou <= high <= 1
    assert [row[0] for row in told["classes"]] == ["background", *CLASSES]
    assert json.loads(json.dumps(told)) == told
    assert "10 masks checked" in told["text"]
    before = told["iou"]
    reviewed.decide(ME, Decision(names[1], "rejected"), None)
    assert scales.trust()["checked"] == 9, "a rejected mask says nothing about its IoU"
    accept(reviewed, [names[1]])
    assert scales.trust()["iou"] == before


def test_strokes_alone_are_no_check(reviewed):
    scales = Scales(reviewed)
    names = [entry.name for entry in reviewed.library.entries]
    accept(reviewed, names[:10])
    strokes = np.full((64, 64), 255, np.uint8)
    strokes[4:8] = 1
    reviewed.decide(ME, Decision(names[0], "accepted", kept="scribbles"), strokes)
    assert scales.trust()["checked"] == 9


def test_a_click_repairs_the_tag_file_and_another_takes_it_back(reviewed, tmp_path):
    files = tag_files(reviewed.library.dataset.about, ("train", "val"))
    assert files
    routes = Routes(reviewed, "run", 0.5, None, files)
    told = routes.doubts(ME, {}, b"")
    assert told["mends"]
    assert [card["tagged"] for card in told["cards"]] == [True, False]
    name, tag = told["cards"][0]["name"], told["cards"][0]["tag"]

    def tags():
        rows = [row for path in files for row in read_tag_file(path)]
        return {row.image: row for row in rows}

    before = tags()
    key = next(image for image in before if name in image)
    answer = routes.mend(ME, {}, json.dumps({"name": name, "tag": tag, "present": False}).encode())
    assert CLASSES.index(tag) not in answer["tags"]
    assert tags()[key] != before[key]
    assert {image for image in before if tags()[image] != before[image]} == {key}
    assert not routes.doubts(ME, {}, b"")["cards"][0]["tagged"]
    assert routes.desk.library.tags(name) == tuple(answer["tags"])
    routes.mend(ME, {}, json.dumps({"name": name, "tag": tag, "present": True}).encode())
    assert routes.doubts(ME, {}, b"")["cards"][0]["tagged"]


@pytest.mark.parametrize("given", [{}, {"name": "x"}, {"name": "x", "tag": "dots", "present": 1}])
def test_a_repair_says_what_it_needs(reviewed, given):
    with pytest.raises(DataError):
        Routes(reviewed, "run", 0.5, None).mend(ME, {}, json.dumps(given).encode())


def test_without_a_tag_file_nothing_is_repaired(reviewed, tmp_path):
    name = reviewed.library.entries[0].name
    with pytest.raises(ConfigError, match="no tag file"):
        Scales(reviewed).mend_tag(name, "dots", True)
    outside = shutil.copytree(tmp_path / "data", tmp_path / "elsewhere") / "tags_train.csv"
    outside.write_text("image,tags\n")
    with pytest.raises(DataError, match="outside"):
        Scales(reviewed, (outside,)).mend_tag(name, "dots", True)
    with pytest.raises(DataError, match="no image 'gone'"):
        Scales(reviewed, (outside,)).mend_tag("gone", "dots", True)
    assert tag_files({"kind": "coco", "tags": str(outside)}, ("train",)) == ()
    assert list(csv.reader(outside.read_text().splitlines())) == [["image", "tags"]]

from __future__ import annotations

import csv
import io
import json
import shutil
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image

from tagmask.app.chores import Chores
from tagmask.app.decisions import Decision, Decisions
from tagmask.app.desk import Desk
from tagmask.app.lab import Controls, Lab
from tagmask.app.library import Folders, Library
from tagmask.app.pack import pack, unpack
from tagmask.app.pictures import shrunk_maps, thumbnail
from tagmask.data.classes import class_palette
from tagmask.data.readers.regular import Inside
from tagmask.errors import ConfigError, DataError, UserError
from tagmask.pipeline.config import read_config
from tagmask.store.labels import read_mask, write_mask
from tests.app.conftest import CLASSES, CONTROLS, ME, QUEUE, picture

server = pytest.importorskip("tagmask.app.server", reason="the extra app is not installed")


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def accepted(name="00012", kept="mask", **values):
    return Decision(name, "accepted", kept=kept, **values)


def opened(desk, name="00012"):
    return unpack(desk.image(ME, name))


def test_the_queue_comes_first_and_unlisted_images_follow(desk):
    about = desk.overview()
    assert about["names"] == [*QUEUE, "00013"]
    assert about["scores"] == [0.7, 0.6, 0.5, None]
    assert about["shown"] == [[1], [1], [1], []]
    assert about["colours"][:2] == ["#E69F00", "#56B4E9"]


def test_an_image_is_shown_from_what_the_run_stored(desk, monkeypatch):
    monkeypatch.setattr(desk.lab, "look", None)  # nothing is predicted
    head, arrays = opened(desk)
    assert (head["stored"], head["size"], head["why"]) == (True, [64, 64], "why 00012")
    assert head["tags"] == list(desk.library.tags("00012"))
    assert np.array_equal(arrays["masks"], read_mask(desk.library.mask("00012")))
    assert (arrays["map:cam"].shape, head["keys"]) == ((2, 48, 48), {"cam": [1, 2]})
    assert opened(desk, "00013")[0]["stored"] is False
    with Image.open(io.BytesIO(desk.picture(ME, "00012"))) as shown:
        assert (shown.format, shown.size) == ("JPEG", (64, 64))
    assert Image.open(io.BytesIO(desk.thumb(ME, "00012"))).size == (64, 64)


def test_a_look_is_quick_first_and_follows_the_tags(desk):
    for quick in (True, False):
        head, arrays = unpack(desk.look(ME, "00013", [1, 3], quick))
        assert (head["tags"], head["keys"]["cam"]) == ([1, 3], [1, 3])
        assert set(np.unique(arrays["now"])) <= {0, 2, 4}
        assert arrays["map:cam"].shape == (2, 48, 48)
    with pytest.raises(DataError, match="numbers from 0 to 4"):
        desk.look(ME, "00013", [5], True)


def test_refinement_starts_from_stored_maps_or_from_the_last_look(desk):
    areas = []
    for background in (0.2, 0.5, 0.8):
        label = unpack(desk.refine(ME, "00012", Controls("cam", background), False))[1]["label"]
        assert set(np.unique(label)) <= {0, 2, 3}
        areas.append(int((label > 0).sum()))
    assert areas[0] >= areas[1] > areas[2] > 0
    for method in ("par", "crf"):
        assert unpack(desk.refine(ME, "00012", Controls("cam", 0.5, method=method), False))[1]["label"].any()
    with pytest.raises(DataError, match="open it again"):
        desk.refine(ME, "00013", CONTROLS, True)
    desk.look(ME, "00013", [0], False)
    assert set(np.unique(unpack(desk.refine(ME, "00013", CONTROLS, True))[1]["label"])) <= {0, 1}
    with pytest.raises(UserError, match="no stored depth maps"):
        desk.refine(ME, "00012", Controls("depth"), False)


def test_accepting_writes_mask_decision_and_table_at_once(desk, run):
    desk.decide(ME, accepted(note=" fine "), None)
    kept = read_mask(run / "reviewed" / "masks" / "00012.png")
    assert np.array_equal(kept, read_mask(run / "masks" / "00012.png"))
    record = json.loads((run / "reviewed" / "decisions" / "00012.json").read_text())
    assert (record["verdict"], record["note"], record["kept"]) == ("accepted", "fine", "mask")
    assert table(run / "reviewed" / "decisions.csv")[0]["verdict"] == "accepted"
    desk.decide(ME, Decision("00012", "rejected"), None)
    assert not (run / "reviewed" / "masks" / "00012.png").exists()
    assert table(run / "reviewed" / "decisions.csv")[0]["verdict"] == "rejected"
    assert not list(run.rglob("*.partial*"))
    with pytest.raises(ConfigError, match="has no mask"):
        desk.decide(ME, accepted("00013"), None)


def test_a_correction_is_kept_in_the_images_size_with_its_unknown_pixels(desk, run):
    drawn = np.full((64, 64), 255, np.uint8)
    drawn[3:5, 3:9] = 2
    desk.decide(ME, accepted(kept="scribbles"), drawn)
    assert np.array_equal(read_mask(run / "reviewed" / "masks" / "00012.png"), drawn)
    head, arrays = opened(desk)
    assert (head["kept"], np.array_equal(arrays["corrected"], drawn)) == ("scribbles", True)
    desk.decide(ME, accepted(kept="pseudo label", settings=(("background", 0.3),)), drawn[::2, ::2])
    assert read_mask(run / "reviewed" / "masks" / "00012.png").shape == (64, 64)
    record = json.loads((run / "reviewed" / "decisions" / "00012.json").read_text())
    assert record["settings"] == {"background": 0.3}
    for wrong, said in ((np.full((64, 64), 6, np.uint8), "label 6"), (drawn[:, :20], "open it again"),
                        (np.zeros((0, 4), np.uint8), "height, width")):  # fmt: skip
        with pytest.raises(DataError, match=said):
            desk.decide(ME, accepted(kept="mended"), wrong)


def test_changes_are_taken_back_one_by_one(desk, run):
    kept = run / "reviewed" / "masks" / "00012.png"
    first = desk.decide(ME, accepted(), None)["version"]
    with pytest.raises(ConfigError, match="another window"):
        desk.undo(ME, "00012", first - 1)
    strokes = np.ones((64, 64), np.uint8)
    for count in (1, 2, 3):  # strokes of one mending are one step
        last = desk.decide(ME, accepted(kept="mended"), strokes * count, merge=count > 1)["version"]
    assert read_mask(kept).max() == 3
    back = desk.undo(ME, "00012", last)
    assert (back["verdict"], back["kept"]) == ("accepted", "mask")
    assert np.array_equal(read_mask(kept), read_mask(run / "masks" / "00012.png"))
    back = desk.undo(ME, "00012", back["version"])
    assert (back["verdict"], kept.exists(), opened(desk)[0]["verdict"]) == ("", False, "")
    assert table(run / "reviewed" / "decisions.csv") == []
    with pytest.raises(ConfigError, match="no change"):
        desk.undo(ME, "00012", back["version"])


def test_a_note_keeps_the_verdict_and_survives_a_restart(desk, run):
    desk.decide(ME, accepted(tags=("dots",)), None)
    desk.note(ME, "00012", "=1+1, ä")
    assert table(run / "reviewed" / "decisions.csv")[0]["note"].startswith("'=")
    again = Decisions(run / "reviewed").get("00012")
    assert (again.verdict, again.note, again.tags) == ("accepted", "=1+1, ä", ("dots",))
    with pytest.raises(DataError, match="no image 'passwd'"):
        desk.note(ME, "passwd", "x")


def test_uploads_are_decided_apart_from_the_run_and_seen_by_their_owner_alone(desk, run, tmp_path):
    content = picture(tmp_path / "mine.png").read_bytes()
    name = desk.upload(ME, "../mine.png", content)["name"]
    assert name.startswith("mine-")
    assert unpack(desk.image(ME, name))[0]["size"] == [40, 60]
    assert unpack(desk.look(ME, name, None, True))[1]["now"].shape == (32, 48)
    desk.decide(ME, accepted(name), np.ones((32, 48), np.uint8))
    assert read_mask(run / "reviewed" / "uploads" / "masks" / f"{name}.png").shape == (40, 60)
    assert not (run / "reviewed" / "masks").exists()
    for call in (desk.image, desk.picture, desk.thumb):
        with pytest.raises(DataError, match="no image"):
            call("o" * 43, name)
    with pytest.raises(DataError, match="open the page first"):
        desk.upload("", "mine.png", content)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "empty"), (b"GIF89a", "cannot be decoded|not a picture"), (b"<svg/>", "not a picture"),
     (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "cannot be decoded|not a picture")],
)  # fmt: skip
def test_malformed_uploads_are_refused(desk, content, said):
    with pytest.raises(DataError, match=f"bad.png.*({said})") as caught:
        desk.upload(ME, "bad.png", content)
    assert str(desk.inbox) not in str(caught.value)
    assert not [path for path in desk.inbox.rglob("*") if path.is_file()]


def test_no_file_outside_the_folders_is_read(desk, run, tmp_path):
    secret = picture(tmp_path / "secret.png", (64, 64))
    (run / "masks" / "00013.png").symlink_to(secret)
    with pytest.raises(DataError, match=r"'00013.png' is outside the folders"):
        opened(desk, "00013")
    image = desk.library.image("00014")
    assert desk.library.elsewhere() == ()
    image.unlink()
    image.symlink_to(secret)
    with pytest.raises(DataError, match="is outside the folders"):
        desk.picture(ME, "00014")
    assert desk.library.elsewhere() == (tmp_path.resolve(),)
    for name in ("../../etc/passwd", "/etc/passwd", "..\\x", ""):
        with pytest.raises(DataError, match="no image"):
            opened(desk, name)


def test_a_linked_image_folder_opens_once_its_target_is_allowed(model, toy, run, tmp_path, monkeypatch):
    root, away = shutil.copytree(toy, tmp_path / "data"), tmp_path / "disk" / "photographs"
    away.parent.mkdir()
    (root / "images").rename(away)
    (root / "images").symlink_to(away)
    config = read_config(None, {"data.root": root})
    said: list[str] = []
    assert server._images(config, CLASSES, said.append)[0] is None
    assert f"TAGMASK_ALLOW={away}; or start the app with --allow and that folder" in said[0]
    monkeypatch.setenv("TAGMASK_ALLOW", str(away))
    dataset, _ = server._images(config, CLASSES, said.append)
    library = Library(dataset, run, Folders.of([run, root, *Inside(()).roots]))
    assert library.elsewhere() == ()
    shown = Desk(Lab(model, max_side=48), library, run, tmp_path / "inbox").picture(ME, "00012")
    assert shown[:2] == b"\xff\xd8"
    assert len(said) == 1
    assert Library(dataset, run, Folders.of([run, root])).elsewhere() == (away.resolve(),)


def test_nothing_is_written_through_a_link(desk, run, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (run / "reviewed").mkdir()
    (run / "reviewed" / "masks").symlink_to(outside)
    with pytest.raises(DataError, match="outside reviewed"):
        desk.decide(ME, accepted(), None)
    assert list(outside.iterdir()) == []


def test_many_hands_write_whole_files(desk: Desk, run):
    names = ("00012", "00013", "00014", "00015")
    mask, problems = np.ones((64, 64), np.uint8), []

    def work(name, verdict):
        try:
            kept = "mended" if verdict == "accepted" else ""
            decision = Decision(name, verdict, f"by {verdict}", kept)
            desk.decide(ME, decision, mask if kept else None)
        except Exception as error:
            problems.append(error)

    hands = [threading.Thread(target=work, args=(n, v)) for n in names for v in ("accepted", "rejected")]
    for hand in hands:
        hand.start()
    for hand in hands:
        hand.join()
    assert problems == []
    rows = table(run / "reviewed" / "decisions.csv")
    assert [row["name"] for row in rows] == sorted(names)
    for row in rows:
        kept = (run / "reviewed" / "masks" / f"{row['name']}.png").exists()
        assert kept == (row["verdict"] == "accepted")
        assert row["note"] == f"by {row['verdict']}"


def test_strokes_spread_and_regions_cover_the_picture(desk):
    chores = Chores(desk)
    found = unpack(chores.regions(ME, "00012"))[1]["regions"]
    assert (found.shape, found.any()) == ((64, 64, 2), True)
    strokes = np.full((64, 64), 255, np.uint8)
    with pytest.raises(DataError, match="nothing is marked"):
        chores.spread(ME, "00012", strokes, None)
    strokes[30:33, 20:40], strokes[:3] = 2, 0
    spread = unpack(chores.spread(ME, "00012", strokes, None))[1]["spread"]
    assert set(np.unique(spread)) == {0, 2}
    assert (spread[strokes == 2] == 2).all()
    with pytest.raises(DataError, match="another size"):
        chores.spread(ME, "00012", strokes[:4], None)


def test_kept_masks_are_exported_as_annotation_tools_read_them(desk):
    chores = Chores(desk)
    with pytest.raises(ConfigError, match="no mask is accepted"):
        chores.export("coco")
    desk.decide(ME, accepted(), None)
    name, content = chores.export("coco")
    assert name == "reviewed-coco.zip"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (file,) = [one for one in archive.namelist() if one.endswith(".json")]
        assert len(json.loads(archive.read(file))["annotations"]) == 1
    with pytest.raises(UserError, match="unknown format"):
        chores.export("paint")


def test_damaged_files_are_named(desk, run):
    (run / "reviewed" / "decisions").mkdir(parents=True)
    (run / "reviewed" / "decisions" / "x.json").write_text("{")
    with pytest.raises(DataError, match=r"x.json is damaged"):
        Decisions(run / "reviewed")
    write_mask(run / "masks" / "00012.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(DataError, match="make it again"):
        desk.decide(ME, accepted(), None)


def test_too_many_waiting_are_sent_away(desk, monkeypatch):
    monkeypatch.setattr(desk.lab, "_places", threading.BoundedSemaphore(1))
    with desk.lab._turn(), pytest.raises(DataError, match="others are waiting"):
        desk.look(ME, "00012", None, True)
    assert unpack(desk.look(ME, "00012", [1], True))[0]["tags"] == [1]


def test_packs_are_read_back_and_damaged_ones_refused():
    arrays = {"a": np.arange(6, dtype=np.uint8).reshape(2, 3), "b": np.zeros((1, 2, 2), np.uint8)}
    head, found = unpack(pack({"name": "ä"}, arrays))
    assert head == {"name": "ä"}
    assert all(np.array_equal(found[key], arrays[key]) for key in arrays)
    whole = pack({}, arrays)
    for broken in (b"", whole[:3], whole[:-1], b"\xff\xff\xff\xff", whole.replace(b"[2,3]", b"[9,9]"),
                   whole.replace(b"[2,3]", b"[-2]"), whole.replace(b'"arrays"', b'"arrayz"')):  # fmt: skip
        with pytest.raises(DataError, match="cannot be read"):
            unpack(broken)


def test_maps_become_bytes_and_thumbnails_take_the_classes_colours():
    levels = shrunk_maps(np.array([[[0.0, 0.5], [1.0, 2.0]]]), 10)
    assert levels.tolist() == [[[0, 128], [255, 255]]]
    assert shrunk_maps(np.zeros((2, 20, 10)), 5).shape == (2, 5, 2)
    assert shrunk_maps(np.zeros((0, 20, 10)), 5).shape == (0, 20, 10)
    black = Image.new("RGB", (40, 20))
    content = thumbnail(black, np.ones((10, 20), np.uint8), class_palette(), 40)
    middle = np.asarray(Image.open(io.BytesIO(content)), float)[10, 20]
    assert np.abs(middle - 0.55 * class_palette()[1]).max() < 6
    assert CLASSES[0] == "stripes"

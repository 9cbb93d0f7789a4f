from __future__ import annotations

import csv
import json
import threading

import numpy as np
import pytest

from tagmask.app.decisions import Decisions
from tagmask.app.desk import Desk, Visit
from tagmask.app.lab import Controls
from tagmask.errors import DataError, UserError
from tagmask.store.labels import read_mask
from tests.app.conftest import CONTROLS, QUEUE, picture


def opened(desk, name="00012"):
    return desk.open(Visit(), name, CONTROLS)


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_queue_comes_first_and_unlisted_images_follow(desk):
    assert [entry.name for entry in desk.library.entries] == [*QUEUE, "00013"]
    assert (desk.beside("00014", 1), desk.beside("00014", -1), desk.beside("00013", 1)) == (
        "00012", None, None,
    )  # fmt: skip


def test_an_image_opens_with_its_tags_and_the_runs_own_mask(desk):
    view = opened(desk).view
    assert view.tags == desk.library.tags("00012")
    assert (view.stored, view.mask.shape, view.pixels.shape) == (True, (64, 64), (48, 48, 3))
    assert view.maps["cam"].shape == (len(view.keys), 48, 48)
    assert opened(desk, "00013").view.stored is False


def test_other_tags_make_other_maps_and_a_new_mask(desk):
    visit = desk.retag(opened(desk), ["rings", "dots", "no such class"], CONTROLS)
    assert visit.view.keys == visit.view.tags == (1, 3)
    assert visit.view.stored is False
    assert set(np.unique(visit.view.mask)) <= {0, 2, 4}
    none = desk.retag(visit, [], CONTROLS).view
    assert (none.keys, none.label.max(), none.mask.max()) == ((), 0, 0)


def test_thresholds_and_refinement_change_the_pseudo_label_alone(desk):
    visit = desk.retag(opened(desk), ["dots"], CONTROLS)
    areas = []
    for background in (0.2, 0.5, 0.8):
        view = desk.relabel(visit, Controls("cam", background)).view
        areas.append(int((view.label == 2).sum()))
        assert view.mask is visit.view.mask
    assert areas[0] > areas[1] > areas[2] > 0
    assert 255 in desk.relabel(visit, Controls("cam", 0.5, band=0.4)).view.label
    refined = [desk.relabel(visit, Controls("cam", 0.5, method=m)).view.label for m in ("par", "crf")]
    assert all(label.shape == (48, 48) for label in refined)
    with pytest.raises(UserError, match="no 'depth' maps; choose one of cam"):
        desk.relabel(visit, Controls("depth"))


def test_accepting_writes_mask_decision_and_table_at_once(desk, run):
    visit = opened(desk)
    desk.decide(visit, "00012", "accepted", " fine ", "mask", CONTROLS)
    kept = read_mask(run / "reviewed" / "masks" / "00012.png")
    assert np.array_equal(kept, read_mask(run / "masks" / "00012.png"))
    record = json.loads((run / "reviewed" / "decisions" / "00012.json").read_text())
    assert (record["verdict"], record["note"], record["kept"]) == ("accepted", "fine", "mask")
    assert table(run / "reviewed" / "decisions.csv")[0]["verdict"] == "accepted"
    desk.decide(visit, "00012", "rejected", "", "mask", CONTROLS)
    assert not (run / "reviewed" / "masks" / "00012.png").exists()
    assert table(run / "reviewed" / "decisions.csv")[0]["verdict"] == "rejected"
    assert not list(run.rglob("*.partial*"))


def test_an_accepted_pseudo_label_has_the_images_size_and_its_settings(desk, run):
    visit = desk.relabel(opened(desk), Controls("lam", 0.3))
    desk.decide(visit, "00012", "accepted", "", "pseudo label", Controls("lam", 0.3))
    assert read_mask(run / "reviewed" / "masks" / "00012.png").shape == (64, 64)
    record = json.loads((run / "reviewed" / "decisions" / "00012.json").read_text())
    assert (record["settings"]["maps"], record["settings"]["background"]) == ("lam", 0.3)


def test_a_note_keeps_the_verdict_and_survives_a_restart(desk, run):
    visit = opened(desk)
    desk.decide(visit, "00012", "accepted", "", "mask", CONTROLS)
    assert desk.note(visit, "00012", "=1+1, ä") is True
    assert desk.note(visit, "00012", "=1+1, ä") is False
    assert table(run / "reviewed" / "decisions.csv")[0]["note"].startswith("'=")
    again = Decisions(run / "reviewed").get("00012")
    assert (again.verdict, again.note, again.tags) == (
        "accepted",
        "=1+1, ä",
        desk.decisions.get("00012").tags,
    )


def test_only_the_open_image_is_decided(desk, run):
    with pytest.raises(DataError, match="still being opened"):
        desk.decide(opened(desk), "00013", "accepted", "", "mask", CONTROLS)
    with pytest.raises(DataError, match="no image 'passwd'"):
        desk.note(opened(desk), "passwd", "x")
    assert not (run / "reviewed").exists()


def test_a_download_is_the_mask_file_and_leaves_a_copy(desk, run):
    name, content = desk.download(opened(desk), "00012", "mask")
    assert name == "00012-mask.png"
    assert (run / "reviewed" / "downloads" / name).read_bytes() == content
    assert np.array_equal(
        read_mask(run / "reviewed" / "downloads" / name), read_mask(run / "masks" / "00012.png")
    )


def test_uploads_are_opened_and_decided_apart_from_the_run(desk, run):
    good = picture(desk.inbox / "a" / "mine.png")
    visit, names, problems = desk.upload(Visit(), [good])
    assert (len(names), problems) == (1, [])
    visit = desk.open(visit, names[0], CONTROLS)
    assert visit.view.size == (40, 60)
    desk.decide(visit, names[0], "accepted", "", "mask", CONTROLS)
    assert read_mask(run / "reviewed" / "uploads" / "masks" / f"{names[0]}.png").shape == (40, 60)
    assert not (run / "reviewed" / "masks").exists()
    with pytest.raises(DataError, match="no image"):
        desk.open(Visit(), names[0], CONTROLS)  # another visitor


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "empty"), (b"GIF89a", "cannot be decoded|not a picture"), (b"<svg/>", "not a picture"),
     (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "cannot be decoded|not a picture")],
)  # fmt: skip
def test_malformed_uploads_are_refused_and_the_rest_is_taken(desk, content, said):
    bad, good = desk.inbox / "bad.png", picture(desk.inbox / "good.png")
    bad.write_bytes(content)
    _, names, problems = desk.upload(Visit(), [bad, good])
    assert [name.split("-")[0] for name in names] == ["good"]
    assert len(problems) == 1
    assert any(word in problems[0] for word in said.split("|"))
    assert str(desk.inbox) not in problems[0]


def test_no_file_outside_the_folders_is_read(desk, run, tmp_path):
    secret = picture(tmp_path / "secret.png", (64, 64))
    _, names, problems = desk.upload(Visit(), [secret])
    assert names == []
    assert "was not uploaded here" in problems[0]
    (desk.inbox / "link.png").symlink_to(secret)
    assert desk.upload(Visit(), [desk.inbox / "link.png"])[1] == []
    (run / "masks" / "00013.png").symlink_to(secret)
    with pytest.raises(DataError, match=r"'00013.png' lies outside the folders"):
        opened(desk, "00013")
    image = desk.library.image("00014")
    image.unlink()
    image.symlink_to(secret)
    with pytest.raises(DataError, match="lies outside the folders"):
        opened(desk, "00014")
    for name in ("../../etc/passwd", "/etc/passwd", "..\\x", ""):
        with pytest.raises(DataError, match="no image"):
            opened(desk, name)


def test_nothing_is_written_through_a_link(desk, run, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (run / "reviewed").mkdir()
    (run / "reviewed" / "masks").symlink_to(outside)
    with pytest.raises(DataError, match="outside reviewed"):
        desk.decide(opened(desk), "00012", "accepted", "", "mask", CONTROLS)
    assert list(outside.iterdir()) == []


def test_many_hands_write_whole_files(desk: Desk, run):
    visits = {name: opened(desk, name) for name in ("00012", "00013", "00014", "00015")}
    problems = []

    def work(name, verdict):
        try:
            desk.decide(visits[name], name, verdict, f"by {verdict}", "mask", CONTROLS)
        except Exception as error:
            problems.append(error)

    hands = [threading.Thread(target=work, args=(n, v)) for n in visits for v in ("accepted", "rejected")]
    for hand in hands:
        hand.start()
    for hand in hands:
        hand.join()
    assert problems == []
    rows = table(run / "reviewed" / "decisions.csv")
    assert [row["name"] for row in rows] == sorted(visits)
    for row in rows:
        kept = (run / "reviewed" / "masks" / f"{row['name']}.png").exists()
        assert kept == (row["verdict"] == "accepted")
        assert row["note"] == f"by {row['verdict']}"


def test_damaged_files_are_named(desk, run):
    (run / "reviewed" / "decisions").mkdir(parents=True)
    (run / "reviewed" / "decisions" / "x.json").write_text("{")
    with pytest.raises(DataError, match=r"x.json is damaged"):
        Decisions(run / "reviewed")


def test_too_many_waiting_are_sent_away(desk, monkeypatch):
    visit = opened(desk)
    monkeypatch.setattr(desk.lab, "_places", threading.BoundedSemaphore(1))
    with desk.lab._turn(), pytest.raises(DataError, match="others are waiting"):
        desk.retag(visit, ["dots"], CONTROLS)
    assert desk.retag(visit, ["dots"], CONTROLS).view.tags == (1,)

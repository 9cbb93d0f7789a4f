"""What lies in a run folder is used because it is whole, not because it is there."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tagmask.store.labels import read_mask
from tagmask.store.maps import load_maps, save_maps
from tests.cli import TINY, tagmask, train_args
from tests.cli.test_journey import NAMES, manifest


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def whole(run: Path) -> bool:
    result = tagmask("check", run)
    assert result.exit_code in (0, 3), result.output
    return result.exit_code == 0


def repaint(path: Path, value: int) -> None:
    """What a person does with a paint program: another mask, well-formed."""
    with Image.open(path) as old:
        new = Image.fromarray(np.full((old.height, old.width), value, np.uint8))
        new.putpalette(old.getpalette() or [])
    new.save(path)


MADE = [
    "maps/cam/00013.npz", "maps/lam/00014.npz", "labels/00013.png", "masks/00014.png", "scores/val-cam.json",
    "report.html", "model/weights.safetensors", "model/meta.json",
]  # fmt: skip
DAMAGE = {
    "zeroed": lambda path, _: path.write_bytes(bytes(path.stat().st_size)),
    "emptied": lambda path, _: path.write_bytes(b""),
    "cut": lambda path, _: path.write_bytes(path.read_bytes()[:-9]),
    "swapped": lambda path, other: path.write_bytes(other.read_bytes()),
    "deleted": lambda path, _: path.unlink(),
}


def other_file(path: Path) -> Path:
    beside = [p for p in sorted(path.parent.iterdir()) if p.is_file() and p != path]
    return beside[0] if beside else path.parent.parent / "run.json"


@pytest.mark.parametrize("damage", DAMAGE)
def test_every_damaged_output_is_named_and_made_again(finished, run, damage):
    assert whole(run)
    for name in MADE:
        DAMAGE[damage](run / name, other_file(finished / name))
        result = tagmask("check", run)
        assert result.exit_code == 3
        assert name in result.stdout
    again = tagmask("run", run, "--out", run)
    assert again.exit_code == 0, again.stderr
    for name in MADE:
        if name != "report.html" and not name.startswith("scores"):
            assert (run / name).read_bytes() == (finished / name).read_bytes(), name
    assert json.loads((run / "scores/val-cam.json").read_text())["miou"] == pytest.approx(
        json.loads((finished / "scores/val-cam.json").read_text())["miou"]
    )
    assert whole(run), tagmask("check", run).stdout


def test_only_the_damaged_files_are_made_again(run):
    before = {p: p.stat().st_mtime_ns for p in (run / "masks").iterdir()}
    (run / "masks" / f"{NAMES[1]}.png").unlink()
    done = tagmask("segment", run)
    assert done.exit_code == 0
    assert f"masks/{NAMES[1]}.png (missing)" in done.stderr
    after = {p: p.stat().st_mtime_ns for p in (run / "masks").iterdir()}
    assert {p.stem for p in before if after[p] != before[p]} == {NAMES[1]}


def test_a_log_that_was_damaged_is_named_where_it_is_shown(run):
    (run / "train" / "log.csv").write_text("step,loss\n1,x\n")
    assert "train/log.csv: changed" in tagmask("check", run).stdout
    page = tagmask("report", run)
    assert page.exit_code == 2
    assert "train/log.csv is damaged" in page.stderr


def test_scores_are_of_what_is_there(run):
    (run / "masks" / f"{NAMES[0]}.png").unlink()
    refused = tagmask("evaluate", run)
    assert refused.exit_code == 2
    assert f"{NAMES[0]}.png" in refused.stderr
    shutil.copy(run / "masks" / f"{NAMES[2]}.png", run / "masks" / f"{NAMES[0]}.png")
    before = json.loads((run / "scores" / "val-segmentation.json").read_text())
    scored = tagmask("evaluate", run)
    assert scored.exit_code == 0, scored.stderr
    assert f"masks/{NAMES[0]}.png (changed) since segment made them; used as they are" in scored.stderr
    after = json.loads((run / "scores" / "val-segmentation.json").read_text())
    assert (before["changed_files"], after["changed_files"]) == (0, 1)
    # Maps that were swapped are seen by the step that reads them.
    shutil.copy(run / "maps" / "cam" / f"{NAMES[1]}.npz", run / "maps" / "cam" / f"{NAMES[0]}.npz")
    refined = tagmask("refine", run)
    assert "done before" not in refined.stderr
    assert f"maps/cam/{NAMES[0]}.npz (changed)" in refined.stderr


def test_a_label_that_was_changed_is_made_again_and_the_changed_one_kept(finished, run):
    label = run / "labels" / f"{NAMES[0]}.png"
    repaint(label, 1)
    (run / "labels" / f"{NAMES[1]}.png").write_bytes(b"")
    again = tagmask("run", run, "--out", run)
    assert again.exit_code == 0, again.stderr
    for name in NAMES:
        assert (run / "labels" / f"{name}.png").read_bytes() == (
            finished / "labels" / f"{name}.png"
        ).read_bytes()
    kept = run / "changed" / "labels"
    assert [p.name for p in kept.iterdir()] == [f"{NAMES[0]}.png"]
    assert np.all(read_mask(kept / f"{NAMES[0]}.png") == 1)


def test_masks_corrected_by_hand_are_never_lost_and_never_taken_for_the_models(finished, run):
    mask = run / "masks" / f"{NAMES[0]}.png"
    for round_, value in ((1, 2), (2, 3)):
        repaint(mask, value)
        again = tagmask("segment", run)
        assert again.exit_code == 0, again.stderr
        assert "1 changed by hand, kept in" in again.stderr
        assert mask.read_bytes() == (finished / "masks" / f"{NAMES[0]}.png").read_bytes()
        assert len(list((run / "changed" / "masks").iterdir())) == round_
    repaint(mask, 4)
    other = tagmask("segment", run, "--size", "48")
    assert other.exit_code == 0, other.stderr
    assert len(list((run / "changed" / "masks").iterdir())) == 3


def test_a_run_without_its_manifest_begins_anew_only_when_told(run):
    (run / "run.json").unlink()
    assert tagmask("check", run).exit_code == 3
    refused = tagmask("run", run, "--out", run)
    assert refused.exit_code == 2
    assert "--overwrite" in refused.stderr
    assert (run / "model" / "weights.safetensors").is_file()
    (run / "run.json").write_text("{")
    damaged = tagmask("run", run, "--out", run)
    assert "run.json is damaged" in damaged.stderr
    assert "--overwrite" in damaged.stderr
    (run / "run.json").unlink()
    done = tagmask("run", run, "--out", run, "--overwrite")
    assert done.exit_code == 0, done.stderr
    assert [step["status"] for step in manifest(run).values()] == ["done"] * 7
    assert whole(run)


def test_check_knows_what_is_stale_and_what_is_unfinished(run):
    assert tagmask("localize", run, "--size", "48").exit_code == 0
    stale = tagmask("check", run)
    assert stale.exit_code == 3
    assert "refine: maps is not what it was made from" in stale.stdout
    assert tagmask("run", run, "--out", run).exit_code == 0
    assert whole(run)
    (run / ".unfinished" / "segment").mkdir(parents=True)
    (run / ".unfinished" / "segment" / "attempt.json").write_text('{"settings": {}, "inputs": {}}')
    assert "segment: begun and not finished" in tagmask("check", run).stdout


def test_check_of_a_model_that_was_replaced(run, tmp_path, toy):
    other = tmp_path / "other"
    assert tagmask(*train_args(toy, other, 1)).exit_code == 0
    shutil.copy(other / "model" / "weights.safetensors", run / "model" / "weights.safetensors")
    found = tagmask("check", run).stdout
    assert "model/weights.safetensors: changed" in found
    assert "segment: model is not what it was made from" in found


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_maps_that_are_not_finite_are_refused_by_name(run, value):
    path = next(p for p in sorted((run / "maps" / "cam").iterdir()) if len(load_maps(p).keys))
    good = load_maps(path)
    with np.load(path) as old:
        np.savez(
            path.with_suffix(""), maps=np.full_like(old["maps"], value), keys=old["keys"], size=old["size"]
        )
    for command in (("evaluate", run), ("refine", run), ("report", run), ("review", run)):
        result = tagmask(*command)
        assert result.exit_code == 2, result.output
        assert f"{path.name} holds values that are not finite" in result.stderr
    save_maps(path, good.maps, good.keys + 9, good.size)
    for command in (("evaluate", run), ("refine", run)):
        result = tagmask(*command)
        assert result.exit_code == 2, result.output
        assert f"{path.name} holds maps of classes" in result.stderr


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"what": "cam"}'])
def test_scores_that_were_cut_are_named(run, text):
    (run / "scores" / "val-cam.json").write_text(text)
    result = tagmask("report", run)
    assert result.exit_code == 2
    assert "val-cam.json is damaged" in result.stderr


def test_the_data_set_is_scanned_once_for_each_part(toy, tmp_path, monkeypatch):
    from tagmask.data import parts

    scans, real = [], parts.scan_dataset

    def counted(kind, source):
        scans.append((source.split, source.masks))
        return real(kind, source)

    monkeypatch.setattr(parts, "scan_dataset", counted)
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text("method: more\n")
    flags = [flag for flag in TINY if not flag.startswith("--method")]
    flags = [flag.replace("--size=", "--set=train.size=").replace("--batch-size=", "--set=train.batch_size=")
             for flag in flags]  # fmt: skip
    done = tagmask("run", recipe, "--data", toy, "--out", tmp_path / "run", "--iterations", "2", *flags)
    assert done.exit_code == 0, done.stderr
    assert len(manifest(tmp_path / "run")) == 7
    assert sorted(scans) == [("train", False), ("val", True)]


def test_a_run_works_from_any_folder_and_says_what_to_do_when_data_has_moved(toy, tmp_path, monkeypatch):
    data = shutil.copytree(toy, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    trained = tagmask(*train_args(Path("data"), Path("run"), 2), "--masks", "data/masks")
    assert trained.exit_code == 0, trained.stderr
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for step in ("segment", "evaluate"):
        done = tagmask(step, os.path.relpath(tmp_path / "run"))
        assert done.exit_code == 0, done.stderr
    moved = data.rename(tmp_path / "moved")
    lost = tagmask("segment", tmp_path / "run", "--size", "48")
    assert lost.exit_code == 2
    assert "--data DIR" in lost.stderr
    assert tagmask("segment", tmp_path / "run", "--data", moved).exit_code == 0
    assert tagmask("segment", tmp_path / "run").exit_code == 2, "flags count once"
    assert tagmask("set", tmp_path / "run", f"data.root={moved}", f"data.masks={moved}/masks").exit_code == 0
    assert tagmask("segment", tmp_path / "run").exit_code == 0


def test_a_training_whose_files_are_all_gone_is_done_with_what_is_asked_now(run, toy):
    shutil.rmtree(run / "train")
    shutil.rmtree(run / "model")
    done = tagmask(*train_args(toy, run, 2))
    assert done.exit_code == 0, done.stderr
    record = manifest(run)["train"]
    assert (record["status"], record["settings"]["iterations"], record["results"]["iterations"]) == (
        "done",
        2,
        2,
    )


def test_overwrite_begins_an_unfinished_training_anew(run, toy, monkeypatch):
    from tagmask.steps import fitting

    same = train_args(toy, run, 3, "--set=train.eval_every=2", "--set=train.save_every=2")
    (run / "model" / "weights.safetensors").unlink()
    refused = tagmask(*same)
    assert refused.exit_code == 2
    assert "--resume" in refused.stderr
    monkeypatch.setattr(fitting.Checkpoints, "newest", lambda self: pytest.fail("it went on"))
    anew = tagmask(*same, "--overwrite")
    assert anew.exit_code == 0, anew.stderr
    assert manifest(run)["train"]["status"] == "done"
    assert whole(run), "the same training gives the same model"

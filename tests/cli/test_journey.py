from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from tagmask.store.labels import read_mask
from tagmask.store.maps import load_maps
from tests.cli import tagmask, train_args

NAMES = [f"{i:05d}" for i in range(12, 16)]


def manifest(folder):
    return json.loads((folder / "run.json").read_text())["steps"]


def test_every_step_leaves_what_it_promises(finished):
    assert [s["status"] for s in manifest(finished).values()] == ["done"] * 7
    for kind in ("cam", "aux_cam", "lam"):
        maps = [load_maps(finished / "maps" / kind / f"{name}.npz") for name in NAMES]
        assert all(m.maps.shape == (len(m.keys), 64, 64) for m in maps)
        assert all(0 <= m.maps.min() <= m.maps.max() <= 1 for m in maps if len(m.keys))
    for folder, allowed in (("labels", {*range(6), 255}), ("masks", set(range(6)))):
        for name in NAMES:
            mask = read_mask(finished / folder / f"{name}.png")
            assert mask.shape == (64, 64)
            assert set(np.unique(mask).tolist()) <= allowed
    log = (finished / "train" / "log.csv").read_text().splitlines()
    assert log[0].startswith("step,loss,")
    assert [line.split(",")[0] for line in log[1:]] == ["1", "2", "3"]
    head = (finished / "train" / "scores.csv").read_text().splitlines()[0]
    assert head == "step,cam,lam,segmentation,doubts"


def test_score_files_say_where_the_figures_come_from(finished):
    files = {p.stem: json.loads(p.read_text()) for p in (finished / "scores").glob("*.json")}
    whats = ["aux_cam", "cam", "fused", "label", "lam", "segmentation"]
    assert sorted(files) == [f"val-{what}" for what in whats]
    model = manifest(finished)["localize"]["inputs"]["model"]
    for record in files.values():
        assert record["images"] == 4
        assert record["model"] == model
        assert record["absent_policy"] == "skip_truth"
        assert record["classes"][0] == "background"
        assert set(record["iou"]) == set(record["precision"]) == set(record["classes"])
        assert record["version"]
    cam = files["val-cam"]
    assert (cam["tags"], cam["threshold"], cam["threshold_source"]) == ("ground truth", 0.5, "fixed")
    assert cam["scales"] == [1.0, 0.5]
    assert cam["flip"] is True
    at_half = cam["curve"]["thresholds"].index(0.5)
    assert cam["miou"] == pytest.approx(cam["curve"]["miou"][at_half], abs=1e-6)
    assert files["val-segmentation"]["tags"] == "none"
    assert files["val-label"]["undecided_pixels"] == "background"
    assert files["val-label"]["refined"]["method"] == "par"


def test_report_is_one_file_that_asks_for_nothing(finished):
    page = (finished / "report.html").read_text()
    assert len(page) < 6_000_000
    assert not re.search(r"(src|href)=[\"'](?!data:|#)", page)
    assert "<script src" not in page
    images = re.findall(r"<img [^>]*>", page)
    assert len(images) > 20
    assert all(re.search(r'alt="[^"]+"', image) for image in images)
    for words in (
        "pseudo label",
        "prediction",
        "truth",
        "Artifacts of the maps",
        "Class tokens",
        "Mean IoU while",
    ):
        assert words in page


def test_the_same_command_does_nothing_twice(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*.png")}
    again = tagmask("run", run, "--out", run)
    assert again.exit_code == 0, again.stderr
    assert again.stderr.count("done before, unchanged") == 7
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*.png")} == before


def test_a_changed_setting_redoes_what_depends_on_it_and_no_more(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    again = tagmask("run", run, "--out", run, "--set", "refine.background=0.4")
    lines = again.stderr.splitlines()
    assert [line.split(":")[0] for line in lines if "unchanged" in line] == ["train", "localize", "segment"]
    assert manifest(run)["refine"]["settings"]["background"] == 0.4
    labels = np.concatenate([read_mask(run / "labels" / f"{n}.png").ravel() for n in NAMES])
    assert 255 not in labels


def test_a_lost_output_is_made_again(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    wanted = (run / "masks" / f"{NAMES[1]}.png").read_bytes()
    (run / "masks" / f"{NAMES[1]}.png").unlink()
    assert tagmask("segment", run).exit_code == 0
    assert (run / "masks" / f"{NAMES[1]}.png").read_bytes() == wanted


def test_training_is_not_thrown_away_unasked(finished, tmp_path, toy):
    run = shutil.copytree(finished, tmp_path / "run")
    other = tagmask(*train_args(toy, run, 4))
    assert other.exit_code == 2
    assert "differs in iterations (was 3)" in other.stderr
    replaced = tagmask(*train_args(toy, run, 4, "--overwrite"))
    assert replaced.exit_code == 0, replaced.stderr
    assert manifest(run)["train"]["results"]["iterations"] == 4


def test_a_model_folder_works_on_new_images_without_masks_or_tags(finished, tmp_path, toy):
    images = tmp_path / "new"
    images.mkdir()
    for name in NAMES[:2]:
        shutil.copy(toy / "images" / f"{name}.png", images)
    shutil.copy(toy / "classes.txt", images)
    out = tmp_path / "out"
    flags = ("--data", images, "--tags", "none", "--out", out)
    segmented = tagmask("segment", finished / "model", *flags)
    assert segmented.exit_code == 0, segmented.stderr
    assert sorted(p.name for p in (out / "masks").iterdir()) == [f"{n}.png" for n in NAMES[:2]]
    same = read_mask(finished / "masks" / f"{NAMES[0]}.png")
    assert np.array_equal(read_mask(out / "masks" / f"{NAMES[0]}.png"), same)
    untagged = tagmask("localize", finished / "model", *flags)
    assert untagged.exit_code == 2
    assert "localize.tags=classifier" in untagged.stderr
    predicted = tagmask("localize", finished / "model", *flags, "--set", "localize.tags=classifier")
    assert predicted.exit_code == 0, predicted.stderr


@pytest.mark.parametrize("method", ["crf", "none"])
def test_refinement_by_other_means(finished, tmp_path, method):
    run = shutil.copytree(finished, tmp_path / "run")
    result = tagmask("refine", run, "--refinement", method)
    assert result.exit_code == 0, result.stderr
    masks = [np.asarray(Image.open(run / "labels" / f"{name}.png")) for name in NAMES]
    assert {255} < set(np.unique(masks).tolist())


def test_several_views_and_crf_of_the_segmentation(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    result = tagmask("segment", run, "--scales", "1,1.5", "--flip", "--crf", "more", "--resize", "64")
    assert result.exit_code == 0, result.stderr
    assert tagmask("evaluate", run, "--what", "segmentation").exit_code == 0
    record = json.loads((run / "scores" / "val-segmentation.json").read_text())
    assert (record["scales"], record["flip"], record["crf"], record["size"]) == ([1.0, 1.5], True, True, 64)


def test_walk_is_scored_as_maps_where_it_is_a_kind_of_maps(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.copytree(run / "maps" / "cam", run / "maps" / "walk")
    result = tagmask("evaluate", run, "--what", "cam,walk")
    assert result.exit_code == 0, result.stderr
    cam, walk = (json.loads((run / "scores" / f"val-{what}.json").read_text()) for what in ("cam", "walk"))
    assert walk["threshold"] is not None
    assert walk["miou"] == cam["miou"]
    assert walk["refined"] is None

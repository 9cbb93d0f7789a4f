"""The review queue of a run."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from tagmask.store.labels import read_mask, write_mask
from tests.cli import tagmask


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def reviewed(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("review") / "run"
    shutil.copytree(finished, run)
    done = tagmask("review", run, "--set", "review.pictures=2")
    assert done.exit_code == 0, done.stderr
    assert str(run / "review" / "index.html") in done.stdout
    return run


def test_the_queue_holds_every_image_worst_first(reviewed: Path):
    rows = table(reviewed / "review" / "queue.csv")
    assert {row["name"] for row in rows} == {path.stem for path in (reviewed / "masks").glob("*.png")}
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    # MoRe segments, makes maps, and the images are tagged: every signal can be computed.
    assert {"cam", "lam", "label", "overlap", "borders", "missing", "untagged", "area"} <= rows[0].keys()
    for row in table(reviewed / "review" / "tag_doubts.csv"):
        assert row["perhaps"] in ("wrong", "missing")
        assert row["grade"] in ("strong", "weak")


def test_the_page_needs_nothing_from_outside(reviewed: Path):
    text = (reviewed / "review" / "index.html").read_text()
    assert not re.search(r'(src|href)="(?!data:|#|http://localhost:7860/\?image=)', text)
    assert text.count("<img") == 4  # image and mask of the two worst
    assert "No true mask was used" in text


def test_a_review_is_done_once_and_again_when_a_mask_changes(reviewed: Path):
    assert "done before, unchanged" in tagmask("review", reviewed, "--set", "review.pictures=2").stderr
    first, second = sorted((reviewed / "masks").glob("*.png"))[:2]
    shutil.copy(first, second)
    done = tagmask("review", reviewed, "--set", "review.pictures=2")
    assert (done.exit_code, "done before" in done.stderr) == (0, False)


def test_a_run_without_masks_and_images_without_tags_are_reviewed_too(
    finished: Path, toy: Path, tmp_path: Path
):
    done = tagmask(
        "review",
        finished / "model",
        "--data",
        toy,
        "--tags",
        "none",
        "--out",
        tmp_path / "r",
        "--split",
        "all",
    )
    assert done.exit_code == 0, done.stderr
    rows = table(tmp_path / "r" / "review" / "queue.csv")
    assert len(rows) == 16
    assert "untagged" not in rows[0]


@pytest.fixture(scope="module")
def checked(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of which a person kept ten masks, five of them mended."""
    run = tmp_path_factory.mktemp("checked") / "run"
    shutil.copytree(finished, run)
    assert tagmask("segment", run, "--set", "segment.split=both").exit_code == 0
    for number, path in enumerate(sorted((run / "masks").glob("*.png"))[:10]):
        mask = read_mask(path)
        mask[: 8 * (number % 2)] = 1
        write_mask(run / "reviewed" / "masks" / path.name, mask)
    return run


def test_the_verdict_knows_what_checked_masks_say_until_the_masks_change(checked: Path):
    assert "masks checked" not in (checked / "verdict.json").read_text()
    assert tagmask("review", checked, "--set", "review.split=both").exit_code == 0
    trust = json.loads((checked / "review" / "trust.json").read_text())
    done = tagmask("run", checked, "--set", "segment.split=both")
    assert done.exit_code == 0, done.stderr
    told = json.loads((checked / "verdict.json").read_text())
    assert told["facts"]["checked"] == [10, trust["iou"], trust["low"], trust["high"]]
    assert any(line.startswith("10 masks checked: mean IoU of an image") for line in told["lines"])
    assert tagmask("run", checked, "--set", "segment.scales=[0.5]").exit_code == 0
    assert "masks checked" not in (checked / "verdict.json").read_text()


def test_a_prediction_gets_the_iou_that_checked_masks_foretell(checked: Path, toy: Path, tmp_path: Path):
    pictures = [str(path) for path in sorted((toy / "images").iterdir())[:3]]
    done = tagmask("predict", checked, *pictures, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert "10 checked masks of run: the masks of these pictures have a predicted IoU of" in done.stdout
    assert "on average, from masks that a person checked" in done.stdout
    rows = table(tmp_path / "out" / "summary.csv")
    assert len(rows) == 3
    for row in rows:
        assert 0 <= float(row["iou low"]) <= float(row["iou"]) <= float(row["iou high"]) <= 1
    plain = tagmask("predict", checked / "model", *pictures, "--out", tmp_path / "plain")
    assert plain.exit_code == 0, plain.stderr
    assert "iou" not in table(tmp_path / "plain" / "summary.csv")[0]

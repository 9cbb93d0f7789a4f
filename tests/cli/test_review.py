"""The review queue of a run."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import pytest

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

"""What recipe auto's verdict says of real runs: a good one, one with too few updates, one with wrong tags."""

from __future__ import annotations

import csv
import json
import random
import shutil

import pytest

from tagmask.data.datasets.scenes import write_dataset
from tests.cli import tagmask

pytestmark = pytest.mark.slow

LEARNED = (
    "--set=model.backbone=tagmask_demo", "--weights=hub", "--set=model.aux_block=-2", "--size=96",
    "--set=student.model.train_blocks=2", "--set=student.train.size=96", "--set=localize.size=96",
    "--set=segment.size=96", "--set=segment.split=val", "--device=cpu", "--set=train.tensorboard=false",
    "--set=train.batch_size=8", "--set=student.train.batch_size=8", "--set=train.heads.starts=1",
    "--set=model.decoder_width=64", "--set=refine.shrink=4",
)  # fmt: skip
"""Settings for seconds: a narrow decoder, one fit of the classifiers, refinement at a quarter of the size."""
FEW = "--set=student.train.iterations=20"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("scenes") / "data", 100, 40)


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """Half as many: a decoder that learned nothing shows with few images, too."""
    return write_dataset(tmp_path_factory.mktemp("half") / "data", 50, 20)


def ran(data, out, *more):
    return verdict(out, "run", data, "--out", out, *LEARNED, *more)


def verdict(out, *words):
    result = tagmask(*words)
    assert result.exit_code == 0, result.stderr
    told = json.loads((out / "verdict.json").read_text())
    score = json.loads(next((out / "scores").glob("*-segmentation.json")).read_text())["miou"]
    return told, score


def test_a_good_run_is_usable_and_too_few_updates_are_not(scenes, half, tmp_path):
    enough = "--set=student.train.iterations=120"
    told, good = ran(scenes, tmp_path / "good", "--set=train.iterations=30", enough)
    assert (told["level"], good > 0.5) == ("usable", True), told["lines"]
    # The same labels, and a decoder that learned too little from them.
    few = shutil.copytree(tmp_path / "good", tmp_path / "few")
    told, score = verdict(few, "run", few, "--out", few, "--from=student", "--overwrite", FEW)
    assert told["level"] in ("bad", "doubtful"), (told["lines"], score)
    assert score < good - 0.1
    assert "more updates" in " ".join(told["lines"])
    told, score = ran(half, tmp_path / "least", "--iterations=4")
    assert (told["level"], score < 0.3) == ("bad", True), (told["lines"], score)


def test_tags_of_other_images_are_bad(scenes, tmp_path):
    data = shutil.copytree(scenes, tmp_path / "data")
    head, *rows = list(csv.reader((data / "tags.csv").open(encoding="utf-8")))
    tags = [row[1] for row in rows]
    random.Random(0).shuffle(tags)
    with (data / "tags.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [head, *([row[0], tag, row[2]] for row, tag in zip(rows, tags, strict=True))]
        )
    told, _ = ran(data, tmp_path / "run", "--iterations=30")
    # The worst comes first, and it is the tags: with right ones only the masks would be bad after so little.
    assert told["level"] == "bad", told["lines"]
    assert told["lines"][0].startswith("tags: "), told["lines"]
    assert told["facts"]["tag_auc"] < 0.6
    assert "neither labels nor masks" in told["advice"]

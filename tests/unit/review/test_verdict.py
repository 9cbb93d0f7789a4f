"""The verdict says what the facts say."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tagmask.review.verdict import Facts, judge, lines_of, read_verdict

GOOD = Facts(
    images=100,
    empty=0.02,
    full=0.0,
    untagged=0.0,
    agreement=0.8,
    tag_auc=0.95,
    edges={"masks": 0.4, "labels": 0.41, "box": 0.1},
)
LONGER = "tagmask data check on the data, then tagmask run with more updates"


def test_good_masks_are_usable():
    told = judge(GOOD, "runs/x")
    assert told.level == "usable"
    assert "take masks/" in told.advice
    assert told.next == "tagmask review runs/x"


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        ({"tag_auc": 0.52}, "bad", "52 of 100 pairs"),
        ({"agreement": 0.05}, "bad", "agree 5 %"),
        ({"empty": 0.9}, "bad", "90 % of 100 masks are empty"),
        ({"full": 0.95}, "bad", "95 % of the masks have no background"),
        ({"empty": 0.3}, "doubtful", "30 % of 100 masks are empty"),
        ({"agreement": 0.65}, "doubtful", "the decoder needs more updates"),
        ({"never": ("cow",)}, "doubtful", "tagged but in no mask: cow"),
        ({"edges": {"masks": 0.1, "box": 0.2}}, "doubtful", "no better than a box"),
        (
            {"checked": (50, 0.55, 0.5, 0.6)},
            "doubtful",
            "50 masks checked: mean IoU of an image 55 % (50 to 60)",
        ),
        ({"checked": (50, 0.3, 0.25, 0.35)}, "bad", "mean IoU of an image 30 %"),
    ],
)
def test_what_is_wrong_is_said_first(change, level, words):
    told = judge(replace(GOOD, **change), "runs/x")
    assert told.level == level
    assert words in told.lines[0]
    if level == "bad" and "agreement" not in change:
        assert told.advice == "take neither labels nor masks"


def test_where_only_the_decoder_has_not_learned_the_labels_may_be_taken():
    told = judge(replace(GOOD, agreement=0.5), "runs/x")
    assert (told.level, told.advice) == ("bad", "take labels/ where an image has tags, and no masks")
    assert "more updates" in told.lines[0]
    assert judge(replace(GOOD, agreement=0.5, tag_auc=0.8), "runs/x").level == "usable"  # both know little


def test_empty_masks_of_untagged_images_are_right():
    assert judge(replace(GOOD, empty=0.4, untagged=0.4), "x").level == "usable"


def test_better_labels_are_recommended_where_there_are_tags():
    told = judge(replace(GOOD, edges={"masks": 0.2, "labels": 0.4, "box": 0.1}), "x")
    assert "take labels/" in told.advice


def test_what_tags_cannot_tell_is_said_and_nothing_is_invented_without_tags():
    told = judge(Facts(10, 0.1, None, 0.0, confused=("a and b always come together",)), "x")
    assert told.level == "usable"
    assert "a and b always come together" in told.lines
    assert lines_of(told.as_json())[0].startswith("verdict: usable")


@pytest.mark.parametrize("run", ["runs/x", "my runs (old)/x"])
@pytest.mark.parametrize(
    ("change", "level", "page", "terminal"),
    [
        ({}, "usable", "tagmask review {run}", "tagmask review {run}"),
        (
            {"empty": 0.3},
            "doubtful",
            "look at the images below, then tagmask review {run}",
            "tagmask review {run}  (and look at {run}/report.html)",
        ),
        (
            {"empty": 0.9},
            "bad",
            f"look at the images below, then {LONGER}",
            f"{LONGER}; look at {{run}}/report.html",
        ),
    ],
)
def test_the_report_does_not_send_its_reader_to_itself(run, change, level, page, terminal, tmp_path):
    told = judge(replace(GOOD, **change), run)
    assert told.next == terminal.format(run=run)
    path = tmp_path / "verdict.json"
    path.write_text(json.dumps(told.as_json()), encoding="utf-8")
    words = page.format(run=run)
    shown = read_verdict(path)
    assert shown is not None
    assert (shown[0], shown[1][-1]) == (level, f"Next: {words}")
    bare = read_verdict(path, images=False)
    assert bare is not None
    assert bare[1][-1] == f"Next: {words.removeprefix('look at the images below, then ')}"

"""What is said of predicted masks follows from their figures."""

from __future__ import annotations

import pytest

from tagmask.review.predicted import judge_rows


def row(classes, unsure=0.05, warnings=()):
    return {"classes": classes, "unsure": unsure, "warnings": list(warnings)}


GOOD = [row({"cat": 0.3}), row({"dog": 0.2}), row({"cat": 0.1, "dog": 0.4}), row({})] * 6


def test_good_masks_are_usable_and_the_next_step_names_the_folder():
    told = judge_rows(GOOD, ("cat", "dog"), "out")
    assert told.level == "usable"
    assert "25 % of 24 masks are empty" in told.lines
    assert "out/summary.csv" in told.next
    assert "look at out/overlays," in told.next


def test_the_next_step_names_no_overlays_that_were_not_written():
    told = judge_rows(GOOD, ("cat", "dog"), "out", "")
    assert "out/overlays" not in told.next
    assert "--set overlays=true" in told.next
    assert "look at out/shards," in judge_rows(GOOD, ("cat", "dog"), "out", "shards").next


@pytest.mark.parametrize(
    ("rows", "level", "words"),
    [
        ([row({})] * 24, "bad", "100 % of 24 masks are empty"),
        ([*GOOD[:8], *[row({})] * 16], "doubtful", "75 % of 24 masks are empty"),
        ([row({"cat": 0.99})] * 23 + [row({"dog": 0.3})], "bad", "96 % of the masks have no background"),
        ([row({"cat": 0.3})] * 24, "bad", "every mask shows cat and nothing else"),
        ([row({"cat": 0.3}), row({})] * 12, "doubtful", "in no mask: dog"),
        ([row({"cat": 0.3, "dog": 0.3}, unsure=0.5)] * 24, "bad", "100 % are unsure"),
        (
            [*GOOD[:16], *[row({"cat": 0.1}, warnings=["no pixel of the tag dog"])] * 8],
            "doubtful",
            "33 % show no pixel of one of their tags",
        ),
    ],
)
def test_what_is_wrong_is_said(rows, level, words):
    told = judge_rows(rows, ("cat", "dog"), "out")
    assert told.level == level
    assert any(words in line for line in told.lines)


@pytest.mark.parametrize(("iou", "level"), [(0.8, "usable"), (0.5, "doubtful"), (0.2, "bad")])
def test_what_checked_masks_say_counts(iou, level):
    rows = [{**one, "expected": [iou, iou - 0.1, iou + 0.1]} for one in GOOD]
    told = judge_rows(rows, ("cat", "dog"), "out")
    assert told.level == level
    assert f"predicted IoU {100 * iou:.0f} % on average, from masks that a person checked" in told.lines


def test_land_cover_without_background_is_no_fault():
    told = judge_rows([row({"cat": 0.5, "dog": 0.5})] * 24, ("cat", "dog"), "out")
    assert told.level == "usable"


def test_nothing_is_said_of_nothing():
    assert judge_rows([], ("cat",), "out") is None

from __future__ import annotations

import numpy as np
import pytest

from tagmask.review.queue import Row, area_doubts, rank, tag_doubts
from tagmask.review.signals import Evidence, agreement, border_entropy, expected_iou, signals

NAMES = ("cat", "dog", "cow")


def square(label=1, size=20, start=5, end=15):
    mask = np.zeros((size, size), np.uint8)
    mask[start:end, start:end] = label
    return mask


def sure(mask, share=1.0):
    """Probabilities that put `share` on a mask's labels and the rest on all labels alike."""
    hot = np.eye(len(NAMES) + 1, dtype=np.float32)[mask].transpose(2, 0, 1)
    return share * hot + (1 - share) / len(hot)


def test_agreement_is_the_mean_iou_of_what_either_shows():
    first, second = square(), square(end=10)
    assert agreement(first, first) == 1
    assert agreement(first, second) == pytest.approx(25 / 100)
    assert agreement(first, square(2)) == 0
    assert agreement(np.zeros_like(first), np.zeros_like(first)) == 1
    second[5:15, 10:15] = 255
    second[10:15] = 255
    assert agreement(first, second) == 1  # undecided pixels do not count


def test_expected_iou_is_the_mean_over_drawn_masks():
    mask, probabilities = square(), sure(square(), 0.6)
    rng = np.random.default_rng(0)
    levels = probabilities.cumsum(0)
    found = []
    for _ in range(300):
        drawn = (rng.random(mask.shape) > levels).sum(0)
        parts = [((mask == k) & (drawn == k)).sum() / ((mask == k) | (drawn == k)).sum() for k in (0, 1)]
        found.append(np.mean(parts))
    assert expected_iou(mask, probabilities) == pytest.approx(np.mean(found), abs=0.01)
    assert expected_iou(mask, sure(mask)) == pytest.approx(1)


def test_entropy_is_taken_near_borders_only():
    mask = square()
    assert border_entropy(mask, sure(mask)) == pytest.approx(0, abs=1e-3)
    assert border_entropy(mask, np.full((4, 20, 20), 0.25, np.float32)) == pytest.approx(1)
    blurred = sure(mask)
    blurred[:, 10, 10] = 0.25  # the middle of the object is far from its border
    assert border_entropy(mask, blurred) == pytest.approx(0, abs=1e-3)


def test_signals_name_lost_and_strange_classes():
    mask = square(1)
    mask[0:2] = 3
    found = signals(Evidence(mask, {"cam": square(1)}, None, (0, 1)))
    assert found["missing"] == 0.5
    assert found["untagged"] == pytest.approx(40 / 140)
    assert found["cam"] == pytest.approx(0.5)
    assert "overlap" not in found
    assert signals(Evidence(mask, {}, sure(mask), None)).keys() == {"overlap", "borders"}


def rows(count=20):
    rng = np.random.default_rng(1)
    return [Row(f"i{i:02}", {"overlap": 0.2}, {0: float(rng.uniform(0.2, 0.3))}, (0,)) for i in range(count)]


def test_unusual_areas_stand_out_and_rare_classes_are_left_out():
    every = [*rows(), Row("huge", {"overlap": 0.2}, {0: 0.97, 1: 0.01}, (0,))]
    doubts = area_doubts(every)
    assert doubts[-1][0][0] > 0.5 > max(doubt[0][0] for doubt in doubts[:-1])
    assert 1 not in doubts[-1]


def test_the_worst_come_first_with_reasons_in_words():
    bad = Row("bad", {"overlap": 0.9, "cam": 0.8, "missing": 0.5, "untagged": 0.4}, {0: 0.99, 2: 0.2}, (0, 1))
    ranked = rank([*rows(), bad], NAMES)
    assert ranked[0].name == "bad"
    assert ranked[0].words == (
        "dog is tagged but has no pixels",
        "40 % of the object pixels are cow, not tagged",
        "mask and CAM share only 20 %",
        "the model itself expects an IoU of 10 %",
        "cat covers 99.0 % of the image, usual 24 %",
    )
    assert all(0 <= row.score <= 1 for row in ranked)
    assert ranked[-1].words == ()


def test_several_opinions_against_the_mask_are_one_sentence():
    found = {"overlap": 0.9, "cam": 0.8, "attention_cam": 0.95, "label": 1.0}
    words = rank([*rows(), Row("bad", found, {0: 0.2}, (0,))], NAMES)[0].words
    assert words[0] == "mask shares only 0 to 20 % with CAM, attention CAM and refined label"


def test_doubted_tags_are_found_where_the_classifier_contradicts():
    rng = np.random.default_rng(0)
    every, planted = [], set()
    for index in range(200):
        shown = int(rng.integers(3))
        chances = rng.uniform(0.02, 0.2, 3)
        chances[shown] = rng.uniform(0.7, 0.98)
        tags = [shown]
        if index < 10:
            tags = []
            planted.add((f"{index}", "missing", shown))
        elif index < 20:
            tags = [shown, (shown + 1) % 3]
            planted.add((f"{index}", "wrong", (shown + 1) % 3))
        every.append(Row(f"{index}", {}, {}, tags, tuple(chances)))
    doubts = tag_doubts(every)
    assert {(doubt.name, doubt.kind, doubt.key) for doubt in doubts} == planted
    # Strong is who sees as little, or as much, as is usual on the other side: about half of them.
    strong = [doubt for doubt in doubts if doubt.strong]
    assert 5 <= len(strong) < len(doubts)
    for doubt in doubts:
        wrong = doubt.kind == "wrong"
        others = [row.chances[doubt.key] for row in every if (doubt.key in row.tags) != wrong]
        assert doubt.strong == ((np.mean(others) - doubt.chance) * (1 if wrong else -1) >= -1e-4)
    assert tag_doubts([Row("x", {}, {}, None, (0.5,))]) == []

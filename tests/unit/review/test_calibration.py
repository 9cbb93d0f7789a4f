"""From checked masks to a predicted IoU: intervals hold, the classes' figures are near, doubts are said."""

from __future__ import annotations

import numpy as np
import pytest

from tagmask.errors import DataError
from tagmask.review.calibration import Trust, calibrate, random_order
from tagmask.review.class_trust import Overlap, compare
from tagmask.review.queue import Row
from tagmask.review.tables import by_trust, queue_table, trust_values


def run(images: int, seed: int) -> tuple[list[Row], dict[str, Overlap], np.ndarray]:
    """A made-up run of two classes: what the model says of itself is related to what is true, too high."""
    rng = np.random.default_rng(seed)
    rows, overlaps, totals = [], {}, np.zeros((3, 3))
    for index in range(images):
        key, area = int(rng.integers(2)), float(rng.uniform(0.1, 0.5))
        right = float(np.clip(rng.beta(6, 2) - 0.15 * key, 0.05, 1))
        said = float(np.clip(right + 0.1 + rng.normal(0, 0.05), 0.02, 0.98))
        hit, truth = right * area, area * float(rng.uniform(0.9, 1.1))
        iou = hit / (area + truth - hit)
        shares = {key + 1: (hit, area, truth), 0: (1 - area - truth + hit, 1 - area, 1 - truth)}
        back = shares[0][0] / (shares[0][1] + shares[0][2] - shares[0][0])
        name = f"i{index}"
        overlaps[name] = Overlap((iou + back) / 2, shares)
        expected = {key + 1: (said * area, area), 0: (1 - area - area * (1 - said), 1 - area)}
        signals = {"overlap": 1 - said, "borders": float(rng.uniform())}
        rows.append(Row(name, signals, {key: area}, (key,), score=1 - said, expected=expected))
        for label, values in shares.items():
            totals[label] += values
    rows.sort(key=lambda row: -row.score)
    return rows, overlaps, totals[:, 0] / (totals[:, 1] + totals[:, 2] - totals[:, 0])


def draw(rows: list[Row], overlaps: dict[str, Overlap], count: int, seed: int) -> dict[str, Overlap]:
    names = np.random.default_rng(seed).permutation([row.name for row in rows])[:count]
    return {str(name): overlaps[str(name)] for name in names}


def test_intervals_hold_for_the_others_and_classes_are_near():
    held, width, errors = [], [], []
    for seed in range(12):
        rows, overlaps, truth = run(250, seed)
        trust = calibrate(rows, draw(rows, overlaps, 50, seed), 2)
        others = [(one, overlaps[name].iou) for name, one in trust.images.items() if not one.checked]
        assert len(others) == 200
        held += [one.low <= iou <= one.high for one, iou in others]
        width += [one.high - one.low for one, _ in others]
        errors += [abs(one.iou - truth[one.label]) for one in trust.classes]
        assert trust.doubt == ""
    assert 0.87 <= np.mean(held) <= 0.93
    assert np.mean(width) < 0.3
    assert max(errors) < 0.05


@pytest.mark.parametrize(("unchanged", "said"), [(25, False), (26, True), (50, True)])
def test_masks_accepted_as_they_are_are_counted_and_said(unchanged, said):
    rows, overlaps, _ = run(250, 4)
    checked = draw(rows, overlaps, 50, 4)
    for name in list(checked)[:unchanged]:
        checked[name] = Overlap(1.0, {0: (1.0, 1.0, 1.0)})
    trust = calibrate(rows, checked, 2)
    assert (f"{unchanged} of them were accepted as they are and count as 100 %" in trust.text) is said


def test_the_mean_has_an_interval_and_a_rule_when_to_stop():
    rows, overlaps, _ = run(2000, 3)
    few, many = (calibrate(rows, draw(rows, overlaps, count, 1), 2) for count in (20, 200))
    truth = np.mean([one.iou for one in overlaps.values()])
    assert few.high - few.low > many.high - many.low
    assert many.low <= truth <= many.high
    assert few.settled is not None
    assert many.settled is None or many.settled > few.settled
    assert "more would move the mean by less than 1 point" in few.text or "check more" in few.text


def test_checks_of_the_worst_alone_are_said_to_mislead():
    rows, overlaps, _ = run(300, 0)
    trust = calibrate(rows, {row.name: overlaps[row.name] for row in rows[:40]}, 2)
    assert "Mostly the worst masks were checked" in trust.text


def test_too_few_checks_say_nothing():
    rows, overlaps, _ = run(50, 0)
    with pytest.raises(DataError, match=r"9 checked masks say too little.*at least 10"):
        calibrate(rows, draw(rows, overlaps, 9, 0), 2)


def test_masks_that_all_agree_give_no_nonsense():
    rows = [Row(f"i{k}", {}, {0: 0.2}, (0,)) for k in range(30)]
    same = Overlap(1.0, {0: (0.8, 0.8, 0.8), 1: (0.2, 0.2, 0.2)})
    trust = calibrate(rows, {f"i{k}": same for k in range(12)}, 3)
    assert all(one.low <= one.iou <= one.high <= 1 for one in trust.images.values())
    assert (trust.iou, trust.settled) == (pytest.approx(1.0, abs=1e-3), None)
    assert np.isnan(trust.classes[3].iou)
    assert trust_values(trust, ("background", "a", "b", "c"))["classes"]["c"]["iou"] is None


def test_a_mask_beside_the_persons():
    mask = np.array([[1, 1, 0, 0]], np.uint8)
    truth = np.array([[1, 0, 0, 255]], np.uint8)
    found = compare(mask, truth)
    assert found.iou == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert found.areas[1] == pytest.approx((1 / 3, 2 / 3, 1 / 3))
    with pytest.raises(ValueError, match="the masks are"):
        compare(mask, truth.T)


def test_the_queue_begins_with_the_lowest_predicted_iou():
    rows, overlaps, _ = run(60, 0)
    trust: Trust = calibrate(rows, draw(rows, overlaps, 20, 0), 2)
    ordered = by_trust(rows, trust)
    assert by_trust(rows, None) == rows
    assert [trust.images[row.name].checked for row in ordered] == [False] * 40 + [True] * 20
    found = [trust.images[row.name].iou for row in ordered[:40]]
    assert found == sorted(found)
    table = queue_table(ordered, ("a", "b"), lambda keys: " ".join(map(str, keys or ())), trust)
    assert table[0][-5:] == ["draw", "iou", "iou low", "iou high", "checked"]
    assert sorted(line[-5] for line in table[1:]) == list(range(1, 61))
    assert table[-1][-1] == "yes"


def test_the_random_order_is_the_same_for_everyone():
    names = [f"i{k}" for k in range(20)]
    assert random_order(names) == random_order(names[::-1]) != names

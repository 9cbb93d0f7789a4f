"""Whether a model that learned is better: few pictures must agree, and tags are known as they will be."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tagmask.metrics.confusion import mean_iou
from tagmask.training.judging import allowed_labels, best_share, counted, mean_ious, within
from tagmask.training.lessons import TeachConfig
from tagmask.training.teach import teach
from tests.unit.training.test_teach import CPU, lessons, model


def pictures(*right: int) -> list[np.ndarray]:
    """Counts of pictures half of which is class 1, of whose 100 pixels so many were found."""
    return [np.array([[[100, 0], [100 - found, found]]], np.float64) for found in right]


def test_a_gain_in_most_pictures_counts_and_one_in_a_single_picture_does_not():
    old = pictures(*[50] * 10)
    found = best_share(old, {1.0: pictures(*[60] * 10), 0.5: pictures(*[55] * 10)}, 0.001, 0)
    assert found[2:] == (1.0, True)
    assert found[1] > found[0] + 0.04
    # The mean rises by one lucky picture; the others fall.
    lucky = pictures(100, *[45] * 9)
    before, after, _, better = best_share(old, {1.0: lucky}, 0.001, 0)
    assert after > before
    assert not better
    # A mild step that all agree on goes before a large one that few profit from.
    assert best_share(old, {1.0: lucky, 0.25: pictures(*[52] * 10)}, 0.001, 0)[2:] == (0.25, True)
    assert not best_share(old, {1.0: old}, 0.001, 0)[3]


def test_without_known_pixels_nothing_is_better():
    nothing = [np.zeros((1, 2, 2))]
    before, after, _, better = best_share(nothing, {1.0: nothing}, 0.001, 0)
    assert np.isnan([before, after]).all()
    assert not better


def test_counts_give_the_mean_iou_of_the_metrics():
    rng = np.random.default_rng(0)
    preds, target = (torch.from_numpy(rng.integers(0, 4, (1, 9, 7))) for _ in range(2))
    assert mean_ious(counted(preds, target, 5))[0] == pytest.approx(mean_iou(preds, target, 5))


def test_what_may_win_is_the_background_the_tags_and_what_was_drawn():
    drawn = np.array([[0, 3], [255, 3]], np.uint8)
    allowed = allowed_labels(5, (0,), drawn)
    assert allowed.tolist() == [True, True, False, True, False]
    assert allowed_labels(5, None, drawn).all()
    assert within(torch.tensor([1.0, 2, 9, 3, 8]).view(1, 5, 1, 1), allowed[None]).argmax(1).item() == 3


def test_a_model_is_judged_as_its_masks_will_be_made():
    config = TeachConfig(updates=1, views=1)
    plain = lessons(24)
    tagged = [dataclasses.replace(one, tags=(index % 2,)) for index, one in enumerate(plain)]
    free, known = (teach(model(), given, compute=CPU, config=config).before for given in (plain, tagged))
    assert known > free

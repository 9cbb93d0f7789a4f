from __future__ import annotations

import numpy as np
import pytest
import torch

from tagmask.metrics.tags import average_precision, mean_average_precision, multilabel_f1


def test_f1_by_hand():
    truth = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 0, 0], [0, 1, 0]])
    logits = torch.tensor([[2.0, -1.0, 1.0], [-1.0, -1.0, -1.0], [1.0, -1.0, -1.0], [-1.0, 1.0, -1.0]])
    assert multilabel_f1(truth, logits).tolist() == [0.5, 0.0, 0.0, 1.0]


def test_average_precision_by_hand_and_with_ties():
    truth = torch.tensor([[1, 0, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0]])
    scores = torch.tensor([[4.0, 3.0, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0]])
    result = average_precision(truth, scores)
    assert result[0] == pytest.approx((1 + 2 / 3) / 2)
    assert result[1] == pytest.approx(0.5)
    assert result[2].isnan()


def test_average_precision_agrees_with_an_independent_computation():
    def slow(truth, scores):
        total, before = 0.0, 0.0
        for level in sorted(set(scores.tolist()), reverse=True):
            chosen = scores >= level
            recall = truth[chosen].sum() / truth.sum()
            total, before = total + (recall - before) * truth[chosen].mean(), recall
        return total

    rng = np.random.default_rng(0)
    truth, scores = rng.random((30, 25)) < 0.3, np.round(rng.random((30, 25)), 1)
    truth[:, 0] = True
    theirs = [slow(t, s) for t, s in zip(truth, scores, strict=True)]
    ours = average_precision(torch.from_numpy(truth), torch.from_numpy(scores))
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_the_mean_over_classes_and_over_images_differ():
    truth = torch.tensor([[1, 0, 0], [1, 0, 1], [0, 0, 0]])
    scores = torch.tensor([[0.9, 0.1, 0.2], [0.2, 0.8, 0.6], [0.5, 0.5, 0.5]])
    by_class = mean_average_precision(truth, scores)
    by_image = mean_average_precision(truth, scores, over="images")
    assert by_class == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)
    assert by_image == pytest.approx((1 + (0.5 + 2 / 3) / 2) / 2)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="one shape"):
        multilabel_f1(torch.zeros(2, 3), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="'classes' or 'images'"):
        mean_average_precision(torch.zeros(2, 3), torch.zeros(2, 3), over="all")

from __future__ import annotations

import numpy as np
import pytest
import torch

from tagmask.metrics.confusion import ABSENT_POLICIES, ConfusionMatrix

TRUTH = np.array([[0, 0, 1, 1], [0, 255, 1, 1]], np.uint8)
PREDICTION = np.array([[0, 0, 1, 2], [1, 3, 1, 1]], np.uint8)


def _matrix(num_classes=5):
    matrix = ConfusionMatrix(num_classes)
    matrix.update(preds=PREDICTION, target=TRUTH)
    return matrix


def test_counts_by_hand():
    assert _matrix().counts[:3, :3].tolist() == [[2, 1, 0], [0, 3, 1], [0, 0, 0]]
    assert _matrix().counts.sum() == 7  # the ignored pixel is gone


def test_policies_differ_on_absent_classes_only():
    scores = {policy: _matrix().compute(policy) for policy in ABSENT_POLICIES}
    first, second = 2 / 3, 3 / 5
    assert scores["skip_truth"].miou == pytest.approx((first + second) / 2)
    assert scores["nan"].miou == pytest.approx((first + second + 0) / 3)
    assert scores["zero"].miou == pytest.approx((first + second) / 5)
    full = ConfusionMatrix(2)
    full.update(preds=torch.tensor([0, 1, 0]), target=torch.tensor([0, 1, 1]))
    assert len({full.compute(policy).miou for policy in ABSENT_POLICIES}) == 1


def test_the_other_scores():
    scores = _matrix().compute()
    assert scores.pixel_accuracy == pytest.approx(5 / 7)
    assert scores.mean_accuracy == pytest.approx((2 / 3 + 3 / 4) / 2)
    np.testing.assert_allclose(scores.precision, [1, 3 / 4, 0, np.nan, np.nan])
    np.testing.assert_allclose(scores.recall, [2 / 3, 3 / 4, np.nan, np.nan, np.nan])
    np.testing.assert_allclose(scores.confusion, [0, 1 / 3, np.inf, np.nan, np.nan])
    assert scores.frequency_weighted_iou == pytest.approx((3 * (2 / 3) + 4 * (3 / 5)) / 7)
    assert scores.absent == "skip_truth"


def test_parts_add_up_to_the_whole():
    whole, first, second = ConfusionMatrix(5), ConfusionMatrix(5), ConfusionMatrix(5)
    for part, rows in ((first, slice(0, 1)), (second, slice(1, 2))):
        part.update(preds=torch.from_numpy(PREDICTION[rows]).long(), target=torch.from_numpy(TRUTH[rows]))
    whole.update(preds=PREDICTION, target=TRUTH)
    first.merge(second)
    assert torch.equal(first.counts, whole.counts)
    with pytest.raises(ValueError, match="cannot merge 4"):
        first.merge(ConfusionMatrix(4))


def test_undecided_pixels_are_errors_unless_said_otherwise():
    undecided = PREDICTION.copy()
    undecided[0, 0] = 255
    with pytest.raises(ValueError, match="predicted labels reach from 0 to 255; allowed are 0 to 4"):
        ConfusionMatrix(5).update(preds=undecided, target=TRUTH)
    lenient = ConfusionMatrix(5, ignore_prediction=255)
    lenient.update(preds=undecided, target=TRUTH)
    assert lenient.counts.sum() == 6


@pytest.mark.parametrize(
    ("truth", "prediction", "says"),
    [
        (np.array([7]), np.array([0]), "true labels"),
        (np.array([-1]), np.array([0]), "true labels"),
        (np.array([0, 1]), np.array([0]), "target is"),
        (np.array([0.5]), np.array([0]), "integer labels"),
    ],
)
def test_bad_labels_are_refused_and_not_counted(truth, prediction, says):
    matrix = ConfusionMatrix(5)
    with pytest.raises(ValueError, match=says):
        matrix.update(preds=prediction, target=truth)
    assert matrix.counts.sum() == 0


def test_nothing_counted_is_nan_not_a_crash():
    assert np.isnan(ConfusionMatrix(3).compute().miou)
    with pytest.raises(ValueError, match="one of skip_truth"):
        ConfusionMatrix(3).compute("mean")
    with pytest.raises(ValueError, match="at least 1"):
        ConfusionMatrix(0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_counts_on_a_gpu_equal_those_on_the_cpu():
    matrix = ConfusionMatrix(5)
    matrix.update(preds=torch.from_numpy(PREDICTION).to("cuda"), target=torch.from_numpy(TRUTH).to("cuda"))
    assert torch.equal(matrix.counts.cpu(), _matrix().counts)

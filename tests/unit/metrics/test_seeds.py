"""The single-pass sweep against doing it threshold by threshold."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tagmask.metrics.confusion import ConfusionMatrix
from tagmask.metrics.seeds import SweepResult, ThresholdSweep, percent_steps, threshold_sweep


def _images(seed=0, count=3, num_classes=6):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        keys = np.sort(rng.choice(num_classes - 1, 3, replace=False))
        maps = rng.random((3, 17, 11), np.float32)
        maps[:, :5] = np.round(maps[:, :5], 2)  # many values exactly on a threshold, and ties between maps
        truth = rng.integers(0, num_classes, (17, 11)).astype(np.uint8)
        truth[0] = 255
        yield maps, keys, truth


def _slow(images, threshold, num_classes=6):
    matrix = ConfusionMatrix(num_classes)
    for maps, keys, truth in images:
        stack = np.concatenate([np.full((1, *truth.shape), threshold, np.float32), maps])
        matrix.update(preds=np.array([0, *(keys + 1)])[stack.argmax(0)], target=truth)
    return matrix


def test_one_pass_equals_a_pass_per_threshold():
    sweep = ThresholdSweep(6, percent_steps(0, 99))
    for maps, keys, truth in _images():
        sweep.update(torch.from_numpy(maps), torch.from_numpy(keys), truth)
    for index in range(0, 99, 7):
        assert torch.equal(sweep.matrix(index).counts, _slow(_images(), index / 100).counts)
    assert sweep.compute().miou.shape == (99,)


def test_softmax_differs_at_most_at_ties():
    plain = threshold_sweep(_images(), 6, (0.25, 0.5))
    pushed = threshold_sweep(_images(), 6, (0.25, 0.5), softmax=True)
    np.testing.assert_allclose(plain.miou, pushed.miou, atol=0.01)


def test_images_without_maps_are_background():
    sweep = ThresholdSweep(3, (0.1, 0.5))
    sweep.update(np.zeros((0, 4, 5), np.float32), [], np.full((4, 5), 2, np.uint8))
    assert sweep.matrix(1).counts[2].tolist() == [20, 0, 0]


def test_best_and_early_stop():
    images = [(np.array([[[0.2, 0.4, 0.6, 0.8]]], np.float32), [0], np.array([[0, 0, 1, 1]]))]
    result = threshold_sweep(images, 2, (0.1, 0.15, 0.45, 0.7))
    assert result.thresholds[result.best()] == 0.45
    assert (result.best(early_stop=True), result.evaluated(early_stop=True)) == (0, 2)  # a plateau ends it
    assert result.evaluated() == 4
    rising = threshold_sweep(images, 2, (0.15, 0.25, 0.45))
    assert (rising.best(early_stop=True), rising.evaluated(early_stop=True)) == (2, 3)
    assert isinstance(result, SweepResult)


def test_counts_of_processes_add_up():
    parts = [ThresholdSweep(6, (0.3, 0.6)) for _ in range(3)]
    for part, image in zip(parts, _images(), strict=True):
        part.update(*image)
    parts[0].counts = sum(part.counts for part in parts)
    np.testing.assert_array_equal(parts[0].compute().miou, threshold_sweep(_images(), 6, (0.3, 0.6)).miou)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="ascend"):
        ThresholdSweep(3, (0.5, 0.1))
    with pytest.raises(ValueError, match="at least one"):
        ThresholdSweep(3, ())
    sweep, maps = ThresholdSweep(3, (0.5,)), np.zeros((2, 4, 5), np.float32)
    for keys, truth, says in (
        ([0], np.zeros((4, 5), int), "need 2 keys"),
        ([0, 1], np.zeros((4, 4), int), "truth"),
        ([0, 2], np.zeros((4, 5), int), "class labels"),
        ([0, 1], np.full((4, 5), 9), "true labels"),
    ):
        with pytest.raises(ValueError, match=says):
            sweep.update(maps, keys, truth)
    assert sweep.counts.sum() == 0

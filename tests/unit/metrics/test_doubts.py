"""What stands beside a mean that says less than it seems to."""

from __future__ import annotations

import numpy as np
import pytest

from tagmask.metrics.confusion import ConfusionMatrix

LABELS = ("background", "cat", "dog")


def doubts(target, absent="skip_truth", labels=LABELS):
    matrix = ConfusionMatrix(len(labels))
    matrix.update(preds=np.zeros(len(target), np.int64), target=np.asarray(target))
    return matrix.compute(absent).doubts(labels)


def test_a_mean_over_all_classes_needs_no_words():
    assert doubts([0, 1, 2]) == []


@pytest.mark.parametrize(
    ("absent", "said"),
    [("skip_truth", "left out"), ("nan", "only where predicted"), ("zero", "in the mean as 0")],
)
def test_classes_without_a_true_pixel_are_named(absent, said):
    (words,) = doubts([0, 1, 1, 255], absent)
    assert words.startswith("no true pixel of dog: ")
    assert said in words


def test_a_mean_of_the_background_alone_says_so():
    assert "background alone" in doubts([0, 0, 255])[0]


def test_long_lists_are_cut():
    labels = ("background", *map(str, range(10)))
    assert "no true pixel of 1, 2, 3, 4, 5 and 4 more" in doubts([0, 1], labels=labels)[0]

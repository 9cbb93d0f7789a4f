from __future__ import annotations

import pytest
import torch

from tagmask.ops.affinity import (
    affinity_labels,
    propagate,
    propagate_with_background,
    radius_mask,
    transition,
)


def test_affinity_labels_by_hand():
    labels = torch.tensor([[[0, 1], [1, 255]]])
    expected = torch.tensor([[1, 0, 0, 255], [0, 1, 1, 255], [0, 1, 1, 255], [255, 255, 255, 255]])
    pairs = affinity_labels(labels)
    assert pairs.dtype == torch.uint8
    assert torch.equal(pairs[0].long(), expected)


def test_affinity_labels_without_diagonal_and_with_mask():
    labels = torch.zeros(1, 1, 3, dtype=torch.uint8)
    pairs = affinity_labels(labels, mask=radius_mask(1, 3, 1), diagonal=False)
    assert pairs[0].tolist() == [[255, 1, 255], [1, 255, 1], [255, 1, 255]]


@pytest.mark.parametrize(("h", "w", "radius"), [(1, 1, 0), (3, 5, 1), (4, 2, 9)])
def test_radius_mask_equals_the_definition(h, w, radius):
    mask = radius_mask(h, w, radius)
    for i in range(h * w):
        for j in range(h * w):
            near = abs(i // w - j // w) <= radius and abs(i % w - j % w) <= radius
            assert bool(mask[i, j]) == near


def test_transition_columns_sum_to_one_and_doubling_walks_further():
    affinity = torch.rand(2, 6, 6)
    steps = transition(affinity, power=3, epsilon=0)
    torch.testing.assert_close(steps.sum(dim=1), torch.ones(2, 6))
    torch.testing.assert_close(transition(affinity, power=3, epsilon=0, doublings=1), steps @ steps)


def test_propagate_reaches_masked_neighbours_only():
    maps = torch.zeros(1, 1, 1, 4)
    maps[..., 0] = 1
    walked = propagate(maps, transition(torch.ones(1, 4, 4), radius_mask(1, 4, 1), epsilon=0))
    torch.testing.assert_close(walked.flatten(), torch.tensor([0.5, 1 / 3, 0.0, 0.0]))


def test_background_walk_keeps_absent_classes_at_zero_and_matches_single_scores():
    maps, tags = torch.rand(2, 3, 2, 3), torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    steps = transition(torch.rand(2, 6, 6))
    both = propagate_with_background(maps, tags, (0.3, 0.6), steps)
    assert both.shape == (2, 2, 4, 2, 3)
    assert both[:, 0, 2].abs().max() == 0
    assert both[:, 1, 1].abs().max() == 0
    alone = propagate_with_background(maps, tags, (0.6,), steps)
    torch.testing.assert_close(both[1], alone[0])


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"\(B, h, w\)"):
        affinity_labels(torch.zeros(4, 4))
    with pytest.raises(ValueError, match="mask must be"):
        affinity_labels(torch.zeros(1, 2, 2), mask=torch.ones(3, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="affinity must be"):
        transition(torch.zeros(1, 3, 4))
    with pytest.raises(ValueError, match="radius"):
        radius_mask(2, 2, -1)
    with pytest.raises(ValueError, match="resize the maps"):
        propagate(torch.zeros(1, 1, 2, 2), torch.zeros(1, 9, 9))

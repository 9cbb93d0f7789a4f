from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from tagmask.losses.pairs import sampled_pair_loss
from tagmask.ops.affinity_pairs import (
    affinity_matrix,
    pair_affinity,
    pair_labels,
    pair_offsets,
    random_walk,
    walk_scores,
)


@pytest.fixture
def features() -> torch.Tensor:
    return torch.rand(2, 6, 9, 14, generator=torch.Generator().manual_seed(0))


def test_radius_five_has_the_papers_34_offsets() -> None:
    offsets = pair_offsets(5)
    assert len(offsets) == len(set(offsets)) == 34
    assert all(y > 0 or (y == 0 and x > 0) for y, x in offsets)
    assert all(y * y + x * x < 25 for y, x in offsets)


def test_affinity_is_the_exponential_of_the_mean_distance(features: torch.Tensor) -> None:
    affinity = pair_affinity(features, radius=3)
    offset = pair_offsets(3).index((1, -2))
    start, end = features[1, :, 2, 5], features[1, :, 3, 3]
    cell = 2 * (14 - 4) + (5 - 2)  # row 2, column 5 of a rectangle that starts at column 2
    torch.testing.assert_close(affinity[1, offset, cell], torch.exp(-(end - start).abs().mean()))


def test_gradients_are_those_of_the_plain_formula(features: torch.Tensor) -> None:
    leaf = features.clone().requires_grad_()
    ours = pair_affinity(leaf, radius=3)
    weights = torch.rand_like(ours)
    (ours * weights).sum().backward()
    plain = features.clone().requires_grad_()
    grid = torch.arange(9 * 14).view(9, 14)
    flat = plain.flatten(2)
    start = grid[:7, 2:12].flatten()
    ends = [grid[dy : dy + 7, 2 + dx : 12 + dx].flatten() for dy, dx in pair_offsets(3)]
    rows = [torch.exp(-(flat[:, :, end] - flat[:, :, start]).abs().mean(1)) for end in ends]
    (torch.stack(rows, 1) * weights).sum().backward()
    torch.testing.assert_close(leaf.grad, plain.grad)


def test_pair_labels_follow_the_definition() -> None:
    labels = torch.tensor([[0, 0, 1, 1, 255], [0, 2, 1, 2, 0], [0, 0, 0, 1, 1]])[None]
    background, foreground, negative = pair_labels(labels, radius=2)
    start = labels[0, :2, 1:4].flatten()
    for index, (dy, dx) in enumerate(pair_offsets(2)):
        end = labels[0, dy : dy + 2, 1 + dx : 4 + dx].flatten()
        known = (start != 255) & (end != 255)
        assert background[0, index].equal(known & (start == 0) & (end == 0))
        assert foreground[0, index].equal(known & (start == end) & (start > 0))
        assert negative[0, index].equal(known & (start != end))


@pytest.mark.parametrize("full", [False, True])
def test_walk_equals_the_dense_formulation(features: torch.Tensor, full: bool) -> None:
    affinity = pair_affinity(features[:1], 4, full)[0]
    scores = torch.rand(3, 9, 14, generator=torch.Generator().manual_seed(1))
    size, place = (9, 14), scores
    if full:  # the same walk on a map with a margin of cells that have no pairs
        size, place = (12, 20), F.pad(scores, (3, 3, 0, 3))
    dense = affinity_matrix(affinity, size, 4).double() ** 8
    dense = torch.matrix_power(dense / dense.sum(0, keepdim=True), 32)
    expected = (place.double().flatten(1) @ dense).view(3, *size)
    expected = expected[:, :9, 3:17] if full else expected
    ours = random_walk(scores, affinity, 4, beta=8, steps=32, full=full)
    torch.testing.assert_close(ours.double(), expected, atol=1e-6, rtol=1e-5)


def test_published_pairs_leave_corners_alone_and_full_ones_do_not(features: torch.Tensor) -> None:
    scores = torch.zeros(1, 9, 14)
    scores[0, 8, 0] = 1
    published = random_walk(scores, pair_affinity(features[:1])[0], steps=8)
    assert published.equal(scores)
    full = random_walk(scores, pair_affinity(features[:1], full=True)[0], steps=8, full=True)
    assert 0 < full[0, 8, 0].item() < 1


def test_walk_of_scores_keeps_the_size_of_images_that_are_no_multiple_of_the_stride() -> None:
    affinity = pair_affinity(torch.rand(1, 4, 6, 11), 3)[0]
    walked = walk_scores(torch.rand(2, 43, 85), affinity, stride=8, radius=3, steps=4)
    assert walked.shape == (2, 43, 85)
    # interpolation to the padded size, then a cut: never a stretch
    assert walk_scores(torch.ones(1, 48, 88), affinity, 8, 3, steps=0).eq(1).all()


def test_absent_kinds_of_pairs_cost_nothing() -> None:
    affinity = torch.full((1, 2, 3), 0.5, requires_grad=True)
    none = torch.zeros(1, 2, 3, dtype=torch.bool)
    loss = sampled_pair_loss(affinity, none, none, none)
    loss.total.backward()
    assert loss.total.item() == 0
    assert affinity.grad is not None
    assert affinity.grad.eq(0).all()


@pytest.mark.parametrize("size", [(4, 20), (20, 8)])
def test_maps_too_small_for_the_radius_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 5 x 9 cells"):
        pair_affinity(torch.rand(1, 3, *size))


def test_affinity_of_another_map_is_refused(features: torch.Tensor) -> None:
    affinity = pair_affinity(features[:1], 3)[0]
    with pytest.raises(ValueError, match="8 x 14 map"):
        random_walk(torch.rand(1, 8, 14), affinity, 3)
    with pytest.raises(ValueError, match="radius must be at least 2"):
        pair_offsets(1)


def test_what_is_padded_for_the_walk_has_no_score(features: torch.Tensor) -> None:
    affinity = pair_affinity(torch.rand(1, 4, 6, 11), 3)[0]
    # Half of the last cell's rows and three quarters of its columns lie outside the picture.
    found = walk_scores(torch.ones(1, 44, 82), affinity, stride=8, radius=3, steps=0)
    assert found[0, 20, 20] == 1
    assert found[0, 43, 20] == pytest.approx(0.5 + 0.5 / 16)
    assert found[0, 20, 81] < 0.6


def test_the_three_kinds_of_pairs_weigh_a_quarter_a_quarter_and_a_half() -> None:
    affinity = torch.tensor([0.9, 0.8, 0.5, 0.4, 0.3])
    background, foreground, negative = (
        torch.tensor(row, dtype=torch.bool) for row in ([1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 1])
    )
    loss = sampled_pair_loss(affinity, background, foreground, negative)
    parts = [-(math.log(0.9) + math.log(0.8)) / 2, -math.log(0.5), -(math.log(0.6) + math.log(0.7)) / 2]
    for value, part in zip(loss[1:], parts, strict=True):
        assert value.item() == pytest.approx(part, rel=1e-3)
    assert loss.total.item() == pytest.approx(parts[0] / 4 + parts[1] / 4 + parts[2] / 2, rel=1e-3)

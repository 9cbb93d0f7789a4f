"""Sliding windows: batched, merged once, equal to one window at a time."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tagmask.ops.segmentation_views import segment_views
from tagmask.ops.windows import run_windows, window_starts, windowed


def network(crops):
    """Coarse logits that depend on the whole crop."""
    small = F.avg_pool2d(crops, 8)
    return torch.cat([small, small.mean((1, 2, 3), keepdim=True) - small[:, :1]], 1)


def one_by_one(images, window, stride):
    """The definition: every window alone, logits summed and divided by how often a pixel was seen."""
    height, width = images.shape[-2:]
    made = []
    for image in images:
        total, seen = torch.zeros(4, height, width), torch.zeros(height, width)
        for top in window_starts(height, window, stride):
            for left in window_starts(width, window, stride):
                rows, columns = slice(top, top + window), slice(left, left + window)
                found = network(image[None, :, rows, columns])
                total[:, rows, columns] += F.interpolate(found, (window, window), mode="bilinear")[0]
                seen[rows, columns] += 1
        made.append(total / seen)
    return torch.stack(made)


def test_anchors_are_published_ones():
    assert window_starts(480, 480, 320) == [0]
    assert window_starts(520, 480, 320) == [0, 40]
    assert window_starts(1213, 480, 320) == [0, 320, 640, 733]
    with pytest.raises(ValueError, match="shorter than the window"):
        window_starts(479, 480, 320)
    with pytest.raises(ValueError, match="stride"):
        window_starts(480, 480, 500)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_batches_change_nothing(batch_size):
    torch.manual_seed(0)
    images = torch.rand(2, 3, 75, 90)
    made = windowed(network, 32, 21, batch_size)(images)
    torch.testing.assert_close(made, one_by_one(images, 32, 21))


def test_small_pictures_are_enlarged_and_keep_their_shape():
    made = windowed(network, 32, 21)(torch.rand(1, 3, 20, 31))
    assert made.shape == (1, 4, 32, 49)


def test_two_windows_are_not_two_exits():
    """With exits, and with exactly two windows in a batch, every axis keeps its meaning."""
    images = torch.rand(1, 3, 32, 48)
    both = windowed(lambda x: torch.stack([network(x), -network(x)], 1), 32, 21, 2)(images)
    assert both.shape == (1, 2, 4, 32, 48)
    one = windowed(network, 32, 21, 2)(images)
    torch.testing.assert_close(both[:, 0], one)
    torch.testing.assert_close(both[:, 1], -one)


def test_a_window_is_run_where_it_lies():
    images = torch.arange(40.0).expand(1, 3, 16, 40)
    assert torch.equal(run_windows(lambda crops: crops[:, :1], images, 16, 10)[0, 0, 0], images[0, 0, 0])


def test_exits_are_summed_as_probabilities():
    images = torch.rand(2, 3, 32, 48)
    options = {"flip": "mean", "merge": "mean", "probabilities": True}
    sizes = [(32, 48), (40, 60)]
    both = segment_views(
        lambda x: torch.stack([network(x), 3 * network(x)], 1),
        images,
        sizes,
        (32, 48),
        exits=(0.8, 1.0),
        **options,
    )
    first = segment_views(network, images, sizes, (32, 48), **options)
    second = segment_views(lambda x: 3 * network(x), images, sizes, (32, 48), **options)
    torch.testing.assert_close(both, 0.8 * first + second)
    torch.testing.assert_close(both.sum(1), torch.full((2, 32, 48), 1.8))

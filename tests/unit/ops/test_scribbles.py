from __future__ import annotations

import numpy as np
import pytest

from tagmask.ops.scribbles import UNMARKED, regions, spread_strokes


def disc(size=96):
    """A bright disc on a dark ground with noise, and which pixels it covers."""
    rows, columns = np.indices((size, size))
    inside = (rows - size / 2) ** 2 + (columns - size / 2) ** 2 < (size / 3.2) ** 2
    image = np.where(inside[..., None], (200, 160, 60), (40, 60, 110)).astype(float)
    return np.clip(image + np.random.default_rng(0).normal(0, 8, image.shape), 0, 255).astype(
        np.uint8
    ), inside


def test_regions_keep_to_the_edges_of_the_image():
    image, inside = disc()
    found = regions(image, 150)
    assert found.shape == inside.shape
    assert found.min() == 1
    assert 100 <= len(np.unique(found)) <= 200
    # The share of every region that lies on its larger side of the disc's edge.
    pure = sum(max(inside[found == k].sum(), (~inside[found == k]).sum()) for k in np.unique(found))
    assert pure / inside.size > 0.97
    assert regions(image[:1, :1]).tolist() == [[1]]


def test_two_strokes_find_the_object():
    image, inside = disc()
    strokes = np.full(inside.shape, UNMARKED, np.uint8)
    strokes[47:50, 40:56], strokes[2:4, 4:92] = 7, 0
    found = spread_strokes(image, strokes)
    assert set(np.unique(found)) == {0, 7}
    assert ((found == 7) & inside).sum() / ((found == 7) | inside).sum() > 0.95
    assert (found[strokes == 7] == 7).all()


def test_a_prior_holds_what_lies_far_from_a_stroke():
    image, inside = disc()
    before = np.zeros(inside.shape, np.uint8)
    before[:, :10] = 3
    strokes = np.full(inside.shape, UNMARKED, np.uint8)
    strokes[44:53, 40:56] = 7
    found = spread_strokes(image, strokes, before)
    assert ((found == 7) & inside).sum() > 0.5 * inside.sum()
    assert (found[:, :6] == 3).mean() > 0.9
    assert (found[-6:, -6:] == 0).all()


def test_what_cannot_be_spread():
    image, inside = disc(32)
    strokes = np.full(inside.shape, UNMARKED, np.uint8)
    with pytest.raises(ValueError, match="nothing is marked"):
        spread_strokes(image, strokes)
    with pytest.raises(ValueError, match="one size"):
        spread_strokes(image, strokes[:4])
    strokes[0, 0] = 4
    assert (spread_strokes(image, strokes) == 4).all()

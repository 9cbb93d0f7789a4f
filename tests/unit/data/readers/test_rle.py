"""Regions against the official toolkit, pixel for pixel."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagmask.data.readers.rle import decode_counts, draw_polygon, parse_counts, region_mask

official = pytest.importorskip("pycocotools.mask")
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")


def _drawn(points, size):
    return official.decode(official.frPyObjects([list(points)], *size))[..., 0].astype(bool)


def test_random_polygons_are_drawn_as_the_official_toolkit_draws_them():
    rng = np.random.default_rng(0)
    for turn in range(400):
        size = tuple(int(s) for s in rng.integers(1, 60, 2))
        points = rng.uniform(-10, 70, 2 * rng.integers(3, 9))
        points = np.round(points) if turn % 2 else points
        if turn % 5 == 0:
            points[2:4] = points[:2]  # a corner given twice
        np.testing.assert_array_equal(draw_polygon(points.tolist(), size), _drawn(points, size))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(1, 9))
def test_run_lengths_round_trip_through_the_compressed_text(runs, height):
    runs = [*runs, -sum(runs) % height or height]
    size = (height, sum(runs) // height)
    mask = decode_counts(runs, size)
    assert mask.sum() == sum(runs[1::2])
    packed = official.encode(np.asfortranarray(mask.astype(np.uint8)))
    text = packed["counts"].decode()
    np.testing.assert_array_equal(region_mask({"counts": text, "size": list(size)}, size), mask)
    np.testing.assert_array_equal(region_mask({"counts": packed["counts"], "size": size}, size), mask)
    assert sum(parse_counts(text)) == size[0] * size[1]


def test_polygons_of_one_object_are_joined():
    first, second = [0, 0, 4, 0, 4, 4, 0, 4], [6, 6, 9, 6, 9, 9, 6, 9]
    both = region_mask([first, second], (10, 10))
    np.testing.assert_array_equal(both, draw_polygon(first, (10, 10)) | draw_polygon(second, (10, 10)))
    assert not region_mask([], (10, 10)).any()


@pytest.mark.parametrize(
    ("region", "says"),
    [
        ({"counts": [5, 5], "size": [10, 10]}, "add up"),
        ({"counts": [-5, 105], "size": [10, 10]}, "add up"),
        ({"counts": [50.0, 50.0], "size": [10, 10]}, "whole numbers"),
        ({"counts": [100], "size": [9, 9]}, "image is"),
        ({"size": [10, 10]}, "need 'counts'"),
        ({"counts": "P", "size": [10, 10]}, "break off"),
        ({"counts": "\x7f", "size": [10, 10]}, "is not allowed"),
        ({"counts": "oooooooooooooooo", "size": [10, 10]}, "is not allowed"),
        ("text", "not str"),
        ([[1, 2, 3, 4]], "3 corners"),
        ([[1, 2, 3, 4, 5, 6, 7]], "3 corners"),
        ([[1, 2, 3, 4, 5, float("nan")]], "no numbers"),
        ([[1, 2, 3, 4, 5, 1e12]], "far outside"),
        ([["a", "b", "c", "d", "e", "f"]], "list of numbers"),
    ],
)
def test_broken_regions_are_refused(region, says):
    with pytest.raises(ValueError, match=says):
        region_mask(region, (10, 10))


@given(st.text(max_size=40))
def test_any_text_is_run_lengths_or_one_error(text):
    with suppress(ValueError):
        assert region_mask({"counts": text, "size": [7, 5]}, (7, 5)).shape == (7, 5)

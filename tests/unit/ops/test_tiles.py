from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tagmask.ops.tiles import join_tiles, tile_spans


@given(st.integers(1, 3000), st.integers(16, 300), st.floats(0, 0.5))
@settings(max_examples=200, deadline=None)
def test_tiles_cover_an_axis_and_their_shares_add_up(side, tile, share):
    overlap = int(share * tile)
    spans = tile_spans(side, tile, overlap)
    assert spans.length <= max(tile, 1)
    assert spans.starts[0] == 0
    assert spans.starts[-1] + spans.length == side
    total = torch.zeros(side)
    for index, start in enumerate(spans.starts):
        weights = spans.weights(index)
        assert (weights >= 0).all()
        total[start : start + spans.length] += weights
    torch.testing.assert_close(total, torch.ones(side))


def test_tiles_start_on_the_patch_grid():
    assert all(start % 16 == 0 for start in tile_spans(20000, 1024, 128).starts[:-1])
    with pytest.raises(ValueError, match="0 to half"):
        tile_spans(100, 50, 26)


def joined(fn, picture, tile, overlap, batch_size=1):
    rows, columns = (tile_spans(side, tile, overlap) for side in picture.shape[1:])
    result = torch.full((2, *picture.shape[1:]), torch.nan)

    def emit(top, left, values):
        place = result[:, top : top + values.shape[1], left : left + values.shape[2]]
        assert place.isnan().all()  # every pixel once
        place.copy_(values)

    def cut(top, left, height, width):
        return picture[:, top : top + height, left : left + width]

    join_tiles(fn, cut, emit, rows, columns, batch_size)
    return result


@pytest.mark.parametrize("size", [(40, 50), (64, 64), (65, 64), (211, 97), (100, 333)])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_what_looks_at_single_pixels_is_the_same_in_tiles(size, batch_size):
    torch.manual_seed(0)
    picture = torch.rand(3, *size)

    def fn(images):
        return torch.stack([images.sum(1), images[:, 0] * 2], 1)

    whole = fn(picture[None])[0]
    torch.testing.assert_close(joined(fn, picture, 64, 20, batch_size), whole)


def test_what_looks_around_differs_near_the_tiles_ends_only_and_fades():
    torch.manual_seed(0)
    picture, kernel = torch.rand(3, 200, 260), torch.rand(2, 3, 9, 9) / 243

    def fn(images):
        return torch.nn.functional.conv2d(images, kernel, padding=4)

    whole, tiled = fn(picture[None])[0], joined(fn, picture, 96, 32)
    difference = (whole - tiled).abs()
    assert (difference < 1e-5).float().mean() > 0.7
    # A hard cut would show the full error of a tile's border, which padding with zeros roughly halves.
    assert difference.max() < 0.1 * whole.max()


@pytest.mark.parametrize("size", [(40, 500), (65, 64), (97, 211), (1, 3000)])
def test_wide_pictures_go_by_columns_and_keep_little_in_memory(monkeypatch, size):
    torch.manual_seed(0)
    picture = torch.rand(3, *size)
    seen = []

    def fn(images):
        seen.append(images.shape[2:])
        return torch.stack([images.sum(1), images[:, 0] * 2], 1)

    before = joined(fn, picture, 64, 20)
    shapes = list(seen)
    seen.clear()
    monkeypatch.setattr("tagmask.ops.tiles._MANY", 0)
    torch.testing.assert_close(joined(fn, picture, 64, 20), before)
    assert sorted(seen) == sorted(shapes)  # the network sees no picture turned
    # One row of tiles hands nothing to a next one.
    assert tile_spans(1, 1024, 128).overlap == 0

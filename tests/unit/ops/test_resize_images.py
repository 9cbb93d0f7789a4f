import math

import pytest
import torch
import torch.nn.functional as F

from tagmask.ops.images import truncated_levels
from tagmask.ops.resize import pad_to_multiple, resize_bilinear, resize_positions
from tagmask.ops.schedules import cosine_by_epoch, cosine_warmup, poly_warmup

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def rows(side=4, dim=3):
    torch.manual_seed(0)
    return torch.randn(1, side * side, dim)


def test_positions_keep_their_order_and_size():
    table = resize_positions(rows(), (4, 4))
    torch.testing.assert_close(table, rows())
    assert resize_positions(rows(), (3, 7)).shape == (1, 21, 3)


def test_the_offset_rule_is_not_a_resize_to_the_grid():
    plain, offset = resize_positions(rows(), (6, 5)), resize_positions(rows(), (6, 5), offset=0.1)
    assert offset.shape == plain.shape
    assert (offset - plain).abs().max() > 0.01
    table = rows().transpose(1, 2).reshape(1, 3, 4, 4)
    written_out = F.interpolate(
        table, scale_factor=(6.1 / 4, 5.1 / 4), mode="bicubic", recompute_scale_factor=False
    )
    torch.testing.assert_close(offset, written_out.flatten(2).transpose(1, 2))


def test_positions_that_fill_no_grid_are_refused():
    with pytest.raises(ValueError, match="do not fill a grid"):
        resize_positions(rows()[:, :-1], (4, 4))
    with pytest.raises(ValueError, match="nearest"):
        resize_positions(rows(), (8, 8), offset=0.1, mode="nearest")
    assert torch.equal(resize_positions(rows(), (8, 8), mode="nearest")[0, 9], rows()[0, 0])


def test_padding_reaches_the_next_multiple_only():
    images = torch.ones(1, 3, 17, 32)
    padded = pad_to_multiple(images, 16)
    assert padded.shape == (1, 3, 32, 32)
    assert padded.sum() == images.sum()
    assert pad_to_multiple(images, 1) is images
    assert resize_bilinear(images, (17, 32)) is images


def test_truncation_loses_at_most_one_level():
    levels = torch.arange(256).repeat(3, 1).view(1, 3, 16, 16).float()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    back = truncated_levels((levels / 255 - mean) / std, MEAN, STD) * 255
    lost = levels - back.round()
    assert set(lost.unique().tolist()) == {0.0, 1.0}
    assert lost.mean() < 0.1


def test_the_rate_starts_small_peaks_after_warm_up_and_ends_at_zero():
    assert poly_warmup(0, 20000, 1500) == pytest.approx(1e-6)
    assert poly_warmup(750, 20000, 1500) == pytest.approx(0.5, abs=1e-3)
    assert poly_warmup(1500, 20000, 1500) == pytest.approx((1 - 1500 / 20000) ** 0.9)
    assert poly_warmup(20000, 20000, 1500) == 0
    assert poly_warmup(3, 10, 0) == pytest.approx(0.7**0.9)


def test_an_exact_factor_sets_the_distance_of_samples():
    row = torch.arange(11.0).view(1, 1, 1, 11).expand(1, 1, 3, 11)
    # 0.5 * 11 is rounded down to 5: samples lie 2 apart, not 11 / 5.
    exact = resize_bilinear(row, (1, 5), factor=0.5)[0, 0, 0]
    torch.testing.assert_close(exact, torch.arange(5) * 2 + 0.5)
    ratio = resize_bilinear(row, (1, 5))[0, 0, 0]
    torch.testing.assert_close(ratio, torch.arange(5) * 2.2 + 0.6)


def test_rates_by_epoch_trail_the_epoch_by_one():
    rates = [
        cosine_by_epoch(step, 60, 6, 1e-3, warmup=2, start=1e-6, floor=1e-5) for step in range(0, 60, 10)
    ]
    cosine = [1e-2 + 0.5 * (1 - 1e-2) * (1 + math.cos(math.pi * epoch / 6)) for epoch in (2, 3, 4)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3 + (1 - 1e-3) / 2, *cosine])
    ahead = [cosine_by_epoch(step, 60, 6, 1e-3, 2, 1e-6, 1e-5, lag=0) for step in range(0, 60, 10)]
    assert ahead[:5] == pytest.approx(rates[1:])
    assert cosine_by_epoch(19, 60, 6, 1e-3, 2) == cosine_by_epoch(10, 60, 6, 1e-3, 2)


def test_rates_after_a_warm_up_go_down_half_a_cosine():
    rates = [cosine_warmup(step, 10, 3, 1e-2, start=1e-4, floor=1e-3) for step in range(11)]
    assert rates[:3] == pytest.approx([0.01, 0.505, 1])
    assert rates[3] == pytest.approx(1)
    assert rates[10] == pytest.approx(0.1)
    assert rates[6] == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi * 3 / 7)))

"""What the multi-stage methods ask of `multi_scale` beyond scales and flips."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tagmask.ops.maps import min_max, scale_maps
from tagmask.ops.multiscale import multi_scale, view_sizes
from tagmask.ops.resize import pad_to_multiple
from tagmask.types import ViewPlan

PLAN = ViewPlan(flip="sum", relu="sum")


def first_channel(view: torch.Tensor) -> dict[str, torch.Tensor]:
    """A network that sees patches of 8 pixels and says how red they are."""
    return {"cam": torch.nn.functional.avg_pool2d(view[:, :1], 8)}


@pytest.mark.parametrize("mirror_padding", [False, True])
def test_padding_never_shows_in_the_maps(mirror_padding: bool) -> None:
    images = torch.full((1, 3, 20, 27), 0.7)
    plan = dataclasses.replace(
        PLAN, pad=8, pad_colour=(0.7, 0.7, 0.7), mirror_padding=mirror_padding, scaling="max", epsilon=1.0
    )
    maps = multi_scale(first_channel, images, plan)["cam"]
    assert maps.shape == (1, 1, 20, 27)
    torch.testing.assert_close(maps, torch.full_like(maps, 1.4 / 2.4))


@pytest.mark.parametrize("mirror_padding", [False, True])
def test_twins_meet_again_where_they_belong(mirror_padding: bool) -> None:
    images = torch.zeros(1, 3, 16, 29)
    images[:, :, :, :8] = 1.0
    plan = dataclasses.replace(PLAN, pad=8, pad_colour=(0.0,) * 3, mirror_padding=mirror_padding)
    seen: list[torch.Size] = []

    def fn(view: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.append(view.shape)
        return first_channel(view)

    maps = multi_scale(fn, images, plan)["cam"][0, 0]
    assert seen == [torch.Size((2, 3, 16, 32))]
    assert maps[:, :4].min() > 0.9
    assert maps[:, 16:].max() < 0.1


def test_squares_and_rounding() -> None:
    assert view_sizes(33, 50, (0.5, 1.0), base=32) == [(16, 16), (32, 32)]
    assert view_sizes(33, 51, (0.75,)) == [(24, 38)]
    assert view_sizes(33, 51, (0.75,), rounding="nearest") == [(25, 38)]


def test_scaling_rules() -> None:
    maps = torch.tensor([[[[2.0, 3.0, 4.0]]], [[[0.0, 1e-6, 4.0]]]])
    torch.testing.assert_close(scale_maps(maps, "max", 0.0)[0, 0, 0], torch.tensor([0.5, 0.75, 1.0]))
    assert torch.equal(scale_maps(maps, "min_max"), min_max(maps))
    shifted = scale_maps(maps, "shifted")
    low = (0 - 2 - 1e-5) / (2 + 1e-5)  # the smallest value of a map far from 0 becomes strongly negative
    torch.testing.assert_close(shifted[0, 0, 0], torch.tensor([low, 0.5, 1.0]), atol=2e-5, rtol=0)
    torch.testing.assert_close(shifted[1, 0, 0], torch.tensor([0.0, 0.0, 1.0]), atol=2e-5, rtol=0)
    assert scale_maps(torch.zeros(1, 1, 2, 2), "shifted").eq(-1).all()
    with pytest.raises(ValueError, match="'min_max', 'shifted' or 'max'"):
        scale_maps(maps, "softmax")


def test_padding_has_a_colour_per_channel() -> None:
    padded = pad_to_multiple(torch.zeros(2, 3, 5, 7), 4, (0.1, 0.2, 0.3))
    assert padded.shape == (2, 3, 8, 8)
    assert padded[:, :, :5, :7].eq(0).all()
    torch.testing.assert_close(padded[1, :, 7, 0], torch.tensor([0.1, 0.2, 0.3]))
    whole = torch.zeros(1, 3, 4, 8)
    assert pad_to_multiple(whole, 4, (0.1, 0.2, 0.3)) is whole


@pytest.mark.parametrize(
    ("change", "match"),
    [({"rounding": "up"}, "rounding"), ({"resample": "cubic"}, "resample"), ({"pad": 0}, "pad")],
)
def test_unknown_rules_are_refused(change: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        multi_scale(first_channel, torch.rand(1, 3, 16, 16), dataclasses.replace(PLAN, **change))

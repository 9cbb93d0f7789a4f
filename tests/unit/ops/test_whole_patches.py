"""Images of any size on whole patches: nothing is lost at the border, nothing is stretched."""

from dataclasses import replace

import pytest
import torch

from tagmask.ops.multiscale import multi_scale
from tagmask.ops.pooling import soft_pool
from tagmask.ops.resize import on_whole_patches
from tagmask.training.padding import on_patches
from tagmask.types import MEAN_COLOUR, Batch, ViewPlan


def _cells(images):
    """A network that answers for every patch of 16 and takes whole ones only."""
    assert not images.shape[2] % 16
    assert not images.shape[3] % 16
    return {"cam": torch.nn.functional.avg_pool2d(images[:, :1], 16)}


@pytest.mark.parametrize("flip", ["none", "max"])
@pytest.mark.parametrize("scales", [(1.0,), (1.0, 0.5, 0.75, 1.5), (0.5,)])
@pytest.mark.parametrize("size", [(375, 500), (365, 511), (370, 499)])
def test_edges_are_found_where_they_are_at_any_size(size, scales, flip):
    """Padded views are cut back; stretched ones would move an edge by up to a patch."""
    row, column = size[0] - 35, size[1] - 40
    for place, axis in ((row, 0), (column, 1)):
        image = torch.zeros(1, 3, *size)
        image[(..., slice(place, None), slice(None)) if axis == 0 else (..., slice(place, None))] = 1
        maps = multi_scale(_cells, image, ViewPlan(scales=scales, flip=flip, pad=16))["cam"][0, 0]
        line = maps[:, 100] if axis == 0 else maps[200]
        # Patches blur an edge over a cell of the smallest view, and put its middle where the edge is.
        assert abs(int((line > 0.5).nonzero()[0]) - place) <= 8 / min(scales)


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (15, 15), (24, 2000)])
def test_views_of_the_smallest_images_hold_a_pixel(size):
    maps = multi_scale(_cells, torch.rand(1, 3, *size), ViewPlan(scales=(1.0, 0.25), pad=16))["cam"]
    assert maps.shape == (1, 1, *size)
    assert maps.isfinite().all()


def test_a_function_of_patches_answers_for_pixels():
    images = torch.rand(2, 3, 20, 50)
    found = on_whole_patches(lambda x: _cells(x)["cam"], 16, (0.5, 0.5, 0.5))(images)
    assert found.shape == (2, 1, 20, 50)
    whole = on_whole_patches(lambda x: _cells(x)["cam"], 16, 0.0)(images[..., :16, :48])
    assert whole.shape == (2, 1, 1, 3)


def test_training_images_are_padded_with_what_is_known_of_them():
    labels = torch.ones(2, 20, 50, dtype=torch.int64)
    batch = Batch(torch.zeros(2, 3, 20, 50), torch.ones(2, 3), ("a", "b"), labels=labels)
    padded = on_patches(replace(batch, corrected=batch), 16)
    for one in (padded, padded.corrected):
        assert one.images.shape == (2, 3, 32, 64)
        assert one.boxes.tolist() == [[0, 20, 0, 50]] * 2
        assert (one.labels == 255).sum() == 2 * (32 * 64 - 20 * 50)
        assert torch.equal(one.images[0, :, 25, 60], torch.tensor(MEAN_COLOUR))

    assert on_patches(replace(padded, corrected=None), 16).images is padded.images


class _Pooled(torch.nn.Module):
    def __init__(self, how, share):
        super().__init__()
        self.how, self.share = how, share

    def forward(self, maps):
        return soft_pool(maps, self.how, self.share)


@pytest.mark.parametrize("how", ["mean", "top", "lse"])
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_traced_pooling_serves_every_size(how, share):
    sides = {2: torch.export.Dim("h", min=2, max=99), 3: torch.export.Dim("w", min=2, max=99)}
    program = torch.export.export(
        _Pooled(how, share), (torch.rand(2, 3, 4, 6),), dynamic_shapes={"maps": sides}, strict=False
    ).module()
    for size in ((4, 6), (2, 2), (5, 5), (9, 13), (40, 3)):
        maps = torch.randn(2, 3, *size)
        torch.testing.assert_close(program(maps), soft_pool(maps, how, share))

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from tagmask.ops.maps import min_max
from tagmask.ops.multiscale import in_small_calls, multi_scale, view_sizes
from tagmask.ops.segmentation_views import segment_views
from tagmask.types import ViewPlan


def red(view):
    """Maps on a grid of 8 pixels that depend on place and content, and are not mirror symmetric."""
    grid = F.avg_pool2d(view[:, :2], 8)
    return {"cam": grid * torch.linspace(0, 1, grid.shape[3]) - 0.2, "other": -grid}


def images():
    torch.manual_seed(0)
    return torch.rand(2, 3, 32, 40)


def by_hand(x, plan, kind="cam"):
    total = 0
    for scale in plan.scales:
        view = F.interpolate(x, size=(int(scale * 32), int(scale * 40)), mode="bilinear")
        plain = F.interpolate(red(view)[kind], size=(32, 40), mode="bilinear")
        twin = F.interpolate(red(view.flip(3))[kind], size=(32, 40), mode="bilinear").flip(3)
        merged = torch.maximum(plain, twin) if plan.flip == "max" else plain + twin
        total = total + (merged.relu() if plan.relu == "view" else merged)
    return min_max(total.relu() if plan.relu == "sum" else total, plan.epsilon)


@pytest.mark.parametrize("flip", ["max", "sum"])
@pytest.mark.parametrize("relu", ["view", "sum", "none"])
def test_views_are_merged_as_written_out(flip, relu):
    plan = ViewPlan(scales=(1.0, 0.5, 1.55), flip=flip, relu=relu)
    merged = multi_scale(red, images(), plan)
    for kind in ("cam", "other"):
        torch.testing.assert_close(merged[kind], by_hand(images(), plan, kind))


@pytest.mark.parametrize("flip", ["max", "none"])
def test_a_known_view_is_not_run_again_and_changes_nothing(flip):
    plan, seen = ViewPlan(scales=(1.0, 0.5), flip=flip), []

    def counted(view):
        seen.append(tuple(view.shape))
        return red(view)

    whole = multi_scale(counted, images(), plan)
    runs = sum(shape[0] * shape[2] for shape in seen)
    seen.clear()
    torch.testing.assert_close(multi_scale(counted, images(), plan, known=red(images())), whole)
    assert runs - sum(shape[0] * shape[2] for shape in seen) == 2 * 32


def test_unknown_rules_are_refused():
    for wrong in ({"flip": "mean"}, {"relu": "always"}, {"scales": ()}, {"scales": (0.0,)}):
        with pytest.raises(ValueError, match="must be"):
            multi_scale(red, images(), dataclasses.replace(ViewPlan(), **wrong))


def logits(view):
    return F.avg_pool2d(view, 8) * torch.linspace(-1, 1, view.shape[3] // 8)


def test_segmentation_sums_twins_and_keeps_the_largest_scale():
    x, sizes = images(), view_sizes(32, 40, (1.0, 1.5), base=32)
    assert sizes == [(32, 32), (48, 48)]
    sums = []
    for size in sizes:
        view = F.interpolate(x, size=size, mode="bilinear")
        twin = logits(view.flip(3)).flip(3)
        sums.append(sum(F.interpolate(p, size=(32, 40), mode="bilinear") for p in (logits(view), twin)))
    merged = segment_views(logits, x, sizes, (32, 40))
    torch.testing.assert_close(merged, torch.maximum(*sums))
    mean = segment_views(logits, x, sizes, (32, 40), flip="mean", merge="mean")
    torch.testing.assert_close(mean, (sums[0] + sums[1]) / 4)


def test_segmentation_can_merge_probabilities_and_refuses_nonsense():
    merged = segment_views(
        logits, images(), [(32, 40)], (32, 40), flip="mean", merge="sum", probabilities=True
    )
    torch.testing.assert_close(merged.sum(1), torch.ones(2, 32, 40))
    with pytest.raises(ValueError, match="flip"):
        segment_views(logits, images(), [(32, 40)], (32, 40), flip="max")
    with pytest.raises(ValueError, match="0 sizes"):
        segment_views(logits, images(), [], (32, 40))


def test_many_views_go_through_in_small_calls():
    counts = []

    def fn(views):
        counts.append(len(views))
        return {"cam": views.mean((2, 3), keepdim=True)}

    views = torch.rand(5, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    assert torch.equal(in_small_calls(fn, views)["cam"], fn(views)["cam"])
    assert counts == [2, 2, 1, 5]

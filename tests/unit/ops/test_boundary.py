"""Edge evidence: equal to its definition, and highest where the outline is the thing's own."""

from __future__ import annotations

import pytest
import torch

from tagmask.ops.boundary import colour_steps, cut_evidence

THRESHOLDS = torch.linspace(0.0, 0.96, 25)


def by_definition(class_map, steps, threshold):
    down, right = steps
    cut = class_map > threshold
    below, beside = cut[1:] != cut[:-1], cut[:, 1:] != cut[:, :-1]
    length = int(below.sum() + beside.sum())
    if not length:
        return 0.0
    usual = (down.sum() + right.sum()) / (down.numel() + right.numel())
    share = cut.float().mean()
    along = ((down * below).sum() + (right * beside).sum()) / length
    return float((along / usual - 1) * torch.minimum(share, 1 - share) ** 0.4)


def test_all_thresholds_at_once_give_the_definition():
    torch.manual_seed(0)
    image, class_map = torch.rand(3, 30, 40), torch.rand(30, 40)
    steps = colour_steps(image, strongest=float("inf"))
    found = cut_evidence(class_map, steps, THRESHOLDS)
    expected = [by_definition(class_map, steps, threshold) for threshold in THRESHOLDS]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("radius", [6, 12, 20])
def test_the_best_cut_is_the_edge_of_the_thing(radius):
    torch.manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    far = ((rows - 30) ** 2 + (columns - 34) ** 2).sqrt()
    image = torch.where(far < radius, 0.8, 0.3).expand(3, -1, -1) + 0.02 * torch.randn(3, 64, 64)
    class_map = (-far / 25).exp()  # wide and soft: it knows where the thing is, not how large
    found = cut_evidence(class_map, colour_steps(image), THRESHOLDS)
    best = float(THRESHOLDS[found.argmax()])
    assert abs(-25 * torch.tensor(best).log() - radius) < 2
    elsewhere = found[(found.argmax() - torch.arange(len(found))).abs() > 1]
    assert found.max() > 5 * elsewhere.max()


def test_a_map_that_knows_nothing_of_the_image_has_no_evidence():
    torch.manual_seed(0)
    image, class_map = torch.rand(3, 96, 96), torch.rand(96, 96)
    assert cut_evidence(class_map, colour_steps(image), THRESHOLDS).abs().max() < 0.03


def test_one_glaring_edge_is_capped():
    image = torch.full((3, 40, 40), 0.5)
    image[:, 20:] = 0.6
    image[:, :, 39:] = 50.0
    down, right = colour_steps(image)
    plain_down, plain_right = colour_steps(image, float("inf"))
    usual = float((plain_down.sum() + plain_right.sum()) / (down.numel() + right.numel()))
    assert float(right.max()) == pytest.approx(6 * usual)
    assert float(plain_right.max()) > 40
    flat, _ = colour_steps(torch.zeros(3, 8, 8))
    assert float(flat.max()) == 0

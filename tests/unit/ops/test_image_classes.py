"""What an image shows as a whole, in the scores of its pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tagmask.ops.image_classes import one_class_scores, tag_weighted_scores

TAGS = torch.tensor([[0.0, 2.0, -1.0, 4.0], [-3.0, -2.0, -1.0, -4.0], [1.0, 1.5, 0.0, 0.0]])


def scores():
    return torch.randn(3, 5, 6, 7, generator=torch.Generator().manual_seed(0)) * 3


def shares(tags, nothing):
    """Probabilities of what an image shows, nothing first, by the definition."""
    odds = torch.cat([torch.full((len(tags), 1), float(nothing)), tags.exp()], 1)
    return odds / odds.sum(1, keepdim=True)


@pytest.mark.parametrize("nothing", [True, False])
def test_every_pixel_puts_the_same_class_first_and_it_is_the_likeliest_of_the_image(nothing):
    given, image = scores(), shares(TAGS, nothing)
    pixels = given.softmax(1)[:, 1:] * image[:, 1:, None, None]
    absent = image[:, :1, None, None]
    background = given.softmax(1)[:, :1] * (1 - absent) + absent
    likeliest = (pixels / (pixels.sum(1, keepdim=True) + background)).mean((2, 3)).argmax(1)
    found = one_class_scores(given, TAGS, 1.0, nothing)
    first = found[:, 1:].argmax(1)
    assert torch.equal(first, likeliest[:, None, None].expand_as(first))
    torch.testing.assert_close(found[:, :1].exp(), background)
    torch.testing.assert_close(found[:, 1:].amax(1).exp(), pixels.sum(1))


def test_an_image_that_likely_shows_nothing_is_background():
    given = torch.zeros(1, 3, 4, 4)
    given[:, 1] = 6.0
    assert bool((one_class_scores(given, torch.tensor([[-3.0, -3.0]]), 1.0, True).argmax(1) == 0).all())
    assert bool((one_class_scores(given, torch.tensor([[-3.0, -3.0]]), 1.0, False).argmax(1) == 1).all())
    assert bool((one_class_scores(given, torch.tensor([[3.0, -3.0]]), 1.0, True).argmax(1) == 1).all())


@pytest.mark.parametrize("nothing", [True, False])
def test_power_0_makes_no_use_of_the_tags(nothing):
    given = scores()
    found = one_class_scores(given, TAGS, 0.0, nothing)
    torch.testing.assert_close(found, one_class_scores(given, -TAGS, 0.0, nothing))
    together = given.softmax(1)[:, 1:].sum(1) > given.softmax(1)[:, 0]
    assert torch.equal(found.argmax(1) > 0, together)


@pytest.mark.parametrize("tags", [-200.0, 200.0])
@pytest.mark.parametrize("nothing", [True, False])
def test_scores_without_any_doubt_stay_finite(tags, nothing):
    given = torch.full((1, 3, 2, 2), -300.0)
    given[:, 0] = 300.0
    image = torch.full((1, 2), tags, requires_grad=True)
    found = one_class_scores(given.requires_grad_(), image, 1.0, nothing)
    assert bool(found.isfinite().all())
    found.sum().backward()
    assert bool(given.grad.isfinite().all())
    assert bool(image.grad.isfinite().all())


def test_arrays_give_arrays():
    found = one_class_scores(scores().numpy(), TAGS.numpy(), 1.0, True)
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, one_class_scores(scores(), TAGS, 1.0, True).numpy())


def test_tags_multiply_the_probabilities_of_their_classes():
    given = scores()
    weighted = tag_weighted_scores(given, TAGS, 2.0).softmax(1)
    expected = given.softmax(1)
    expected[:, 1:] *= TAGS.sigmoid()[:, :, None, None] ** 2
    torch.testing.assert_close(weighted, expected / expected.sum(1, keepdim=True))
    torch.testing.assert_close(tag_weighted_scores(given, TAGS, 0.0), given)

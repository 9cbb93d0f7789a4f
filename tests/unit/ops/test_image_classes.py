"""What an image shows as a whole, in the scores of its pixels."""

from __future__ import annotations

import numpy as np
import torch

from tagmask.ops.image_classes import one_class_scores, tag_weighted_scores


def scores():
    return torch.randn(3, 5, 6, 7, generator=torch.Generator().manual_seed(0)) * 3


def test_every_pixel_puts_the_same_class_first_and_it_is_the_likeliest_of_the_image():
    given = scores()
    found = one_class_scores(given)
    first = found[:, 1:].argmax(1)
    likeliest = given.softmax(1)[:, 1:].mean((2, 3)).argmax(1)
    assert torch.equal(first, likeliest[:, None, None].expand_as(first))


def test_the_foreground_of_a_pixel_is_what_its_classes_have_together():
    given = scores()
    found = one_class_scores(given)
    together = given.softmax(1)[:, 1:].sum(1) > given.softmax(1)[:, 0]
    assert torch.equal(found.argmax(1) > 0, together)
    assert bool(((given.argmax(1) > 0) <= together).all())  # two halves of a thing no longer lose to nothing


def test_one_class_alone_is_left_as_it_is():
    given = scores()[:, :2]
    torch.testing.assert_close(one_class_scores(given), given)


def test_scores_without_any_chance_stay_finite():
    given = torch.full((1, 3, 2, 2), -300.0)
    given[:, 0] = 300.0
    assert bool(one_class_scores(given).isfinite().all())


def test_arrays_give_arrays():
    given = scores()
    found = one_class_scores(given.numpy())
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, one_class_scores(given).numpy())


def test_tags_multiply_the_probabilities_of_their_classes():
    given, tags = scores(), torch.tensor([[0.0, 2.0, -1.0, 4.0]]).expand(3, 4)
    weighted = tag_weighted_scores(given, tags, 2.0).softmax(1)
    shares = given.softmax(1)
    shares[:, 1:] *= tags.sigmoid()[:, :, None, None] ** 2
    torch.testing.assert_close(weighted, shares / shares.sum(1, keepdim=True))
    torch.testing.assert_close(tag_weighted_scores(given, tags, 0.0), given)

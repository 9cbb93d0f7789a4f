from __future__ import annotations

import pytest
import torch

from tagmask.losses.clipped import clip_pixel_loss, pixel_cross_entropy


def test_pixels_above_what_is_usual_keep_the_limit_without_gradient():
    pixels = torch.full((1, 2, 4), 0.1)
    pixels[0, :, 2:] = torch.tensor([[0.4, 0.2], [2.0, 0.2]])  # the right patch is harder: its mean is 0.7
    pixels[0, 0, 0] = 0.3  # above its patch's mean (0.15), below that of the batch (0.425)
    pixels.requires_grad_()
    kept = clip_pixel_loss(pixels, start=1.2, patch=2)
    kept.sum().backward()
    expected = pixels.detach().clone()
    expected[0, 1, 2] = 0.7
    torch.testing.assert_close(kept.detach(), expected)
    assert (pixels.grad == 0).nonzero().tolist() == [[0, 1, 2]]


def test_nothing_is_cut_while_the_mean_loss_is_large():
    pixels = torch.tensor([[[1.0, 9.0], [1.0, 1.0]]])
    assert torch.equal(clip_pixel_loss(pixels, start=1.2, patch=2), pixels)
    assert clip_pixel_loss(pixels, start=3.0, patch=2).max() == 3
    with pytest.raises(ValueError, match="must divide"):
        clip_pixel_loss(pixels, patch=3)


def test_limits_are_means_over_the_batch():
    first, second = torch.zeros(2, 2), torch.zeros(2, 2)
    first[0, 0], second[1, 1] = 0.8, 0.4
    kept = clip_pixel_loss(torch.stack([first, second]), patch=2)
    assert kept.max() == pytest.approx(1.2 / 8)


def test_undecided_pixels_have_no_loss():
    logits = torch.zeros(1, 2, 1, 2)
    found = pixel_cross_entropy(logits, torch.tensor([[[1, 255]]]))
    assert found.flatten().tolist() == pytest.approx([0.6931472, 0])

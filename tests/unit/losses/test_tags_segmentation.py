import math

import pytest
import torch
import torch.nn.functional as F

from tagmask.losses.segmentation import balanced_cross_entropy, mean_cross_entropy
from tagmask.losses.tags import multilabel_soft_margin


def test_soft_margin_is_binary_cross_entropy():
    torch.manual_seed(0)
    logits, tags = torch.randn(3, 4), (torch.rand(3, 4) > 0.5).float()
    expected = F.binary_cross_entropy_with_logits(logits, tags)
    torch.testing.assert_close(multilabel_soft_margin(logits, tags), expected)
    assert multilabel_soft_margin(logits.bfloat16(), tags).dtype == torch.float32


def test_both_halves_weigh_the_same_whatever_their_size():
    logits = torch.zeros(1, 3, 2, 4, requires_grad=True)
    labels = torch.zeros(1, 2, 4, dtype=torch.int64)
    labels[0, 0, 0] = 2
    loss = balanced_cross_entropy(logits, labels)
    assert loss.item() == pytest.approx(math.log(3), rel=1e-5)
    loss.backward()
    background = logits.grad[0, 0][labels[0] == 0].sum()
    foreground = logits.grad[0, 2, 0, 0]
    torch.testing.assert_close(background, foreground, rtol=1e-5, atol=1e-6)


def test_an_undecided_crop_gives_zero_not_nan():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = balanced_cross_entropy(logits, torch.full((2, 4, 4), 255))
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="resize the logits"):
        balanced_cross_entropy(torch.zeros(1, 3, 2, 2), torch.zeros(1, 4, 4, dtype=torch.int64))


def test_undecided_pixels_do_not_count():
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 2, 3)
    labels = torch.tensor([[[0, 0, 255], [2, 255, 255]]])
    each = F.cross_entropy(logits, labels.clamp(max=2), reduction="none")[0]
    background, foreground = (each[0, 0] + each[0, 1]) / 2, each[1, 0]
    torch.testing.assert_close(mean_cross_entropy(logits, labels), (2 * background + foreground) / 3)
    torch.testing.assert_close(balanced_cross_entropy(logits, labels), (background + foreground) / 2)

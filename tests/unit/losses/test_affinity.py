from __future__ import annotations

import pytest
import torch

from tagmask.losses.affinity import pair_loss


def test_pair_loss_by_hand():
    affinity = torch.tensor([[[0.9, 0.2], [0.4, 0.7]]])
    labels = torch.tensor([[[1, 0], [0, 255]]])
    expected = 0.5 * 0.1 / 2 + 0.5 * (0.2 + 0.4) / 3
    assert pair_loss(affinity, labels).item() == pytest.approx(expected)
    assert pair_loss(affinity, labels, bias=True).item() == pytest.approx(expected + 0.5 / 2)


def test_bias_leaves_the_gradient_alone():
    labels = torch.randint(0, 2, (2, 4, 4))
    gradients = []
    for bias in (False, True):
        affinity = torch.full((2, 4, 4), 0.3, requires_grad=True)
        pair_loss(affinity, labels, bias=bias).backward()
        gradients.append(affinity.grad)
    assert torch.equal(gradients[0], gradients[1])


def test_leading_axes_are_layers():
    affinity, labels = torch.rand(3, 2, 5, 5), torch.randint(0, 3, (2, 5, 5))
    expected = torch.stack([pair_loss(layer, labels) for layer in affinity])
    torch.testing.assert_close(pair_loss(affinity, labels), expected)


def test_all_ignored_is_zero_with_zero_gradient():
    affinity = torch.rand(1, 3, 3, requires_grad=True)
    loss = pair_loss(affinity, torch.full((1, 3, 3), 255))
    loss.backward()
    assert loss.item() == 0
    assert affinity.grad.abs().max() == 0


def test_shape_mismatch_is_named():
    with pytest.raises(ValueError, match="must end like labels"):
        pair_loss(torch.zeros(1, 3, 3), torch.zeros(1, 2, 2))

from __future__ import annotations

import torch

from tagmask.heads.pairs import PairAffinity


def _attention():
    return [(torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4)) for _ in range(2)]


def test_equals_a_convolution_over_symmetric_score_maps():
    head, attention = PairAffinity(6), _attention()
    scores = torch.cat([q @ k.transpose(2, 3) for q, k in attention], dim=1)
    scores = scores + scores.transpose(2, 3)
    expected = torch.nn.functional.conv2d(scores, head.weight, head.bias)[:, 0]
    torch.testing.assert_close(head.logits(attention), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head(attention), expected.sigmoid(), rtol=1e-4, atol=1e-5)


def test_is_symmetric_and_trains_both_sides():
    head, attention = PairAffinity(6), _attention()
    for tensor in attention[0]:
        tensor.requires_grad_()
    affinity = head(attention)
    torch.testing.assert_close(affinity, affinity.transpose(1, 2))
    affinity.sum().backward()
    assert all(t.grad.abs().max() > 0 for t in (*attention[0], head.weight, head.bias))


def test_has_the_names_of_a_convolution():
    shapes = {k: tuple(v.shape) for k, v in PairAffinity(16).state_dict().items()}
    assert shapes == {"weight": (1, 16, 1, 1), "bias": (1,)}

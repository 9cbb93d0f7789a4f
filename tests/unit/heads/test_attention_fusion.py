"""The weighted mean of attention maps against its definition."""

from __future__ import annotations

import pytest
import torch

from tagmask.heads.attention_fusion import AttentionFusion, fuse_attention, grouped_pool


def spelled_out(weights, blocks):
    """One map at a time: map c = head * L + block."""
    total = torch.zeros_like(blocks[0][:, 0])
    for head in range(blocks[0].shape[1]):
        for index, block in enumerate(blocks):
            total += weights[:, head * len(blocks) + index, None, None] * block[:, head]
    return total / weights.shape[1]


def test_one_product_per_block_is_the_weighted_mean():
    torch.manual_seed(0)
    blocks = [torch.rand(2, 3, 7, 7).softmax(-1) for _ in range(4)]
    weights = torch.rand(2, 12, requires_grad=True)
    ours, expected = fuse_attention(weights, blocks), spelled_out(weights, blocks)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-5)
    (a,) = torch.autograd.grad(ours.square().sum(), weights)
    (b,) = torch.autograd.grad(expected.square().sum(), weights)
    torch.testing.assert_close(a, b)


def test_half_precision_attention_is_taken_as_it_is():
    blocks = [torch.rand(1, 2, 5, 5).softmax(-1).bfloat16() for _ in range(2)]
    assert fuse_attention(torch.rand(1, 4), blocks).dtype == torch.bfloat16


def test_groups_are_interleaved_channels():
    tokens = torch.arange(12.0).reshape(1, 2, 6)
    assert grouped_pool(tokens, 2)[0].tolist() == [[6.0, 8.0, 10.0], [7.0, 9.0, 11.0]]
    assert grouped_pool(tokens, 2, "mean")[0, 0].tolist() == [3.0, 5.0, 7.0]
    with pytest.raises(ValueError, match="pooling must be"):
        grouped_pool(tokens, 2, "sum")


def test_weights_are_shares_even_for_few_maps():
    weights = AttentionFusion(4, 6, reduction=8, feature_reduction=8)(torch.rand(3, 4, 6))
    assert weights.shape == (3, 4)
    assert ((weights > 0) & (weights < 1)).all()

from __future__ import annotations

import math

import pytest
import torch

from tagmask.ops.entropy import entropy_weights, refined_entropy
from tagmask.ops.pooling import ranked_pool
from tagmask.ops.schedules import cosine_warmup


def test_attention_that_mixes_everything_gives_the_largest_entropy():
    maps = torch.zeros(1, 2, 4, 4)
    maps[0, 0, 1, 1] = 40.0
    maps[0, 1] = 7.0
    tags = torch.tensor([[1.0, 0.0]])
    uniform = torch.full((1, 16, 16), 1 / 16)
    for epsilon in (0.0, 1e-6):
        still = refined_entropy(maps, tags, torch.eye(16)[None], epsilon)
        mixed = refined_entropy(maps, tags, uniform, epsilon)
        assert still.item() < 1e-3
        assert mixed.item() == pytest.approx(math.log2(16), abs=1e-3)


def test_entropy_weights_run_from_0_to_1():
    assert entropy_weights([3.0, 2.0, 4.0]) == (0.5, 0.0, 1.0)
    assert entropy_weights([2.0, 2.0]) == (0.0, 0.0)


def test_ranked_pooling_lies_between_mean_and_maximum():
    maps = torch.randn(2, 3, 5, 4)
    torch.testing.assert_close(ranked_pool(maps, 1.0), maps.mean((2, 3)))
    torch.testing.assert_close(ranked_pool(maps, 0.0), maps.amax((2, 3)))
    between = ranked_pool(maps, 0.9)
    assert ((between > maps.mean((2, 3))) & (between < maps.amax((2, 3)))).all()
    values = maps[0, 0].flatten().sort(descending=True).values
    weights = 0.9 ** torch.arange(20.0)
    torch.testing.assert_close(between[0, 0], (values * weights).sum() / weights.sum())


def test_cosine_after_warm_up():
    rates = [cosine_warmup(step, 30, 5, base=1e-3) for step in range(32)]
    assert rates[0] == pytest.approx(1e-3)
    assert rates[4] == rates[5] == pytest.approx(1.0)
    assert rates[5:31] == sorted(rates[5:31], reverse=True)
    assert rates[30] == rates[31] == pytest.approx(1e-3)

"""Inside `Once`, what is the same is computed once, and what is not is not."""

from __future__ import annotations

import torch

from tagmask.export.once import Once


def test_the_same_call_gives_the_same_tensor():
    x, y = torch.rand(2, 3), torch.rand(2, 3)
    with Once():
        assert torch.relu(x) is torch.relu(x)
        assert x + 1 is x + 1
        assert torch.cat([x, y]) is torch.cat([x, y])
        assert (x.relu() * 2)[:, 1:] is (x.relu() * 2)[:, 1:]
        assert torch.arange(3) is torch.arange(3)
    assert x + 1 is not x + 1


def test_other_arguments_give_another_one():
    x, y = torch.rand(2, 3), torch.rand(2, 3)
    with Once():
        assert torch.equal(x + 1, x + 1.0)
        assert x + 1 is not x + 1.0
        assert not torch.equal(x + 1, y + 1)
        assert x.sum(0).shape == (3,)
        assert x.sum(1).shape == (2,)
        assert x[..., 1:].shape == (2, 2)
        assert x[..., :2] is not x[..., 1:]


def test_nothing_is_remembered_beyond_a_change():
    x = torch.zeros(2)
    with Once():
        assert (x + 1).tolist() == [1, 1]
        x.add_(1)
        assert (x + 1).tolist() == [2, 2]
        x[0] = 5
        assert (x + 1).tolist() == [6, 2]
        torch.ones(2, out=x)
        assert (x + 1).tolist() == [2, 2]


def test_lists_of_results_are_the_caller_s_own():
    x = torch.rand(4)
    with Once():
        parts = torch.meshgrid(x, x, indexing="ij")
        first = list(parts)
        first.clear()
        assert len(torch.meshgrid(x, x, indexing="ij")) == 2


def test_switches_work_every_time():
    with Once():
        for _ in range(2):
            with torch.no_grad():
                assert not torch.is_grad_enabled()
            assert torch.is_grad_enabled()

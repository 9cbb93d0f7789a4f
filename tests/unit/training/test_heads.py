"""Linear classifiers that are fitted to the tokens of many views at once."""

from __future__ import annotations

import pytest
import torch

from tagmask.training import heads
from tagmask.training.heads import HeadsConfig, TokenBank, fit_head, whitening

CPU = torch.device("cpu")


def scenes(count=200, places=16, dim=12, seed=0):
    """Two classes, each in a quarter of the places, along directions in which tokens hardly vary."""
    rng = torch.Generator().manual_seed(seed)
    tokens = 3 * torch.randn((count, places, dim), generator=rng)
    tokens[:, :, :2] *= 0.02
    tags = (torch.rand((count, 2), generator=rng) > 0.5).float()
    where = torch.rand((count, 2, places), generator=rng) < 0.25
    for label in range(2):
        tokens[:, :, label] += 0.3 * where[:, label] * tags[:, label, None]
    return tokens.half(), tags, where


def found(weight, tokens, tags, where):
    """How often a place of a class has a higher value than one without, for tagged views."""
    maps = torch.einsum("vnd,kd->vkn", tokens.float(), weight)
    shares = []
    for label in range(2):
        own, seen = maps[tags[:, label] > 0, label], where[tags[:, label] > 0, label]
        inside, outside = own[seen], own[~seen]
        shares.append(float((inside[:500, None] > outside[None, :500]).float().mean()))
    return min(shares)


def test_places_of_a_class_are_found_from_tags_alone_and_whatever_the_seed():
    tokens, tags, where = scenes()
    config = HeadsConfig(whiten=0.1)
    weights = [fit_head(tokens, tags, "tenth", True, config, seed, CPU)[0] for seed in (0, 1)]
    assert all(found(weight, *scenes(seed=5)) > 0.95 for weight in weights)
    assert torch.nn.functional.cosine_similarity(*(w.flatten() for w in weights), dim=0) > 0.98
    assert found(weights[0], tokens, tags, where) > 0.95


def test_whitening_brings_out_directions_in_which_tokens_hardly_vary():
    tokens, tags, where = scenes(count=60)
    plain, white = (
        fit_head(tokens, tags, "tenth", True, HeadsConfig(whiten=w, penalty=0.3), 0, CPU)[0] for w in (0, 0.1)
    )
    assert found(white, tokens, tags, where) > found(plain, tokens, tags, where) + 0.02


def test_the_bias_makes_up_for_the_mean_of_the_tokens():
    tokens, tags, _ = scenes()
    moved = (tokens.float() + 2).half()
    one = HeadsConfig(starts=1, rate=0.05)  # of several, rounding may let a class take another
    weight, bias = fit_head(tokens, tags, "top", True, one, 0, CPU)
    same, shifted = fit_head(moved, tags, "top", True, one, 0, CPU)
    torch.testing.assert_close(same, weight, rtol=0.05, atol=0.05)
    torch.testing.assert_close(shifted, bias - 2 * weight.sum(1), rtol=0.05, atol=0.2)
    assert not fit_head(tokens, tags, "top", False, HeadsConfig(), 0, CPU)[1].any()


def test_a_whitened_sample_has_a_covariance_of_one_size():
    torch.manual_seed(0)
    sample = torch.randn(5000, 6) * torch.tensor([5.0, 3, 1, 1, 0.3, 0.1])
    after = torch.cov((sample @ whitening(sample, 1e-6)).T)
    mean = torch.cov(sample.T).diagonal().mean()
    torch.testing.assert_close(after, mean * torch.eye(6), rtol=0.01, atol=0.02)
    assert torch.equal(whitening(sample, 0.0), torch.eye(6))


def test_a_constant_direction_and_dead_tokens_stay_finite():
    tokens = torch.zeros(20, 4, 3).half()
    weight, bias = fit_head(tokens, torch.ones(20, 2), "mean", True, HeadsConfig(), 0, CPU)
    assert torch.isfinite(weight).all()
    assert (bias > 0).all()


def test_a_bank_keeps_no_more_than_it_may(monkeypatch):
    monkeypatch.setattr(heads, "_MOST_BYTES", 2 * 4 * 8 * 10)
    found = {"head": torch.full((4, 4, 8), 1e6)}
    bank = TokenBank.sized(found, torch.ones(4, 2), 1000)
    for _ in range(3):
        bank.add(found, torch.ones(4, 2))
    assert (bank.used, bank.full) == (10, True)
    assert torch.isfinite(bank.tokens["head"]).all()


@pytest.mark.parametrize("seen", [1, 25, 40])
def test_losses_are_told_on_the_way(seen):
    tokens, tags, _ = scenes(count=30)
    told = {}
    fit_head(tokens, tags, "lse", True, HeadsConfig(steps=seen), 0, CPU, told.__setitem__)
    assert max(told) == seen
    assert all(loss > 0 for loss in told.values())


def test_of_several_fits_every_class_takes_the_one_with_the_lowest_cost(monkeypatch):
    """Two hidden solutions with their costs per class: the mixture of the better ones is returned."""
    from tagmask.training import heads

    found = [(torch.full((3, 4), float(i)), torch.full((3,), 10.0 * i)) for i in (1, 2)]
    costs = {1.0: [0.1, 0.9, 0.4], 2.0: [0.5, 0.2, 0.3]}
    turns = iter(found)
    monkeypatch.setattr(heads._Problem, "solve", lambda *_: next(turns))
    monkeypatch.setattr(heads._Problem, "cost", lambda _, w, b: torch.tensor(costs[float(w[0, 0])]))
    config = HeadsConfig(starts=2, whiten=0)
    weight, bias = fit_head(torch.zeros(5, 9, 4).half(), torch.ones(5, 3), "mean", True, config, 0, CPU)
    assert weight[:, 0].tolist() == [1, 2, 2]
    assert bias.tolist() == [10, 20, 20]


def test_the_cost_is_what_a_step_minimises():
    from tagmask.losses.tags import multilabel_soft_margin
    from tagmask.training.heads import _Problem

    drawn = torch.Generator().manual_seed(0)
    tokens = torch.randn(7, 9, 4, generator=drawn).half()
    tags = (torch.rand(7, 3, generator=drawn) > 0.5).float()
    config = HeadsConfig(views=3, penalty=0.5)
    problem = _Problem(tokens, tags, "tenth", True, config, torch.eye(4), torch.zeros(4))
    weight, bias = torch.randn(3, 4, generator=drawn), torch.randn(3, generator=drawn)
    loss = multilabel_soft_margin(problem.logits(weight, bias, torch.arange(7)), tags)
    expected = loss + 0.5 * weight.square().sum() / 3
    torch.testing.assert_close(problem.cost(weight, bias).mean(), expected)

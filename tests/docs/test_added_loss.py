"""MoRe with one more loss: the example of docs/guide/add-a-loss.md."""

import sys

import pytest
import torch

from tagmask import methods
from tagmask.methods.more import MoRe, MoReConfig
from tagmask.types import Batch
from tests.docs.blocks import ROOT

SMALL = {"backbone": "vit:patch=8,dim=32,depth=3,heads=2,size=64", "seg_from": 0, "refine_steps": 2}


@pytest.fixture
def step(monkeypatch):
    """The loss of update 30,000 of a class with some settings, and the network it was computed with."""
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "outside"))
    images, tags = torch.rand(2, 3, 64, 64), torch.tensor([[1.0, 0, 1], [0, 1.0, 0]])

    def run(kind, config):
        torch.manual_seed(0)
        method = kind(config, 3).train()
        return method(Batch(images, tags, ("a", "b")), 30000), method

    yield run
    sys.modules.pop("tagmask_outside.more_scale", None)
    methods._REGISTERED.pop("more_scale", None)  # other tests of this process count the methods


def test_without_its_weight_the_loss_is_mores(step):
    from tagmask_outside.more_scale import MoReScale, MoReScaleConfig

    plain, _ = step(MoRe, MoReConfig(**SMALL))
    same, _ = step(MoReScale, MoReScaleConfig(**SMALL, w_scale=0))
    torch.testing.assert_close(same.loss, plain.loss, rtol=0, atol=0)


def test_the_term_is_finite_and_reaches_the_network(step):
    from tagmask_outside.more_scale import MoReScale, MoReScaleConfig

    plain, _ = step(MoRe, MoReConfig(**SMALL))
    result, method = step(MoReScale, MoReScaleConfig(**SMALL, w_scale=0.1))
    torch.testing.assert_close(result.loss, plain.loss + 0.1 * result.logs["scale"])
    gradient = torch.autograd.grad(result.loss - plain.loss.detach(), method.classifier.weight)[0]
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0

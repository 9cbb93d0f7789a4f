from __future__ import annotations

import sys
import types

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tagmask.errors import CheckpointError, ConfigError
from tagmask.methods.segmenter import Segmenter, SegmenterConfig
from tagmask.training.optim import build_optimizer
from tagmask.types import Batch


def make(**settings):
    torch.manual_seed(0)
    return Segmenter(SegmenterConfig(**{"width": 4, **settings}), 3)


def batch(labels):
    torch.manual_seed(1)
    return Batch(torch.rand(2, 3, 64, 48), torch.zeros(2, 3), ("a", "b"), labels=labels)


def test_logits_lie_at_an_eighth_and_the_loss_is_cross_entropy():
    method = make().eval()
    labels = torch.randint(0, 4, (2, 64, 48))
    labels[:, :10] = 255
    given = batch(labels)
    logits = method.segment(given.images)
    assert logits.shape == (2, 4, 8, 6)
    large = nn.functional.interpolate(logits, (64, 48), mode="bilinear")
    expected = nn.functional.cross_entropy(large, labels, ignore_index=255)
    torch.testing.assert_close(method(given, 0).loss, expected)


def test_a_batch_without_labels_costs_nothing_and_none_at_all_is_refused():
    method = make().train()
    result = method(batch(torch.full((2, 64, 48), 255)), 0)
    result.loss.backward()
    assert result.loss.item() == 0
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)
    with pytest.raises(ValueError, match="give labels"):
        method(batch(None), 0)


def test_only_the_stem_is_frozen_and_new_layers_learn_faster():
    method = make(optimiser="adamw", weight_decay=0.01).train()
    method(batch(torch.randint(0, 4, (2, 64, 48))), 0).loss.backward()
    plan = method.optim_plan(10)
    assert plan.name == "adamw"
    assert [sum(p.grad is not None for p in group.params) for group in plan.groups] == [42, 4]
    assert plan.groups[1].lr == 10 * plan.groups[0].lr
    assert {group.weight_decay for group in plan.groups} == {0.01}


def test_published_names():
    method = make()
    published = {
        key.removeprefix("network.").removeprefix("backbone."): value
        for key, value in method.state_dict().items()
    }
    assert method.convert_weights(published).keys() == method.state_dict().keys()


def test_unknown_networks_are_refused():
    with pytest.raises(ConfigError, match="unknown segmentation network 'unet'"):
        make(backbone="unet")
    with pytest.raises(ConfigError, match="smp:ARCHITECTURE:ENCODER"):
        make(backbone="smp:unet")


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(ConfigError, match=r"tagmask\[smp\]"):
        make(backbone="smp:unet:resnet34")


class FakeModel(nn.Module):
    """What segmentation_models_pytorch gives: an encoder, a decoder and a head, output at image size."""

    def __init__(self, classes):
        super().__init__()
        self.encoder = nn.Conv2d(3, 4, 3, padding=1)
        self.decoder = nn.Conv2d(4, 4, 1)
        self.segmentation_head = nn.Conv2d(4, classes, 1)

    def forward(self, x):
        assert x.shape[2] % 32 == 0
        assert x.shape[3] % 32 == 0
        return self.segmentation_head(self.decoder(self.encoder(x)))


@pytest.fixture
def fake_smp(monkeypatch):
    def create_model(arch, encoder_name="resnet34", encoder_weights="imagenet", in_channels=3, classes=1):
        if arch != "unet":
            raise KeyError(f"Wrong architecture type `{arch}`")
        if encoder_weights == "imagenet":
            raise OSError("no route to host")
        return FakeModel(classes)

    module = types.ModuleType("segmentation_models_pytorch")
    module.create_model = create_model
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", module)


def test_any_model_of_smp_is_a_student(fake_smp, tmp_path):
    method = make(backbone="smp:unet:resnet34").train()
    labels = torch.randint(0, 4, (2, 64, 48))
    given = batch(labels)
    assert method.segment(given.images).shape == (2, 4, 64, 48)
    method(given, 0).loss.backward()
    plan = method.optim_plan(5)
    assert [len(group.params) for group in plan.groups] == [2, 4]
    path = tmp_path / "encoder.safetensors"
    wanted = {
        key: torch.full_like(value, 0.5) for key, value in method.network.model.encoder.state_dict().items()
    }
    save_file(wanted, path)
    method.initialise(str(path))
    assert method.network.model.encoder.weight.eq(0.5).all()


def test_a_real_model_of_smp_learns():
    pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    method = make(backbone="smp:unet:timm-mobilenetv3_small_minimal_100", optimiser="adamw", lr=3e-3).train()
    given = batch(torch.zeros(2, 64, 48, dtype=torch.int64))
    optimizer = build_optimizer(method.optim_plan(4))
    losses = []
    for step in range(4):
        optimizer.zero_grad()
        loss = method(given, step).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert method.eval().segment(torch.rand(1, 3, 50, 70)).shape == (1, 4, 50, 70)


def test_what_smp_refuses_is_said(fake_smp, tmp_path):
    with pytest.raises(ConfigError, match="Wrong architecture type"):
        make(backbone="smp:unett:resnet34")
    method = make(backbone="smp:unet:resnet34")
    with pytest.raises(CheckpointError, match="no route to host"):
        method.initialise("hub")
    path = tmp_path / "wrong.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="Missing key"):
        method.initialise(str(path))


@pytest.mark.parametrize("size", [(64, 64), (50, 70)])
def test_a_vit_is_a_student(size):
    method = make(backbone="vit:patch=16,dim=24,depth=2,heads=2,size=64").train()
    # Logits of whole patches; of images that had to be padded, those of the pixels.
    shape = (4, 4) if size == (64, 64) else size
    assert method.segment(torch.rand(2, 3, *size)).shape == (2, 4, *shape)
    method(batch(torch.randint(0, 4, (2, 64, 48))), 0).loss.backward()
    old, new = method.optim_plan(5).groups
    assert len(new.params) == 3
    assert all(p.grad is not None for p in [*old.params, *new.params])


@pytest.mark.slow
def test_with_the_real_library():
    pytest.importorskip("segmentation_models_pytorch")
    method = make(backbone="smp:unet:resnet18").eval()
    assert method.segment(torch.rand(1, 3, 70, 50)).shape == (1, 4, 70, 50)

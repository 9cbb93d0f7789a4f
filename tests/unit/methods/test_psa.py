from __future__ import annotations

import pytest
import torch

from tagmask.errors import CheckpointError
from tagmask.methods import get
from tagmask.methods.affinity_net import AffinityNet, AffinityNetConfig
from tagmask.methods.psa import PSA, PSAConfig
from tagmask.ops.maps import with_background
from tagmask.types import Batch


def make(kind, config, **settings):
    torch.manual_seed(0)
    return kind(config(width=4, **settings), 3)


def batch(labels=None):
    torch.manual_seed(1)
    tags = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    return Batch(torch.rand(2, 3, 80, 96), tags, ("a", "b"), labels=labels)


def test_both_halves_are_found_by_their_file_names():
    assert get("psa") is PSA
    assert get("affinity_net") is AffinityNet


def test_the_classifier_learns_what_is_not_frozen():
    method = make(PSA, PSAConfig).train()
    method(batch(), 0).loss.backward()
    plan = method.optim_plan(10)
    trained = [p for group in plan.groups for p in group.params if p.grad is not None]
    assert len(trained) == 36  # 43 convolutions less 8 frozen ones, and the classifier
    assert plan.groups[1].lr == 10 * plan.groups[0].lr
    rates = [plan.factor(step) for step in range(12)]
    assert rates[0] == 1
    assert rates == sorted(rates, reverse=True)
    assert rates[9] == rates[11] > 0


def test_class_maps_of_the_mean_are_the_logits():
    method = make(PSA, PSAConfig).eval()
    images = torch.rand(2, 3, 64, 64)
    maps = method.view_maps(images, ["cam"])["cam"]
    features = method.backbone(images).conv6
    raw = torch.einsum("bdhw,kd->bkhw", features, method.fc8.weight[:, :, 0, 0])
    torch.testing.assert_close(raw.mean((2, 3)), method.classify(images), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(maps, raw.relu(), atol=1e-5, rtol=1e-4)


def test_maps_are_divided_by_their_maximum_not_shifted():
    method = make(PSA, PSAConfig, scales=(1.0, 0.5)).eval()
    maps = method.maps(torch.rand(1, 3, 48, 64))["cam"]
    assert maps.shape == (1, 3, 48, 64)
    assert maps.min() >= 0
    assert maps.max() <= 1


def test_affinity_learns_from_label_maps():
    method = make(AffinityNet, AffinityNetConfig).train()
    with pytest.raises(ValueError, match="give labels"):
        method(batch(), 0)
    labels = torch.zeros(2, 80, 96, dtype=torch.long)
    labels[:, 24:56, 16:64] = 2
    labels[:, :, 80:] = 255
    result = method(batch(labels), 0)
    result.loss.backward()
    assert set(result.logs) == {"background", "foreground", "negative"}
    assert all(p.grad is not None for p in method.f9.parameters())
    unknown = method(batch(torch.full((2, 80, 96), 255)), 0)
    assert unknown.loss.item() == 0


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("size", [(80, 96), (83, 101)])
def test_the_walk_keeps_size_and_order(full, size):
    method = make(AffinityNet, AffinityNetConfig).eval()
    scores = with_background(torch.rand(2, *size), 0.39)
    walked = method.walk(torch.rand(3, *size), scores, steps=4, full=full)
    assert walked.shape == (3, *size)
    if size == (80, 96):  # padding has no background score, so it dims its neighbours
        torch.testing.assert_close(walked[0], torch.full(size, 0.39), atol=1e-5, rtol=0)


def test_an_image_without_classes_is_background():
    scores = with_background(torch.zeros(0, 80, 96), 0.39)
    walked = make(AffinityNet, AffinityNetConfig).eval().walk(torch.rand(3, 80, 96), scores)
    assert walked.shape == (1, 80, 96)
    assert walked.argmax(0).eq(0).all()


def test_background_of_a_power():
    maps = torch.tensor([[[0.0, 0.5, 1.0]]])
    expected = torch.tensor([[[1.0, 0.5**16, 0.0]]])
    torch.testing.assert_close(with_background(maps, 0.3, 16), torch.cat([expected, maps]))
    assert with_background(maps[:0], 0.3, 16).eq(1).all()


@pytest.mark.parametrize("size", [(80, 96), (83, 101)])
def test_a_vit_can_be_compared_too(size):
    method = make(
        AffinityNet,
        AffinityNetConfig,
        backbone="vit:patch=16,dim=24,depth=6,heads=2,size=64",
        optimiser="adamw",
    )
    features = method.features(torch.rand(1, 3, *size))
    assert features.shape == (1, 7 * 64, -(-size[0] // 8), -(-size[1] // 8))
    labels = torch.zeros(2, 80, 96, dtype=torch.long)
    labels[:, 24:56, 16:64] = 2
    method.train()(batch(labels), 0).loss.backward()
    plan = method.optim_plan(4)
    assert plan.name == "adamw"
    assert len(plan.groups[0].params) == len(list(method.backbone.parameters()))
    assert all(p.grad is not None for p in method.f9.parameters())


def test_published_names_and_the_missing_hub():
    method = make(AffinityNet, AffinityNetConfig)
    published = {key.removeprefix("backbone."): value for key, value in method.state_dict().items()}
    wrapped = {f"module.{key}": value for key, value in published.items()}
    assert method.convert_weights(wrapped).keys() == method.state_dict().keys()
    with pytest.raises(CheckpointError, match="no weights on the hub"):
        method.initialise("hub")
    method.initialise("none")

from __future__ import annotations

import pytest
import torch

from tagmask.methods import get
from tagmask.methods.mctformer import MCTformer, MCTformerConfig
from tagmask.types import Batch

SMALL = "vit:patch=16,dim=32,depth=4,heads=2,size=64"


def make(version="v2", **settings):
    torch.manual_seed(0)
    values = {"backbone": SMALL, "version": version, "input_size": 64, "drop_path": 0.0, **settings}
    return MCTformer(MCTformerConfig(**values), 3)


def batch():
    torch.manual_seed(1)
    return Batch(torch.rand(2, 3, 64, 64), torch.tensor([[1.0, 0, 1], [0, 0, 0]]), ("a", "b"))


def test_is_found_by_its_file_name():
    assert get("mctformer") is MCTformer


@pytest.mark.parametrize(
    ("version", "losses"),
    [("v1", {"class"}), ("v2", {"class", "patch"}), ("plus", {"class", "patch", "contrast"})],
)
def test_each_version_has_its_losses_and_leaves_the_last_norm_alone(version, losses):
    method = make(version).train()
    result = method(batch(), 0)
    result.loss.backward()
    assert set(result.logs) == losses
    torch.testing.assert_close(result.loss, sum(result.logs.values()))
    idle = [name for name, p in method.named_parameters() if p.grad is None]
    assert idle == ["backbone.norm.weight", "backbone.norm.bias"]


def test_class_logits_are_the_mean_of_class_tokens():
    method, images = make("v1").eval(), torch.rand(1, 3, 64, 64)
    tokens = method.backbone(images, norm=False).class_tokens
    torch.testing.assert_close(method.classify(images), tokens.mean(2))


@pytest.mark.parametrize("version", ["v1", "v2", "plus"])
@pytest.mark.parametrize("size", [(64, 64), (50, 83)])
def test_maps_of_any_size(version, size):
    method = make(version).eval()
    maps = method.maps(torch.rand(1, 3, *size))["cam"]
    assert maps.shape == (1, 3, *size)
    assert maps.min() >= 0
    assert maps.max() <= 1
    assert maps.flatten(2).amax(2).gt(0.9).all()


def test_fused_maps_are_attention_times_patch_maps():
    images = torch.rand(1, 3, 64, 64)
    fused, patch, attended = (
        make(cam=cam).eval().attention_maps(images)[0] for cam in ("fused", "patchcam", "mct")
    )
    torch.testing.assert_close(fused, patch * attended)
    plus = [make("plus", cam=cam).eval().attention_maps(images)[0] for cam in ("fused", "patchcam", "mct")]
    torch.testing.assert_close(plus[0], (plus[1] * plus[2]).sqrt())


def test_refinement_can_be_left_out():
    images = torch.rand(1, 3, 64, 64)
    method = make(patch_refine=False).eval()
    raw = method.attention_maps(images)[0]
    torch.testing.assert_close(method.view_maps(images, ["cam"])["cam"], raw)


def test_position_tables_decay_in_plus_only():
    groups = {version: make(version).optim_plan(60).groups for version in ("v2", "plus")}
    for version, (plain, decayed) in groups.items():
        table = make(version).backbone.pos_embed.shape
        assert any(p.shape == table for p in decayed.params) == (version == "plus")
        assert all(p.ndim <= 3 for p in plain.params)


def test_published_files_of_every_version():
    for version in ("v1", "v2", "plus"):
        method = make(version)
        state = {key.removeprefix("backbone."): value for key, value in method.state_dict().items()}
        if version == "v1":
            state |= {"head.weight": torch.zeros(3, 32), "head.bias": torch.zeros(3)}
        if version == "plus":
            table = state["pos_embed"]
            state |= {
                "pos_embed_cls": table[:, :3],
                "pos_embed_pat": table[:, 3:],
                "pos_embed": torch.zeros(1, 5, 32),
            }
        converted = method.convert_weights(state)
        assert converted.keys() == method.state_dict().keys()
        assert torch.equal(converted["backbone.pos_embed"], method.backbone.pos_embed)

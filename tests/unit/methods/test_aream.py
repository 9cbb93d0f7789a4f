from __future__ import annotations

import pytest
import torch

from tagmask.errors import ConfigError
from tagmask.methods import get
from tagmask.methods.aream import AReAM, AReAMConfig
from tagmask.types import Batch

BACKBONES = {
    "vit": "vit:patch=16,dim=32,depth=6,heads=2,size=64",
    "conformer": "conformer:dim=24,depth=6,heads=2,ratio=1,base=8",
}


def make(kind, **settings):
    torch.manual_seed(0)
    values = {
        "backbone": BACKBONES[kind],
        "drop_path": 0.0,
        "affinity_from": 1,
        "train_scales": (1.0,),
        **settings,
    }
    return AReAM(AReAMConfig(**values), 3)


def batch(boxes=None):
    torch.manual_seed(1)
    return Batch(torch.rand(2, 3, 64, 64), torch.tensor([[1.0, 0, 1], [0, 1, 0]]), ("a", "b"), boxes)


def test_is_found_by_its_file_name():
    assert get("aream") is AReAM


@pytest.mark.parametrize("kind", BACKBONES)
def test_deep_attention_is_supervised_from_a_step_on(kind):
    method = make(kind).train()
    assert set(method(batch(), 0).logs) == {"first", "second"}
    result = method(batch(), 1)
    assert set(result.logs) == {"first", "second", "affinity"}
    result.loss.backward()
    blocks = [
        name for name, p in method.named_parameters() if p.grad is not None and "attn.qkv.weight" in name
    ]
    assert len(blocks) == 6


def test_affinity_begins_in_its_first_update_and_costs_nothing_before(monkeypatch):
    method = make("vit", affinity_from=7).train()
    calls = []
    monkeypatch.setattr(
        method, "pseudo_labels", lambda given: calls.append(1) or torch.zeros(2, 64, 64).long()
    )
    for step, expected in ((6, 0), (7, 1), (8, 2)):
        method(batch(), step)
        assert len(calls) == expected
    calls.clear()
    unweighed = make("vit", affinity_from=0, affinity_weight=0.0).train()
    monkeypatch.setattr(unweighed, "pseudo_labels", lambda given: pytest.fail("nobody reads them"))
    assert set(unweighed(batch(), 9).logs) == {"first", "second"}


def test_the_mode_comes_back_even_from_a_broken_pass(monkeypatch):
    method = make("vit", affinity_from=0, cam_mode="eval").train()
    monkeypatch.setattr(method, "training_maps", lambda images: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        method(batch(), 0)
    assert method.training
    assert method.backbone.blocks[0].training


@pytest.mark.parametrize("kind", BACKBONES)
def test_the_shallow_share_follows_the_depth(kind):
    assert make(kind).shallow == {"vit": 4, "conformer": 4}[kind]
    assert make(kind, shallow_blocks=2).shallow == 2
    with pytest.raises(ConfigError, match="1 to 5"):
        make(kind, shallow_blocks=6)


def test_entropy_weighs_deep_blocks_up_and_shallow_ones_down():
    entropy = (3.0, 2.0, 2.5, 4.0, 4.0, 3.0)
    plain, weighed = make("vit"), make("vit", entropy=entropy)
    scores = [torch.randn(2, 16, 16) for _ in range(2)]
    pairs = (torch.rand(2, 16, 16) > 0.5).to(torch.uint8)
    mean, each = plain.affinity_loss(scores, pairs)
    torch.testing.assert_close(mean, each.mean())
    torch.testing.assert_close(
        weighed.affinity_loss(scores, pairs)[0], (each * torch.tensor([1.0, 0.5])).mean()
    )
    with pytest.raises(ConfigError, match="6 blocks, got 3"):
        make("vit", entropy=(1.0, 2.0, 3.0))


@pytest.mark.parametrize(("mode", "updates"), [("train", 2), ("eval", 1)])
def test_map_passes_update_batch_statistics_unless_told_otherwise(mode, updates):
    method = make("conformer", cam_mode=mode).train()
    method(batch(), 1)
    assert method.backbone.bn1.num_batches_tracked == updates
    assert method.training


@pytest.mark.parametrize("kind", BACKBONES)
def test_pseudo_labels_respect_tags_and_boxes(kind):
    boxes = torch.tensor([[0, 64, 0, 64], [8, 48, 16, 64]])
    labels = make(kind).eval().pseudo_labels(batch(boxes))
    assert set(labels[0].unique().tolist()) <= {0, 1, 3, 255}
    assert set(labels[1].unique().tolist()) <= {0, 2, 255}
    assert (labels[1, :8] == 255).all()
    assert (labels[1, :, :16] == 255).all()


@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize("size", [(64, 64), (50, 83)])
def test_maps_of_any_size(kind, size):
    maps = make(kind, scales=(1.0, 1.5)).eval().maps(torch.rand(1, 3, *size))["cam"]
    assert maps.shape == (1, 3, *size)
    assert maps.min() >= 0
    assert maps.max() <= 1


@pytest.mark.parametrize("kind", BACKBONES)
def test_entropy_of_every_block_lies_between_nothing_and_uniform(kind):
    entropy = make(kind).eval().layer_entropy(batch().images, batch().tags)
    assert entropy.shape == (2, 6)
    assert entropy.min() > 0
    assert entropy.max() <= 4 + 1e-4


@pytest.mark.parametrize("kind", BACKBONES)
def test_published_names_and_groups(kind):
    method = make(kind)
    published = {key.removeprefix("backbone."): value for key, value in method.state_dict().items()}
    assert method.convert_weights(published).keys() == method.state_dict().keys()
    plan = method.optim_plan(60)
    assert sum(len(group.params) for group in plan.groups) == len(list(method.parameters()))
    assert len(plan.groups) == (4 if kind == "conformer" else 2)
    assert plan.factor(59) < plan.factor(20)


def test_mctformer_weights_are_aream_weights():
    from tagmask.methods.mctformer import MCTformer, MCTformerConfig

    other = MCTformer(MCTformerConfig(backbone=BACKBONES["vit"]), 3)
    published = {key.removeprefix("backbone."): value for key, value in other.state_dict().items()}
    method = make("vit").eval()
    method.load_state_dict(AReAM.convert_weights(published))
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(method.run(images).logits[0], other.eval().outputs(images).class_logits)

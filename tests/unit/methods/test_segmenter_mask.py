"""The segmenter with a mask-transformer decoder: WeakTr's phase 2."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from tagmask.backbones.weights import load_strictly
from tagmask.errors import CheckpointError, ConfigError
from tagmask.methods.segmenter import Segmenter, SegmenterConfig
from tagmask.training.optim import build_optimizer, set_rates
from tagmask.types import Batch

TINY = "mask:vit:patch=16,dim=24,depth=2,heads=2,size=32"


def make(**settings):
    torch.manual_seed(0)
    given = {"backbone": TINY, "weights": "none", "position_size": 64, "clip_patch": 32, **settings}
    return Segmenter(SegmenterConfig(**given), 3)


def batch(size=64):
    torch.manual_seed(1)
    labels = torch.randint(0, 4, (2, size, size))
    labels[:, :8] = 255
    return Batch(torch.rand(2, 3, size, size), torch.zeros(2, 3), ("a", "b"), labels=labels)


def test_what_is_not_given_is_as_the_network_was_published():
    config = make().config
    assert (config.lr, config.momentum, config.nesterov) == (1e-5, 0.9, True)
    assert (config.clip_start, config.lr_floor) == (1.2, 0.1)
    changed = make(lr=0.5, clip_start=None).config
    assert (changed.lr, changed.clip_start, changed.momentum) == (0.5, None, 0.9)
    resnet = Segmenter(SegmenterConfig(width=4), 3).config
    assert (resnet.lr, resnet.momentum, resnet.nesterov, resnet.lr_floor) == (7e-4, 1e-5, False, 0.0)
    assert resnet.clip_start is None


def test_a_saved_header_says_how_the_network_was_trained():
    values = make().config_values()
    assert (values["lr"], values["clip_start"]) == (1e-5, 1.2)
    assert Segmenter(SegmenterConfig(**values), 3).config_values() == values


def test_logits_have_the_size_of_any_image():
    method = make().eval()
    images = torch.rand(2, 3, 50, 70)
    one, both = method.segment(images), method.segment_exits(images, 2)
    assert one.shape == (2, 4, 50, 70)
    assert both.shape == (2, 2, 4, 50, 70)
    torch.testing.assert_close(both[:, 1], one)
    with pytest.raises(ConfigError, match="has 2, not 3"):
        method.segment_exits(images, 3)


def test_padding_does_not_depend_on_what_the_caller_would_pad_with():
    method = make().eval()
    images = torch.rand(1, 3, 48, 40)
    padded = torch.full((1, 3, 48, 48), 127.5 / 255)
    padded[..., :40] = images
    torch.testing.assert_close(method.segment(images), method.segment(padded)[..., :40])


def test_the_clipped_loss_is_logged_and_pixels_above_the_threshold_learn_nothing():
    method = make(clip_start=100.0, drop_path=0.0, dropout=0.0).train()
    logits = []
    method.segment = lambda images: logits[0]
    logits.append(torch.randn(2, 4, 64, 64, requires_grad=True))
    result = method(batch(), 0)
    result.loss.backward()
    still = (logits[0].grad.abs().sum(1) == 0).float().mean()
    share = float(result.logs["clipped_pixels"])
    assert 0.2 < share < 0.8
    torch.testing.assert_close(float(still), share + 8 / 64)  # ignored rows have no gradient either
    assert result.logs["segmentation"] < result.logs["unclipped"]


def test_a_view_the_patches_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="must divide the crop"):
        make(clip_patch=48).train()(batch(), 0)


def test_layers_make_groups_and_all_learn():
    method = make(weight_decay=0.05).train()
    method(batch(), 0).loss.backward()
    plan = method.optim_plan(10)
    names = [group.name for group in plan.groups]
    assert names[:4] == ["embedding", "embedding weights", "block 0", "block 0 weights"]
    assert names[-2:] == ["decoder", "decoder weights"]
    assert {group.weight_decay for group in plan.groups if "weights" in group.name} == {0.05}
    assert {group.weight_decay for group in plan.groups if "weights" not in group.name} == {0.0}
    assert plan.groups[-1].lr == pytest.approx(10 * plan.groups[0].lr)
    assert all(p.grad is not None for group in plan.groups for p in group.params)
    optimizer = build_optimizer(plan)
    set_rates(optimizer, plan, 9)
    optimizer.step()
    assert plan.factor(10_000) >= 0.1


@pytest.mark.parametrize(("name", "kernel"), [("eva02_tiny_patch14_224", 14), ("vit_tiny_patch16_224", 16)])
def test_pretrained_tables_and_kernels_are_fitted(name, kernel, tmp_path):
    """A file with timm's own shapes starts a network with another grid and patch."""
    method = make(backbone=f"mask:{name}", position_size=64)
    encoder = method.network.encoder
    state = {k: torch.randn_like(v) for k, v in encoder.state_dict().items()}
    side = 224 // kernel
    state["pos_embed"] = torch.randn(1, 1 + side * side, 192)
    state["patch_embed.proj.weight"] = torch.randn(192, 3, kernel, kernel)
    state["head.weight"], state["head.bias"] = torch.zeros(10, 192), torch.zeros(10)
    save_file(state, tmp_path / "w.safetensors")
    method.initialise(str(tmp_path / "w.safetensors"))
    assert encoder.pos_embed.shape == (1, 17, 192)
    torch.testing.assert_close(encoder.pos_embed[:, 0], state["pos_embed"][:, 0])
    assert encoder.patch_embed.proj.weight.shape[-1] == 16
    assert method.eval().segment(torch.rand(1, 3, 40, 64)).shape == (1, 4, 40, 64)
    del state["pos_embed"]
    save_file(state, tmp_path / "bad.safetensors")
    with pytest.raises(CheckpointError, match="pos_embed"):
        method.initialise(str(tmp_path / "bad.safetensors"))


def published(method):
    """The method's weights as the authors' file would name them, with what we leave out."""
    state = {k.removeprefix("network."): v for k, v in method.state_dict().items()}
    state |= {"encoder.head.weight": torch.zeros(5, 24), "encoder.head.bias": torch.zeros(5)}
    return {"model": state, "n_cls": 4, "epoch": 1}


def test_a_published_checkpoint_loads_strictly():
    method = make()
    converted = Segmenter.convert_weights(published(method))
    load_strictly(make(), converted, "published")
    missing = published(method)
    del missing["model"]["decoder.proj_patch"]
    with pytest.raises(CheckpointError, match="proj_patch"):
        load_strictly(make(), Segmenter.convert_weights(missing), "published")
    eva = {"decoder.cls_emb": torch.zeros(1), "encoder.blocks.0.mlp.w12.weight": torch.zeros(1)}
    assert "network.encoder.blocks.0.mlp.fc1.weight" in Segmenter.convert_weights(eva)


def test_eva_blocks_can_be_computed_again_for_the_gradient():
    grads = []
    for again in (False, True):
        method = make(backbone="mask:eva02_tiny_patch14_224", position_size=64).train()
        method.network.encoder.gradient_checkpointing = again
        torch.manual_seed(2)
        method(batch(), 0).loss.backward()
        grads.append(method.network.encoder.patch_embed.proj.weight.grad)
    assert torch.equal(*grads)

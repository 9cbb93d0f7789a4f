"""What every method promises, whatever its paper."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load, save
from timm.models.beit import Beit

from tagmask import methods
from tagmask.backbones import register_backbone
from tagmask.backbones.weights import load_strictly
from tagmask.config import validate
from tagmask.errors import ConfigError
from tagmask.training.optim import build_optimizer, set_rates
from tagmask.types import Batch, ViewPlan

K, SIZE = 3, 64
WIDER = {"affinity_net": 96}  # its pairs need nine cells of eight pixels
VIT = "vit:patch=16,dim=32,depth=4,heads=2,size=64"
BEIT = "tiny_beit"
# Small enough for a step in a fraction of a second, with every term of the loss switched on at STEP.
TINY = {
    "afa": {"backbone": "mit_b0", "head_width": 16, "par_iterations": 2, "radius": 2, "tags_until": 0},
    "affinity_net": {"width": 4},
    "aream": {"backbone": VIT, "affinity_from": 0, "train_scales": (1.0,)},
    "mctformer": {"backbone": VIT, "input_size": SIZE},
    "more": {"backbone": "vit:patch=8,dim=32,depth=3,heads=2,size=64", "seg_from": 0, "refine_steps": 2},
    "psa": {"width": 4},
    "segmenter": {"width": 4},
    "transcam": {"backbone": "conformer:dim=24,depth=3,heads=2,ratio=1,base=8", "base": 96},
    "weaktr": {"backbone": VIT},
}


@register_backbone(BEIT)
def tiny_beit(drop_path, depth=4):
    shape = {"embed_dim": 32, "depth": depth, "num_heads": 2, "init_values": 0.1, "drop_path_rate": drop_path}
    positions = {"use_abs_pos_emb": False, "use_rel_pos_bias": True}
    return Beit(img_size=48, patch_size=16, num_classes=0, **shape, **positions)


STEP = 30000
FROM_LABELS = ("affinity_net", "segmenter")


def make(name):
    if name not in TINY:
        pytest.fail(f"method '{name}' is new: give it tiny settings in the table above")
    torch.manual_seed(0)
    kind = methods.get(name)
    return kind(validate(kind.config_class, TINY[name]), K)


def batch(name, tags=((1, 0, 1), (0, 1, 0)), labels="mixed"):
    torch.manual_seed(1)
    images = torch.rand(len(tags), 3, SIZE, WIDER.get(name, SIZE))
    given = None
    if name in FROM_LABELS or labels == "ignore":
        given = torch.full((len(tags), SIZE, images.shape[3]), 255)
        if labels == "mixed":
            given[:, 8:24], given[:, 24:40], given[:, 40:56] = 0, 1, 2
    return Batch(images, torch.tensor(tags).float(), tuple(map(str, range(len(tags)))), labels=given)


@pytest.fixture(params=methods.names())
def name(request):
    return request.param


def finite_gradients(method):
    grads = [p.grad for p in method.parameters() if p.grad is not None]
    assert grads
    assert all(bool(g.isfinite().all()) for g in grads)
    return grads


@pytest.mark.parametrize("step", [0, STEP])
def test_a_training_step_learns(name, step):
    method = make(name).train()
    result = method(batch(name), step)
    assert result.loss.ndim == 0
    assert result.loss.isfinite()
    result.loss.backward()
    assert any(bool(g.abs().sum() > 0) for g in finite_gradients(method))
    for value in result.logs.values():
        assert value.numel() == 1
        assert not value.requires_grad
        assert value.isfinite()


def test_an_update_moves_the_weights(name):
    method = make(name).train()
    plan = method.optim_plan(100000)
    optimizer = build_optimizer(plan)
    before = {k: v.clone() for k, v in method.state_dict().items()}
    method(batch(name), STEP).loss.backward()
    set_rates(optimizer, plan, STEP)
    optimizer.step()
    after = method.state_dict()
    assert any(not torch.equal(before[k], v) for k, v in after.items())
    assert all(bool(v.isfinite().all()) for v in after.values())


def test_a_batch_without_any_decided_pixel_does_no_harm(name):
    method = make(name).train()
    result = method(batch(name, labels="ignore"), STEP)
    assert result.loss.isfinite()
    result.loss.backward()
    finite_gradients(method)


def test_images_without_any_tag_do_no_harm(name):
    method = make(name).train()
    result = method(batch(name, tags=((0, 0, 0), (0, 0, 0))), STEP)
    assert result.loss.isfinite()
    result.loss.backward()
    finite_gradients(method)


def test_half_precision_steps_are_finite(name):
    method = make(name).train()
    with torch.autocast("cpu", torch.bfloat16):
        result = method(batch(name), STEP)
    assert result.loss.isfinite()
    result.loss.backward()
    finite_gradients(method)


def test_parameter_groups_hold_every_trainable_parameter_once(name):
    method = make(name)
    plan = method.optim_plan(1000)
    held = [id(p) for group in plan.groups for p in group.params]
    assert len(held) == len(set(held))
    trainable = {id(p) for p in method.parameters() if p.requires_grad}
    assert trainable == set(held)
    assert all(group.params for group in plan.groups)
    for step in (0, 1, 500, 999):
        factor = plan.factor(step)
        factors = [factor] if isinstance(factor, (int, float)) else list(factor)
        assert len(factors) in (1, len(plan.groups))
        assert all(math.isfinite(f) and f >= 0 for f in factors)


@torch.no_grad()
def test_a_saved_method_comes_back_as_it_was(name):
    method = make(name).eval()
    for param in method.parameters():
        param.add_(0.01)
    kind = methods.get(name)
    again = kind(validate(kind.config_class, method.config_values()), K).eval()
    load_strictly(again, load(save(dict(method.state_dict()))), name)
    images = batch(name).images
    if method.map_kinds:
        for key, value in method.maps(images).items():
            assert torch.equal(again.maps(images)[key], value)
    if method.segments:
        assert torch.equal(again.segment(images), method.segment(images))


@torch.no_grad()
def test_maps_have_the_size_of_the_image_and_lie_in_the_unit_range(name):
    method = make(name).eval()
    images = torch.rand(2, 3, SIZE, SIZE + 16)
    for kind in method.map_kinds[:1]:  # further kinds may be made of whole maps rather than of views
        raw = method.view_maps(images, (kind,))[kind]
        assert raw.shape[:2] == (2, K)
        assert not raw.requires_grad
    for kind in method.map_kinds:
        plan = method.view_plan(kind)
        assert isinstance(plan, ViewPlan)
        merged = method.maps(images, (kind,))[kind]
        assert merged.shape == (2, K, SIZE, SIZE + 16)
        assert merged.dtype == torch.float32
        assert merged.isfinite().all()
        assert merged.max() <= 1 + 1e-5
        if plan.scaling == "min_max":
            assert merged.min() >= 0


@torch.no_grad()
def test_what_a_method_offers_works_and_the_rest_says_so(name):
    method = make(name).eval()
    images = torch.rand(2, 3, SIZE, SIZE)
    if method.segments:
        logits = method.segment(images)
        assert logits.shape[:2] == (2, K + 1)
        assert logits.isfinite().all()
    else:
        with pytest.raises(AttributeError, match=type(method).__name__):
            method.segment(images)
    if method.has_class_tokens:
        assert method.class_tokens(images).shape[:2] == (2, K)
    if method.map_kinds:
        assert method.classify(images).shape == (2, K)


def test_one_class_is_enough(name):
    kind = methods.get(name)
    torch.manual_seed(0)
    method = kind(validate(kind.config_class, TINY[name]), 1).train()
    result = method(batch_of_one_class(name), STEP)
    assert result.loss.isfinite()
    result.loss.backward()
    finite_gradients(method)


def batch_of_one_class(name):
    given = batch(name)
    labels = None if given.labels is None else given.labels.masked_fill(given.labels == 2, 255)
    return Batch(given.images, given.tags[:, :1], given.names, labels=labels)


def test_an_unknown_setting_names_the_nearest(name):
    kind = methods.get(name)
    key = next(iter(kind.config_class.model_fields))
    with pytest.raises(ConfigError, match=f"Did you mean '{key}'"):
        validate(kind.config_class, {key + "s": 1})


def test_names_lead_to_classes_and_wrong_ones_to_the_nearest():
    assert {"more", "afa", "segmenter"} <= set(methods.names())
    with pytest.raises(ConfigError, match="Did you mean 'more'"):
        methods.get("moree")

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

import tagmask.methods.afa as module
from tagmask.config import validate
from tagmask.errors import CheckpointError, ConfigError
from tagmask.methods import get
from tagmask.methods.afa import AFA, AFAConfig
from tagmask.types import Batch

SMALL = {
    "backbone": "mit_b0",
    "head_width": 16,
    "par_iterations": 2,
    "par_dilations": (1, 2),
    "radius": 2,
    "tags_until": 0,
    "walk_after": 1,
    "warmup": 2,
}


def _method(**settings):
    torch.manual_seed(0)
    return AFA(AFAConfig(**{**SMALL, **settings}), num_classes=3)


def _batch(tags=((1, 0, 1), (0, 1, 0)), boxes=None):
    torch.manual_seed(1)
    return Batch(torch.rand(2, 3, 64, 64), torch.tensor(tags, dtype=torch.float32), ("a", "b"), boxes)


def test_is_found_by_its_file_name():
    assert get("afa") is AFA


@pytest.mark.parametrize("step", [0, 1, 2])
def test_every_parameter_gets_a_gradient_in_every_phase(step):
    method = _method().train()
    result = method(_batch(), step)
    result.loss.backward()
    gradients = {name: p.grad for name, p in method.named_parameters()}
    assert [name for name, grad in gradients.items() if grad is None] == []
    assert all(grad.isfinite().all() for grad in gradients.values())
    idle = gradients["decoder.linear_pred.weight"].abs().sum() == 0
    assert idle == (step == 0)
    assert set(result.logs) == ({"cls"} if step == 0 else {"cls", "seg", "pairs"})


@pytest.mark.parametrize(("passes", "updates"), [("train", 4), ("eval", 1)])
@pytest.mark.parametrize("step", [0, 1])
def test_map_passes_update_batch_statistics_unless_told_otherwise(passes, updates, step):
    method = _method(cam_passes=passes).train()
    method(_batch(), step)
    assert method.decoder.linear_fuse.bn.num_batches_tracked == updates
    assert method.training
    assert method.decoder.dropout.training


@pytest.mark.parametrize("target", ["maps", "segmentation"])
def test_targets_respect_tags_and_boxes(target):
    boxes = torch.tensor([[0, 64, 0, 64], [8, 48, 16, 64]])
    method, batch = _method(pair_target=target).eval(), _batch(boxes=boxes)
    for step in (1, 2):
        labels, pairs = method.targets(batch, step, (4, 4))
        assert set(labels[0].unique().tolist()) <= {0, 1, 3, 255}
        assert set(labels[1].unique().tolist()) <= {0, 2, 255}
        assert (labels[1, :8] == 255).all()
        assert (labels[1, :, :16] == 255).all()
        assert pairs.shape == (2, 16, 16)
        assert (pairs[1].view(4, 4, 4, 4)[0] == 255).all()


def test_what_teaches_the_affinity_is_a_choice():
    torch.manual_seed(3)
    batch = _batch()
    by_maps, by_segmentation = (
        _method(pair_target=t).eval().targets(batch, 5, (4, 4)) for t in ("maps", "segmentation")
    )
    before_walk = _method().eval().targets(batch, 1, (4, 4))
    assert torch.equal(by_maps[0], by_segmentation[0])
    assert torch.equal(by_maps[1], before_walk[1])


def test_phases_begin_behind_the_updates_their_settings_name(monkeypatch):
    walks = []
    plain = module.propagate_with_background
    monkeypatch.setattr(module, "propagate_with_background", lambda *given: walks.append(1) or plain(*given))
    method = _method(tags_until=3, walk_after=5).train()
    assert (method.config.learn_from, method.config.walk_from) == (4, 6)
    assert set(method(_batch(), 3).logs) == {"cls"}
    assert set(method(_batch(), 4).logs) == {"cls", "seg", "pairs"}
    method(_batch(), 5)
    assert not walks
    method(_batch(), 6)
    assert len(walks) == 1
    method(_batch(), 7)
    assert len(walks) == 2


@pytest.mark.parametrize("off", ["seg", "pairs"])
def test_a_term_of_weight_zero_is_not_computed_and_its_head_gets_zero_gradients(off, monkeypatch):
    weights, losses = (
        {"seg": "seg_weight", "pairs": "pair_weight"},
        {
            "seg": "balanced_cross_entropy",
            "pairs": "pair_loss",
        },
    )
    monkeypatch.setattr(module, losses[off], lambda *_: pytest.fail("it was computed"))
    method = _method(**{weights[off]: 0.0}).train()
    result = method(_batch(), 2)
    assert set(result.logs) == {"cls", "seg", "pairs"} - {off}
    result.loss.backward()
    head = method.decoder if off == "seg" else method.attn_proj
    assert all(float(p.grad.abs().sum()) == 0 for p in head.parameters())


def test_without_any_term_of_their_own_the_tags_teach_alone(monkeypatch):
    method = _method(seg_weight=0.0, pair_weight=0.0).train()
    monkeypatch.setattr(method, "targets", lambda *_: pytest.fail("nobody reads them"))
    assert set(method(_batch(), 9).logs) == {"cls"}


def test_the_mode_comes_back_even_from_a_broken_pass(monkeypatch):
    method = _method(cam_passes="eval").train()
    monkeypatch.setattr(module, "class_maps", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        method(_batch(), 2)
    assert method.training
    assert method.decoder.dropout.training


def test_the_decay_has_an_exponent():
    straight, curved = _method(warmup=0).optim_plan(100), _method(warmup=0, power=0.9).optim_plan(100)
    assert straight.factor(50) == pytest.approx(0.5)
    assert curved.factor(50) == pytest.approx(0.5**0.9)


def test_image_without_tags_is_background_or_ignored():
    method = _method().train()
    result = method(_batch(tags=((0, 0, 0), (0, 0, 0))), 2)
    assert result.loss.isfinite()


def test_energy_term_is_optional_and_named():
    result = _method(energy_weight=0.01).train()(_batch(), 2)
    assert "energy" in result.logs


def test_maps_and_walk_share_their_passes():
    method, images = _method().eval(), torch.rand(1, 3, 64, 80)
    tags = torch.tensor([[1.0, 0, 1]])
    calls = []
    method.encoder.register_forward_hook(lambda *_: calls.append(1))
    both = method.maps(images, ("walk", "cam"), tags=tags)
    assert len(calls) == 3
    assert list(both) == ["walk", "cam"]
    assert both["walk"].shape == both["cam"].shape == (1, 3, 64, 80)
    assert 0 <= both["walk"].min() <= both["walk"].max() <= 1
    assert both["walk"][:, 1].abs().max() == 0
    torch.testing.assert_close(both["cam"], method.maps(images)["cam"])


def test_walk_without_tags_asks_the_classifier():
    method, images = _method().eval(), torch.rand(1, 3, 64, 64)
    seen = (method.classify(images) > 0).float()
    torch.testing.assert_close(
        method.maps(images, ("walk",))["walk"], method.maps(images, ("walk",), tags=seen)["walk"]
    )


def test_predictions_of_tiny_images_have_the_right_shapes():
    method, images = _method().eval(), torch.rand(1, 3, 20, 33)
    assert method.classify(images).shape == (1, 3)
    assert method.segment(images).shape[:2] == (1, 4)
    assert method.maps(images)["cam"].shape == (1, 3, 20, 33)


def test_groups_and_rates_follow_the_paper():
    plan = _method(warmup=10).optim_plan(100)
    assert [g.name for g in plan.groups] == ["backbone", "backbone_norm", "cls_head", "seg_head"]
    assert [g.lr for g in plan.groups] == pytest.approx([6e-5, 0, 6e-4, 6e-4])
    assert plan.factor(5) == pytest.approx(0.5, abs=1e-5)
    assert plan.factor(10) == pytest.approx(0.9)
    assert plan.factor(200) == plan.factor(99) > 0


def test_published_checkpoint_loads_strictly(tmp_path):
    method = _method()
    published = {f"module.{name}": value for name, value in method.state_dict().items()}
    other = _method()
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    other.load_state_dict(other.convert_weights(published), strict=True)
    assert torch.equal(other.classifier.weight, method.classifier.weight)


def test_encoder_weights_load_from_a_file(tmp_path):
    source, target = _method(), _method()
    path = tmp_path / "mit_b0.safetensors"
    tensors = {k: v + 1 for k, v in source.encoder.state_dict().items()}
    save_file(tensors | {"head.weight": torch.zeros(4, 4), "head.bias": torch.zeros(4)}, path)
    target.initialise(str(path))
    assert torch.equal(target.encoder.norm1.weight, tensors["norm1.weight"])
    save_file({k: v for k, v in tensors.items() if "norm1" not in k}, path)
    with pytest.raises(CheckpointError, match="missing"):
        target.initialise(str(path))


def test_hub_weights_are_asked_for_by_the_size_of_the_encoder(monkeypatch):
    asked, source = [], _method().encoder.state_dict()

    def fetch(repository, file_name):
        asked.append((repository, file_name))
        return {key: value * 2 for key, value in source.items()}

    monkeypatch.setattr("tagmask.backbones.mit_names.hub_file", fetch)
    method = _method()
    method.initialise("hub")
    assert asked == [("smp-hub/mit_b0.imagenet", "model.safetensors")]
    assert torch.equal(method.encoder.norm1.weight, source["norm1.weight"] * 2)


def test_half_precision_keeps_losses_and_affinity_full():
    method = _method().train()
    with torch.autocast("cpu", torch.bfloat16):
        result = method(_batch(), 2)
        affinity = method.attn_proj(method.encoder(torch.rand(1, 3, 64, 64), (-2, -1)).attention.values())
    assert result.loss.dtype == affinity.dtype == torch.float32
    assert result.loss.isfinite()


def test_unknown_backbone_is_named():
    with pytest.raises(ConfigError, match="mit_b0"):
        validate(AFAConfig, {"backbone": "mit_b6"})

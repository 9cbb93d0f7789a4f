from __future__ import annotations

import warnings

import pytest
import torch

import tagmask.methods.more as module
from tagmask.backbones.weights import load_strictly
from tagmask.config import validate
from tagmask.errors import ConfigError
from tagmask.methods import get
from tagmask.methods.more import MoRe, MoReConfig, Seeds
from tagmask.ops.image_classes import one_class_scores
from tagmask.types import Batch

K = 4
SMALL = {"backbone": "vit:patch=8,dim=32,depth=3,heads=2,size=64", "refine_steps": 1, "scales": (1.0, 0.5)}
EVERYTHING = {"cls", "cls_aux", "mct", "ptc", "cre", "ure", "seg", "energy"}


def make(**settings):
    torch.manual_seed(0)
    return MoRe(MoReConfig(**{**SMALL, **settings}), K)


def batch(boxes=None, labels=None):
    torch.manual_seed(1)
    tags = torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 0]])
    return Batch(torch.rand(2, 3, 64, 64), tags, ("a", "b"), boxes, labels)


def step(method, index, given=None):
    torch.manual_seed(2)
    method.zero_grad(set_to_none=True)
    result = method(given or batch(), index)
    result.loss.backward()
    return result


def test_is_found_by_its_file_name():
    assert get("more") is MoRe


def test_terms_join_at_their_steps_and_idle_parts_get_zero_gradients():
    method = make(ptc_from=1, lir_from=2, seg_from=3).train()
    expected = [set(), {"ptc"}, {"ptc", "cre", "ure"}, {"ptc", "cre", "ure", "seg", "energy"}]
    for index, names in enumerate(expected):
        result = step(method, index)
        assert set(result.logs) == {"loss", "cls", "cls_aux", "mct", *names}
        assert all(p.grad is not None for p in method.parameters())
        moved = sum(float(p.grad.abs().sum()) for p in method.decoder.parameters())
        assert (moved > 0) == (index == 3)


def test_the_total_is_the_weighted_sum():
    method = make(seg_from=0)
    logs, config = dict(step(method, 0).logs), method.config
    assert set(logs) == EVERYTHING | {"loss"}
    total = logs["cls"] + logs["cls_aux"] + config.w_mct * logs["mct"] + config.w_ptc * logs["ptc"]
    total += config.w_cre * logs["cre"] + config.w_ure * logs["ure"]
    total += config.w_seg * logs["seg"] + config.w_energy * logs["energy"]
    torch.testing.assert_close(logs["loss"], total)


def test_skipping_terms_changes_neither_loss_nor_gradients():
    skipped, computed = make(lir_from=9), make(lir_from=0, w_cre=1e-30, w_ure=1e-30)
    first, second = step(skipped, 0), step(computed, 0)
    torch.testing.assert_close(first.loss, second.loss)
    for (name, a), (_, b) in zip(skipped.named_parameters(), computed.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


TERMS = ("mct", "cre", "ptc", "ure", "seg", "energy")


@pytest.mark.parametrize("off", TERMS)
def test_a_term_of_weight_zero_is_not_computed(off, monkeypatch):
    losses = {
        "mct": "class_token_contrast",
        "cre": "class_patch_contrast",
        "ptc": "patch_contrast",
        "ure": "uncertain_regions",
        "seg": "balanced_cross_entropy",
        "energy": "dense_energy_loss",
    }

    def never(*_, **__):
        raise AssertionError(f"{off} was computed")

    monkeypatch.setattr(module, losses[off], never)
    result = step(make(seg_from=0, **{f"w_{off}": 0.0}).train(), 0)
    assert set(result.logs) == (EVERYTHING | {"loss"}) - {off}


def test_classification_alone_runs_one_pass_without_graph_and_decoder(monkeypatch):
    method = make(**{f"w_{name}": 0.0 for name in TERMS}).train()
    for part in (method.graph_layer, method.decoder):
        part.register_forward_hook(lambda *_: pytest.fail("a part that no term reads ran"))
    assert count_passes(monkeypatch, method, 20000) == [(2, 64, None)]
    assert all(p.grad is not None for p in method.parameters())


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ("mct_from", {"mct"}),
        ("ptc_from", {"ptc"}),
        ("lir_from", {"cre", "ure"}),
        ("seg_from", {"seg", "energy"}),
    ],
)
def test_a_term_joins_in_its_first_update_and_not_before(setting, names):
    method = make(**{"seg_from": 0, setting: 7})
    assert all(method.terms(6)._asdict()[name] == 0 for name in names)
    assert all(method.terms(7)._asdict()[name] > 0 for name in names)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": float("nan")},
        {"lr": -0.001},
        {"lr": 1e30},
        {"temperature": 0},
        {"power": -1},
        {"high": 0.2, "low": 0.5},
        {"late_high": 0.1},
        {"num_registers": -1},
        {"w_seg": -1},
        {"seg_from": -1},
        {"warmup": -1},
        {"decoder_width": 0},
        {"refine_steps": -1},
    ],
)
def test_settings_have_ranges(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        validate(MoReConfig, wrong)


def count_passes(monkeypatch, method, index, given=None):
    sizes = []
    inner = method.encoder.forward

    def counted(images, **options):
        sizes.append((images.shape[0], images.shape[2], options.get("last_block")))
        return inner(images, **options)

    monkeypatch.setattr(method.encoder, "forward", counted)
    step(method, index, given)
    return sizes


def test_no_pass_runs_that_nobody_needs(monkeypatch):
    method = make(ptc_from=1, lir_from=1, seg_from=2, late_from=3)
    training, twins, small = (2, 64, None), (2, 64, None), (4, 32, None)
    assert count_passes(monkeypatch, method, 0) == [training]
    # Auxiliary maps need the blocks up to the auxiliary one; the training pass is the unmirrored full view.
    early = [training, (2, 64, 0), (4, 32, 0)]
    assert count_passes(monkeypatch, method, 1) == early
    assert count_passes(monkeypatch, method, 2) == [training, twins, small]
    given = batch(labels=torch.zeros(2, 64, 64, dtype=torch.int64))
    assert count_passes(monkeypatch, method, 2, given) == early


def test_reusing_the_training_pass_changes_nothing(monkeypatch):
    method = make(seg_from=0)
    reused = step(method, 0)
    plain = module.multi_scale
    monkeypatch.setattr(module, "multi_scale", lambda fn, images, plan, known: plain(fn, images, plan))
    for name, value in step(method, 0).logs.items():
        torch.testing.assert_close(value, reused.logs[name])


def test_late_masks_follow_the_main_classifier(monkeypatch):
    method = make(late_from=5)
    sources = []
    plain = method.token_labels
    monkeypatch.setattr(
        method,
        "token_labels",
        lambda seeds, kind, *rest: (sources.append(kind), plain(seeds, kind, *rest))[1],
    )
    step(method, 4)
    assert sources == ["aux_cam"] * 3
    sources.clear()
    step(method, 5)
    assert sources == ["cam", "aux_cam", "cam"]  # cre, ptc, ure


def test_given_labels_take_the_place_of_pseudo_labels():
    method = make(seg_from=0)
    labels = torch.randint(0, K + 1, (2, 64, 64))
    given = step(method, 0, batch(labels=labels)).logs["seg"]
    logits = torch.nn.functional.interpolate(method.segment(batch().images), (64, 64), mode="bilinear")
    torch.testing.assert_close(given, module.balanced_cross_entropy(logits, labels))


@pytest.mark.parametrize("labelled", [0, 1])
def test_crops_without_a_label_leave_loss_and_gradients_finite(labelled):
    labels = torch.full((2, 64, 64), 255)
    labels[:labelled, :20] = 1
    method = make(ptc_from=0, lir_from=0, seg_from=0).train()
    result = step(method, 5, batch(labels=labels))
    assert all(torch.isfinite(value) for value in result.logs.values())
    assert all(torch.isfinite(p.grad).all() for p in method.parameters())
    assert (float(result.logs["seg"]) > 0) == bool(labelled)


def test_crops_whose_own_maps_say_nothing_leave_loss_and_gradients_finite():
    # Between thresholds of 0 and 1 every pixel of every map is ignored.
    method = make(ptc_from=0, lir_from=0, seg_from=0, high=1.0, low=0.0, early_cre_high=1.0).train()
    nowhere = torch.zeros(2, 4, dtype=torch.int64)  # all of it padding
    for boxes in (None, nowhere):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = step(method, 5, batch(boxes=boxes))
        assert all(torch.isfinite(value) for value in result.logs.values())
        assert all(torch.isfinite(p.grad).all() for p in method.parameters())


def test_boxes_in_pixels_warn_and_those_in_patches_do_not():
    boxes = torch.tensor([[20, 64, 0, 64], [0, 41, 7, 64]])
    method = make()
    with pytest.warns(UserWarning, match="token_boxes=patches"):
        step(method, 0, batch(boxes))
    fixed = make(token_boxes="patches")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(fixed, 0, batch(boxes))
    keys = torch.zeros(2, 1, dtype=torch.int64)
    seeds = Seeds({"cam": torch.ones(2, 1, 64, 64)}, keys, torch.ones(2, 1, dtype=torch.bool))
    labels = fixed.token_labels(seeds, "cam", 0.7, 0.25, (8, 8), boxes)
    inside = labels != 255
    assert inside[0].any(1).tolist() == [False] * 3 + [True] * 5  # rows wholly inside pixels 20..64
    assert inside[1].any(1).tolist() == [True] * 5 + [False] * 3
    assert inside[1].any(0).tolist() == [False] + [True] * 7


@pytest.mark.parametrize(
    "settings",
    [
        {"graph_weight": "dot"},
        {"graph": False},
        {"ure_position": "centre"},
        {"pseudo_label_source": "lam"},
        {"mct": "mixed"},
        {"normalisation": "weights"},
        {"pooling": "top", "aux_pooling": "lse", "aux_norm": True},
    ],
)
def test_every_option_changes_the_step(settings):
    plain, changed = step(make(seg_from=0), 0), step(make(seg_from=0, **settings), 0)
    assert changed.loss.isfinite()
    assert not torch.equal(plain.loss, changed.loss)


def test_a_published_checkpoint_loads_strictly():
    method = make()
    unused = {
        "encoder.head.weight": torch.zeros(7, 32),
        "encoder.head.bias": torch.zeros(7),
        "graph_layer._fc1.0.weight": torch.zeros(32, 32),
        "graph_layer._fc1.0.bias": torch.zeros(32),
    }
    published = {f"module.{k}": v + 1 for k, v in (dict(method.state_dict()) | unused).items()}
    for state in (
        published,
        {"step": 7, "model_state_dict": published, "optimizer_state_dict": {}, "lr": 0.1},
    ):
        again = make()
        load_strictly(again, MoRe.convert_weights(state), "published")
        assert torch.equal(again.classifier.weight, method.classifier.weight + 1)


def test_groups_and_rates_are_those_of_the_paper():
    plan = make().optim_plan(20000)
    assert [g.name for g in plan.groups] == ["backbone", "backbone_norm", "classifiers", "graph", "decoder"]
    assert [g.lr for g in plan.groups] == [6e-5, 6e-5, 6e-4, 6e-4, 6e-4]
    assert plan.factor(199) * 6e-5 == pytest.approx(7.96e-6, rel=1e-3)
    assert plan.factor(1999) * 6e-5 == pytest.approx(5.457e-5, rel=1e-3)
    assert make(graph=False).optim_plan(10).groups[3].name == "decoder"


def test_maps_of_one_view():
    method = make().eval()
    images = torch.rand(2, 3, 40, 72)
    maps = method.view_maps(images, method.map_kinds)
    assert {kind: tuple(value.shape) for kind, value in maps.items()} == dict.fromkeys(
        method.map_kinds, (2, K, 5, 9)
    )
    aux = method.view_maps(images, ("aux_cam",))["aux_cam"]
    torch.testing.assert_close(aux, maps["aux_cam"])


def test_masks_weigh_every_class_by_its_chance_to_be_in_the_image():
    method = make(tag_weight=2.0).eval()
    plain = make().eval()
    plain.load_state_dict(method.state_dict())
    images = batch().images
    with torch.no_grad():
        shares = plain.segment(images).softmax(1)
        shares[:, 1:] *= plain.classify(images).sigmoid()[:, :, None, None] ** 2
        expected = shares / shares.sum(1, keepdim=True)
        torch.testing.assert_close(method.segment(images).softmax(1), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("most", ["one", "at_most_one"])
def test_masks_of_images_that_show_one_class(most):
    method, plain = make(classes_per_image=most, tag_weight=1.0, match_area=True).eval(), make().eval()
    plain.load_state_dict(method.state_dict(), strict=False)
    images = batch().images
    with torch.no_grad():
        method.background_shift.fill_(0.25)
        found, tags, scores = method.segment(images), plain.classify(images), plain.segment(images)
        scores[:, 0] += 0.25  # the decoder's part comes first
        torch.testing.assert_close(found, one_class_scores(scores, tags, 1.0, most == "at_most_one"))
    assert all(len(mask.unique()) <= 2 for mask in found.argmax(1))


def test_the_background_shift_is_added_saved_and_0_in_models_of_before():
    before, method = make().eval(), make(match_area=True).eval()
    assert "background_shift" not in before.state_dict()
    method.load_state_dict(before.state_dict())
    images = batch().images
    with torch.no_grad():
        plain = before.segment(images)
        torch.testing.assert_close(method.segment(images), plain)
        method.background_shift.fill_(1.5)
        shifted = method.segment(images)
    torch.testing.assert_close(shifted[:, :1], plain[:, :1] + 1.5)
    torch.testing.assert_close(shifted[:, 1:], plain[:, 1:])
    again = make(match_area=True)
    again.load_state_dict(method.state_dict())
    assert float(again.background_shift) == 1.5

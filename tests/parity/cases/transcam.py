"""TransCAM on Conformer against stored outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from tagmask.losses.tags import multilabel_soft_margin
from tagmask.methods.transcam import TransCAM, TransCAMConfig, spread
from tagmask.ops.crf import crf_on_labels
from tagmask.ops.crf_presets import PRESETS
from tagmask.ops.multiscale import multi_scale
from tagmask.types import Batch
from tests.parity.cases.psa import as_images, loaded
from tests.parity.golden import Check, Golden, joint_norm

RULES = ("convcam", "clsattn", "transcam", "attnagg")


def make(golden: Golden, **settings: object) -> TransCAM:
    names = ("drop_path", "lr", "weight_decay")
    settings = {**{key: golden.meta[key] for key in names if key in golden.meta}, **settings}
    count = golden.shape("conv_cls_head.weight")[0] - 1
    net = loaded(TransCAM, TransCAMConfig(weights="none", **settings), count, golden)
    assert isinstance(net, TransCAM)
    return net


def plain_images(net: TransCAM, normalised: Tensor) -> Tensor:
    """Normalised images back in [0, 1]."""
    return normalised * net.backbone.std + net.backbone.mean


@torch.no_grad()
def forward(golden: Golden) -> Iterable[Check]:
    net = make(golden).eval()
    images = plain_images(net, golden.tensor("images"))
    total = torch.zeros(())
    sizes: dict[str, list[Tensor]] = {"x": [], "xt": []}

    def add(scores: Tensor) -> Tensor:
        nonlocal total
        total = total + scores.softmax(-1).mean(1)
        return scores[:0]

    def note(module: object, given: object, made: tuple[Tensor, Tensor]) -> None:
        sizes["x"].append(made[0].abs().mean())
        sizes["xt"].append(made[1].abs().mean())

    for index in range(2, net.backbone.depth + 1):
        net.backbone.get_submodule(f"conv_trans_{index}").register_forward_hook(note)
    features = net.backbone(images, scores=range(net.backbone.depth), reduce=add)
    for name, means in sizes.items():
        key = f"block_{name}_absmean"
        yield Check(key, torch.stack(means), golden.output(key)[1:], "rel", 2e-5)
    cnn, transformer = net.logits(images)
    yield Check("conv_logits", cnn, golden.output("conv_logits"), "rel", 2e-5)
    yield Check("trans_logits", transformer, golden.output("trans_logits"), "rel", 2e-5)
    yield Check("attn_sum", total, golden.output("attn_sum"), "rel", 2e-5)
    maps = net.conv_cls_head(features.map)
    for rule in RULES:
        ours = maps if rule == "convcam" else spread(maps, total, rule)
        yield Check(f"cam_{rule}", ours, golden.output(f"cam_{rule}"), "rel", 2e-5)
        view = TransCAM.view_maps(_with_rule(net, rule), images, ["cam"])["cam"]
        yield Check(f"view_{rule}", view, golden.output(f"cam_{rule}")[:, 1:], "rel", 2e-5)


def _with_rule(net: TransCAM, rule: str) -> TransCAM:
    net.config = net.config.model_copy(update={"cam": rule})
    return net


def _views(sizes: list[int]) -> dict[str, Any]:
    """Settings that give squares of these sides; a trifle more, because scaled sides are rounded down."""
    return {"base": sizes[0], "scales": tuple((size + 1e-3) / sizes[0] for size in sizes)}


@torch.no_grad()
def cam(golden: Golden) -> Iterable[Check]:
    sizes = golden.meta["sizes"]
    net = make(golden, **_views(sizes)).eval()
    images = as_images(golden.tensor("image")[None])
    yield from _finished(golden, lambda view: net.view_maps(view, ["cam"]), images, net)


@torch.no_grad()
def postprocess(golden: Golden) -> Iterable[Check]:
    sizes = golden.meta["sizes"]
    config = TransCAMConfig(
        backbone="conformer:dim=12,depth=3,heads=1,ratio=1,base=4",
        **_views(sizes),
    )
    net = TransCAM(config, len(golden.inputs["label"]))
    images = as_images(golden.tensor("image")[None])

    def stored(view: Tensor) -> dict[str, Tensor]:
        first = 2 * sizes.index(view.shape[-1])
        return {"cam": torch.cat([golden.tensor(f"cam{first + i}")[:, 1:] for i in (0, 1)])}

    yield from _finished(golden, stored, images, net, exact=True)


def _finished(
    golden: Golden,
    view_maps: Callable[[Tensor], dict[str, Tensor]],
    images: Tensor,
    net: TransCAM,
    exact: bool = False,
) -> Iterable[Check]:
    plan = net.view_plan("cam")
    keys = golden.output("keys")
    # The sum itself is not on offer: take back a division by its largest value plus a number so large that
    # the divisor never comes near 0, where it would magnify the last digit of a sum just below it.
    large = 2.0**20
    raw = dataclasses.replace(plan, relu="none", scaling="max", epsilon=large)
    scaled = multi_scale(view_maps, images, raw)["cam"][0, keys]
    total = scaled * (golden.output("sum_cam").amax(dim=(1, 2), keepdim=True) + large)
    yield Check("sum_cam", total, golden.output("sum_cam"), "rel", 1e-5)
    maps = multi_scale(view_maps, images, plan)["cam"][0, keys]
    stored = golden.output("cam")
    if exact:
        yield Check("cam", maps, stored, "abs", 1e-5)
    else:
        valid = stored >= 0
        yield Check("cam", maps[valid], stored[valid], "abs", 1e-3)
    for threshold in (key.removeprefix("label_") for key in golden.outputs if key.startswith("label_")):
        stack = torch.cat([torch.full_like(maps[:1], float(threshold)), maps])
        names = torch.cat([keys.new_zeros(1), keys + 1])
        labels = names[stack.argmax(0)]
        count = len(golden.inputs["label"]) + 1
        clean = crf_on_labels(golden.tensor("image"), labels, count, PRESETS["label_50_5"])
        key = f"label_{threshold}"
        yield Check(key, clean, golden.output(key).long(), "mismatch", 0.005)


def loss(golden: Golden) -> Iterable[Check]:
    cnn, transformer = (golden.tensor(key).requires_grad_() for key in ("conv_logits", "trans_logits"))
    ours = multilabel_soft_margin((cnn + transformer)[:, 1:], golden.tensor("labels"))
    ours.backward()
    yield Check("loss", ours, golden.output("loss"), "rel", 1e-5)
    yield Check("grad_conv", cnn.grad, golden.output("grad_conv"), "rel", 1e-5)
    yield Check("grad_trans", transformer.grad, golden.output("grad_trans"), "rel", 1e-5)


def train_step(golden: Golden) -> Iterable[Check]:
    net = make(golden).train()
    images = plain_images(net, golden.tensor("images"))
    names = tuple(map(str, range(len(images))))
    result = net(Batch(images, golden.tensor("labels"), names), 0)
    result.loss.backward()
    yield Check("loss", result.loss, golden.output("loss"), "rel", 1e-4)
    yield from running_statistics(net, golden, "")
    yield from gradient_norms(net, golden, "grad_norm_param")
    total = joint_norm(p.grad for p in net.parameters() if p.grad is not None)
    yield Check("grad_norm_total", total, golden.output("grad_norm_total"), "rel", 2e-2)
    for module in net.modules():  # the batch statistics of the same images again, for the outputs
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0
    with torch.no_grad():
        cnn, transformer = net.logits(images)
        maps = net.view_maps(images, ["cam"])["cam"]
    yield Check("conv_logits", cnn, golden.output("conv_logits"), "rel", 1e-4)
    yield Check("trans_logits", transformer, golden.output("trans_logits"), "rel", 1e-4)
    yield Check("cams", maps, golden.output("cams")[:, 1:], "rel", 1e-4)


def running_statistics(net: torch.nn.Module, golden: Golden, prefix: str) -> Iterable[Check]:
    """Running means and variances of the listed layers."""
    for index, name in enumerate(golden.meta["bn_layers"]):
        layer = net.get_submodule(f"backbone.{name}")
        for ours, key in ((layer.running_mean, "running_mean"), (layer.running_var, "running_var")):
            stored = f"{prefix}{key}_{index}"
            yield Check(stored, ours.clone(), golden.output(stored), "rel", 1e-5)


def gradient_norms(
    net: torch.nn.Module, golden: Golden, key: str, tolerance: float = 2e-2
) -> Iterable[Check]:
    """Every parameter's gradient norm, relative, where it is not zero."""
    params = {name.removeprefix("backbone."): p for name, p in net.named_parameters()}
    norms = []
    for name in golden.meta["param_names"]:
        grad = params[name].grad
        norms.append(0.0 if grad is None else float(grad.double().norm()))
    stored = golden.output(key)
    large = stored > 1e-6
    ratio = torch.tensor(norms, dtype=torch.float64)[large] / stored[large]
    yield Check(key, ratio, torch.ones_like(ratio), "abs", tolerance)


CASES: dict[str, Callable[[Golden], Iterable[Check]]] = {
    "transcam_forward": forward,
    "transcam_cam": cam,
    "transcam_postprocess": postprocess,
    "transcam_loss": loss,
    "transcam_train_step": train_step,
}

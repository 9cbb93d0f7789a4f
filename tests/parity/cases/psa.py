"""PSA: AffinityNet, its labels and loss, the random walk and the classifier against stored outputs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagmask.losses.pairs import sampled_pair_loss
from tagmask.methods.affinity_net import AffinityNet, AffinityNetConfig
from tagmask.methods.base import Method, MethodConfig
from tagmask.methods.psa import PSA, PSAConfig
from tagmask.ops.affinity_pairs import (
    affinity_matrix,
    pair_affinity,
    pair_offsets,
    random_walk,
    walk_scores,
)
from tagmask.ops.maps import with_background
from tagmask.training.optim import build_optimizer, set_rates
from tagmask.types import Batch, OptimPlan
from tests.parity.golden import Blank, Check, Golden, golden_weights, joint_norm


def pairs(golden: Golden) -> Iterable[Check]:
    radius = golden.meta["radius"]
    yield Check("offsets_dy_dx", pair_offsets(radius), golden.output("offsets_dy_dx"), "exact")
    for case, (h, w) in enumerate(golden.inputs["sizes"].tolist()):
        ends = golden.output(f"size{case}/to").long()
        start = golden.output(f"size{case}/from").long()
        numbers = torch.arange(1, ends.numel() + 1, dtype=torch.float32).view(ends.shape)
        ours = affinity_matrix(numbers, (h, w), radius)
        expected = torch.eye(h * w)
        expected[start.expand_as(ends), ends] = numbers
        expected[ends, start.expand_as(ends)] = numbers
        yield Check(f"size{case}", ours, expected, "exact")


def loss(golden: Golden) -> Iterable[Check]:
    kinds = golden.tensor("pair_class")
    for case in dict.fromkeys(key.partition("/")[0] for key in golden.outputs):
        affinity = golden.tensor("affinity").requires_grad_()
        foreground = (kinds == 2) if case == "mixed" else torch.zeros_like(kinds, dtype=torch.bool)
        ours = sampled_pair_loss(affinity, kinds == 1, foreground, kinds >= 3)
        ours.total.backward()
        names = ("loss", "bg_loss", "fg_loss", "neg_loss")
        for name, value in zip(names, ours, strict=True):
            yield Check(f"{case}/{name}", value, golden.output(f"{case}/{name}"), "rel", 1e-6)
        yield Check(f"{case}/grad", affinity.grad, golden.output(f"{case}/grad"), "rel", 1e-5)


def forward(golden: Golden) -> Iterable[Check]:
    config = AffinityNetConfig(weights="none", radius=golden.meta["radius"])
    net = loaded(AffinityNet, config, 20, golden).eval()
    images = as_images(golden.tensor("image")[None])
    normalised = (images - net.backbone.mean) / net.backbone.std
    yield Check("normalized", normalised[0], golden.tensor("normalized"), "rel", 1e-5)
    with torch.no_grad():
        depths = net.backbone(images)
        features = net.features(images)
        affinity = net.affinity(images)[0]
    for name in ("conv4", "conv5", "conv6"):
        channels, stored = getattr(depths, name)[0], golden.output(name)
        kept = channels[:: len(channels) // len(stored)]
        yield Check(name, kept, stored, "rel", 1e-5)
    yield Check("feature", features[0], golden.output("feature"), "rel", 1e-5)
    yield Check("affinity", affinity, golden.output("affinity"), "rel", 1e-5)
    dense = affinity_matrix(affinity, tuple(features.shape[2:]), golden.meta["radius"])
    yield Check("affinity_dense", dense, golden.output("affinity_dense"), "rel", 1e-5)


def classifier(golden: Golden) -> Iterable[Check]:
    given = {"scales": golden.meta["scales"]} if "scales" in golden.meta else {}
    count = golden.shape("fc8.weight")[0]
    net = loaded(PSA, PSAConfig(weights="none", **given), count, golden).eval()
    images = as_images(golden.tensor("image")[None])
    with torch.no_grad():
        yield Check("logits", net.classify(images)[0], golden.output("logits"), "rel", 1e-5)
        yield Check("cam", net.view_maps(images, ["cam"])["cam"][0], golden.output("cam"), "rel", 1e-5)
        maps = net.maps(images)["cam"][0, golden.tensor("label") > 0]
    yield Check("multiscale_cam", maps, golden.output("multiscale_cam"), "abs", 1e-4)


def optim(golden: Golden) -> Iterable[Check]:
    for name, settings in golden.meta["settings"].items():
        first = settings["groups"][0]
        given = {"lr": settings["lr"], "weight_decay": first["weight_decay"], "momentum": first["momentum"]}
        net = AffinityNet(AffinityNetConfig(weights="none", width=4, **given), 20)
        yield from check_plan(net, net.optim_plan(settings["max_step"]), name, settings["groups"], golden)


def train_step(golden: Golden) -> Iterable[Check]:
    # PSA hands its weight decay to SGD in the place of the momentum, too.
    decay = {"weight_decay": golden.meta["weight_decay"], "momentum": golden.meta["weight_decay"]}
    config = AffinityNetConfig(weights="none", lr=golden.meta["lr"], **decay)
    net = without_dropout(loaded(AffinityNet, config, 20, golden)).train()
    batch = labelled(golden, 8)
    before = net.f9.weight.detach().clone()
    seen = recorded(net, "affinity")
    result = net(batch, 0)
    yield Check("affinity", seen[0], golden.output("affinity"), "rel", 1e-5)
    result.loss.backward()
    yield Check("loss", result.loss, golden.output("loss"), "rel", 1e-5)
    for ours, name in (("background", "bg_loss"), ("foreground", "fg_loss"), ("negative", "neg_loss")):
        yield Check(name, result.logs[ours], golden.output(name), "rel", 1e-5)
    plan = net.optim_plan(golden.meta["max_step"])
    yield from check_gradients(plan, golden)
    grad = net.f9.weight.grad
    assert grad is not None
    yield Check("f9_grad_slice", grad[:8, :8, 0, 0], golden.output("f9_grad_slice"), "rel", 1e-4)
    optimizer = build_optimizer(plan)
    set_rates(optimizer, plan, 0)
    optimizer.step()
    update = (net.f9.weight.detach() - before)[:8, :8, 0, 0]
    yield Check("f9_update_slice", update, golden.output("f9_update_slice"), "rel", 1e-4)


def labelled(golden: Golden, cell: int = 1) -> Batch:
    """The stored images and labels as a batch; labels of cells become labels of pixels."""
    labels = golden.tensor("labels").long().repeat_interleave(cell, 1).repeat_interleave(cell, 2)
    names = tuple(map(str, range(len(labels))))
    return Batch(as_images(golden.tensor("images")), torch.zeros(len(labels), 20), names, labels=labels)


def background_of(text: str) -> tuple[float, float | None]:
    """Level and power of a background that meta describes as "(1-max)^16" or "constant .39"."""
    if found := re.fullmatch(r"\(1-max\)\^([\d.]+)", text):
        return 0.0, float(found[1])
    return float(text.removeprefix("constant")), None


def walk(golden: Golden) -> Iterable[Check]:
    radius, feature = golden.meta["radius"], golden.tensor("feature8")
    affinity = pair_affinity(feature.repeat(448 // len(feature), 1, 1)[None], radius)[0]
    size = (feature.shape[1], feature.shape[2])
    for power in golden.numbers(r"affinity_pow(\d+)"):
        powered = affinity_matrix(affinity, size, radius) ** power
        key = f"affinity_pow{power}"
        yield Check(key, powered, golden.output(key), "abs", 1e-6)
    maps = golden.tensor("cam")
    names = torch.tensor([0, *(key + 1 for key in golden.inputs["keys"].tolist())])
    for name, stored in golden.meta["settings"].items():
        walk_settings = {"beta": stored["beta"], "steps": 2 ** stored["logt"], "radius": radius}
        scores = with_background(maps, *background_of(stored["background"]))
        padded = F.pad(scores, (0, -scores.shape[2] % 8, 0, -scores.shape[1] % 8))
        pooled = F.avg_pool2d(padded, 8)
        yield Check(f"{name}/cam_pooled", pooled, golden.output(f"{name}/cam_pooled"), "abs", 1e-6)
        spread = random_walk(pooled, affinity, **walk_settings)
        yield Check(f"{name}/cam_rw", spread, golden.output(f"{name}/cam_rw"), "abs", 1e-4)
        full = walk_scores(scores, affinity, **walk_settings)
        labels = names[full.argmax(0)]
        yield Check(f"{name}/label", labels, golden.output(f"{name}/label"), "mismatch", 0.002)
        key = next(key for key in golden.outputs if key.startswith(f"{name}/transition_rows_"))
        chosen = [int(number) for number in key.partition("_rows_")[2].split("_")]
        rows = torch.eye(size[0] * size[1])[chosen].view(len(chosen), *size)
        moved = random_walk(rows, affinity, **walk_settings).flatten(1)
        yield Check(key, moved, golden.output(key), "abs", 1e-5)
        everything = random_walk(torch.ones(1, *size), affinity, **walk_settings)
        key = f"{name}/transition_column_sums"
        yield Check(key, everything.flatten(), golden.output(key), "abs", 1e-4)


def as_images(levels: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) as images in [0, 1]."""
    return levels.permute(0, 3, 1, 2).float() / 255


def loaded(kind: type[Method], config: MethodConfig, count: int, golden: Golden) -> Method:
    """A method of that kind with the golden's weights, loaded strictly."""
    with Blank():
        net = kind(config, count)
    net.load_state_dict(net.convert_weights(golden_weights(golden.meta["state_dict"])))
    return net


def recorded(net: Method, name: str) -> list[Tensor]:
    """Keep what a function of the network gives from now on; a step's own pass need not be repeated."""
    real, seen = getattr(net, name), list[Tensor]()

    def record(images: Tensor) -> Tensor:
        seen.append(real(images))
        return seen[-1]

    setattr(net, name, record)
    return seen


def without_dropout(net: nn.Module) -> nn.Module:
    """Every dropout probability 0, as in the stored steps."""
    for module in net.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    return net


def check_gradients(plan: OptimPlan, golden: Golden, tolerance: float = 1e-4) -> Iterable[Check]:
    """Norm of the gradient and number of parameters that have one, per group."""
    grads = [[p.grad for p in g.params if p.grad is not None] for g in plan.groups]
    norms = [joint_norm(group) for group in grads]
    counts = golden.outputs["params_with_grad_per_group"]
    keep = counts > 0  # the originals also list groups of biases, which are empty
    yield Check("grad_norm_per_group", norms, golden.outputs["grad_norm_per_group"][keep], "rel", tolerance)
    yield Check("params_with_grad", [len(group) for group in grads], counts[keep], "exact")


def check_plan(
    net: Method, plan: OptimPlan, name: str, groups: Sequence[dict], golden: Golden
) -> Iterable[Check]:
    """Members, settings and rates of SGD groups."""
    names = {
        id(p): key.removeprefix("network.").removeprefix("backbone.") for key, p in net.named_parameters()
    }
    filled = [group for group in groups if group["names"]]
    for index, (ours, theirs) in enumerate(zip(plan.groups, filled, strict=True)):
        members = [names[id(p)] for p in ours.params]
        # The originals list frozen tensors too, which never get a gradient.
        flags = zip(theirs["names"], theirs["requires_grad"], strict=True)
        listed = [member for member, trained in flags if trained]
        yield Check(f"{name}/group{index}", np.array(members), np.array(listed), "exact")
        values = [ours.lr, ours.weight_decay, plan.momentum]
        expected = [theirs[key] for key in ("lr", "weight_decay", "momentum")]
        yield Check(f"{name}/settings{index}", values, expected, "abs", 1e-12)
    rates = golden.outputs[f"{name}/lr"]
    keep = [index for index, group in enumerate(groups) if group["names"]]
    steps = golden.outputs[f"{name}/steps"].tolist()
    ours = [[g.lr * plan.factor(step) for g in plan.groups] for step in steps]
    yield Check(f"{name}/lr", ours, rates[:, keep], "abs", 1e-12)


CASES: dict[str, Callable[[Golden], Iterable[Check]]] = {
    "psa_pairs": pairs,
    "psa_loss": loss,
    "psa_forward": forward,
    "psa_cls": classifier,
    "psa_optim": optim,
    "psa_train_step": train_step,
    "psa_random_walk": walk,
}

"""The ResNet-38 segmentation stage against stored outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F

from tagmask.methods.segmenter import Segmenter, SegmenterConfig
from tagmask.ops.crf import dense_crf
from tagmask.ops.crf_presets import PRESETS, unary_from_probabilities
from tagmask.ops.multiscale import view_sizes
from tagmask.ops.segmentation_views import segment_views
from tagmask.training.optim import build_optimizer, set_rates
from tagmask.types import Batch
from tests.parity.cases.psa import (
    as_images,
    check_gradients,
    check_plan,
    labelled,
    loaded,
    recorded,
    without_dropout,
)
from tests.parity.golden import Check, Golden


def make(golden: Golden, **settings: object) -> Segmenter:
    count = golden.shape("fc8_seg_conv2.weight")[0] - 1
    return loaded(Segmenter, SegmenterConfig(weights="none", **settings), count, golden)


@torch.no_grad()
def forward(golden: Golden) -> Iterable[Check]:
    net = make(golden).eval()
    images = as_images(golden.tensor("image")[None])
    backbone = net.network.backbone
    normalised = (images - backbone.mean) / backbone.std
    yield Check("normalized", normalised[0], golden.tensor("normalized"), "rel", 1e-5)
    hidden = F.relu(net.network.fc8_seg_conv1(backbone(images).conv6))
    stored = golden.output("hidden")
    yield Check("hidden", hidden[0, :: hidden.shape[1] // len(stored)], stored, "rel", 1e-5)
    yield Check("logits", net.segment(images)[0], golden.output("logits"), "rel", 1e-5)


@torch.no_grad()
def multiscale(golden: Golden) -> Iterable[Check]:
    net = make(golden).eval()
    images = as_images(golden.tensor("image")[None])
    size = (images.shape[2], images.shape[3])
    scales = golden.meta["scales"]
    sizes = view_sizes(*size, scales)
    options = {"flip": "none", "probabilities": True, "align_corners": True}
    for scale, wanted in zip(scales, sizes, strict=True):
        key = f"scale_{scale:g}"
        yield Check(f"{key}/size", wanted, golden.output(f"{key}/size"), "exact")
        for name in (name for name in golden.outputs if name.startswith(f"{key}/probs_classes_")):
            classes = [int(number) for number in name.partition("_classes_")[2].split("_")]
            probs = segment_views(net.segment, images, [wanted], size, **options)[0, classes]
            yield Check(name, probs, golden.output(name), "abs", 1e-6)
    merged = segment_views(net.segment, images, sizes, size, merge="max", **options)
    yield Check("probs_max", merged[0], golden.output("probs_max"), "abs", 1e-6)
    yield Check("label", merged[0].argmax(0), golden.output("label"), "mismatch", 0.002)
    clean = dense_crf(golden.tensor("image"), unary_from_probabilities(merged[0]), PRESETS["seg38"])
    yield Check("crf", clean, golden.output("crf"), "abs", 1e-5)
    yield Check("label_crf", clean.argmax(0), golden.output("label_crf"), "mismatch", 0.002)


def loss(golden: Golden) -> Iterable[Check]:
    logits = golden.tensor("logits").requires_grad_()
    classes = logits.shape[1] - 1
    net = Segmenter(SegmenterConfig(weights="none", width=4), classes)
    net.segment = lambda images: logits  # type: ignore[method-assign]
    labels = golden.tensor("labels").long()
    images, names = torch.zeros(len(labels), 3, *labels.shape[1:]), tuple(map(str, range(len(labels))))
    batch = Batch(images, torch.zeros(len(labels), classes), names, labels=labels)
    ours = net(batch, 0).loss
    ours.backward()
    yield Check("loss", ours, golden.output("loss"), "rel", 1e-6)
    yield Check("grad", logits.grad, golden.output("grad"), "rel", 1e-5)


def optim(golden: Golden) -> Iterable[Check]:
    for name, settings in golden.meta["settings"].items():
        first = settings["groups"][0]
        given = {"lr": settings["lr"], "weight_decay": first["weight_decay"], "momentum": first["momentum"]}
        net = Segmenter(SegmenterConfig(weights="none", width=4, **given), 20)
        plan = net.optim_plan(settings["max_step"])
        yield from check_plan(net, plan, name, settings["groups"], golden)


def train_step(golden: Golden) -> Iterable[Check]:
    # Its scripts hand the weight decay to SGD in the place of the momentum.
    settings = {"lr": golden.meta["lr"], "momentum": golden.meta["weight_decay_argument"]}
    net, batch = without_dropout(make(golden, **settings)).train(), labelled(golden)
    seen = recorded(net, "segment")
    last = net.network.fc8_seg_conv2
    before = last.weight.detach().clone()
    result = net(batch, 0)
    result.loss.backward()
    yield Check("logits", seen[0], golden.output("logits"), "rel", 1e-5)
    yield Check("loss", result.loss, golden.output("loss"), "rel", 1e-5)
    plan = net.optim_plan(golden.meta["max_step"])
    yield from check_gradients(plan, golden)
    yield Check("conv2_bias_grad", last.bias.grad, golden.output("conv2_bias_grad"), "rel", 1e-4)
    optimizer = build_optimizer(plan)
    set_rates(optimizer, plan, 0)
    optimizer.step()
    stored = golden.output("conv2_update_slice")
    update = (last.weight.detach() - before)[: stored.shape[0], : stored.shape[1], 1, 1]
    yield Check("conv2_update_slice", update, stored, "rel", 1e-4)


CASES: dict[str, Callable[[Golden], Iterable[Check]]] = {
    "seg_forward": forward,
    "seg_multiscale": multiscale,
    "seg_loss": loss,
    "seg_optim": optim,
    "seg_train_step": train_step,
}

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
from tests.parity.cases.psa import as_images, check_gradients, check_plan, load, without_dropout
from tests.parity.golden import Check, Golden


def make(golden: Golden) -> Segmenter:
    return load(Segmenter(SegmenterConfig(weights="none"), 20), golden)


@torch.no_grad()
def forward(golden: Golden) -> Iterable[Check]:
    net = make(golden).eval()
    images = as_images(golden.tensor("image")[None])
    backbone = net.network.backbone
    normalised = (images - backbone.mean) / backbone.std
    yield Check("normalized", normalised[0], golden.tensor("normalized"), "rel", 1e-5)
    hidden = F.relu(net.network.fc8_seg_conv1(backbone(images).conv6))
    yield Check("hidden", hidden[0, ::4], golden.output("hidden"), "rel", 1e-5)
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
        if f"{key}/probs_classes_0_10_20" in golden.outputs:
            probs = segment_views(net.segment, images, [wanted], size, **options)[0, [0, 10, 20]]
            yield Check(f"{key}/probs", probs, golden.output(f"{key}/probs_classes_0_10_20"), "abs", 1e-6)
    merged = segment_views(net.segment, images, sizes, size, merge="max", **options)
    yield Check("probs_max", merged[0], golden.output("probs_max"), "abs", 1e-6)
    yield Check("label", merged[0].argmax(0), golden.output("label"), "mismatch", 0.002)
    clean = dense_crf(golden.tensor("image"), unary_from_probabilities(merged[0]), PRESETS["seg38"])
    yield Check("crf", clean, golden.output("crf"), "abs", 1e-5)
    yield Check("label_crf", clean.argmax(0), golden.output("label_crf"), "mismatch", 0.002)


def loss(golden: Golden) -> Iterable[Check]:
    net = Segmenter(SegmenterConfig(weights="none", width=4), 20)
    logits = golden.tensor("logits").requires_grad_()
    net.segment = lambda images: logits  # type: ignore[method-assign]
    labels = golden.tensor("labels").long()
    batch = Batch(torch.zeros(2, 3, 65, 65), torch.zeros(2, 20), ("a", "b"), labels=labels)
    ours = net(batch, 0).loss
    ours.backward()
    yield Check("loss", ours, golden.output("loss"), "rel", 1e-6)
    yield Check("grad", logits.grad, golden.output("grad"), "rel", 1e-5)


def optim(golden: Golden) -> Iterable[Check]:
    for name, settings in golden.meta["settings"].items():
        net = Segmenter(SegmenterConfig(weights="none", width=4), 20)
        plan = net.optim_plan(settings["max_step"])
        yield from check_plan(net, plan, name, settings["groups"], golden)


def train_step(golden: Golden) -> Iterable[Check]:
    net = without_dropout(make(golden)).train()
    images, labels = as_images(golden.tensor("images")), golden.tensor("labels").long()
    batch = Batch(images, torch.zeros(2, 20), ("a", "b"), labels=labels)
    with torch.no_grad():
        yield Check("logits", net.segment(images), golden.output("logits"), "rel", 1e-5)
    last = net.network.fc8_seg_conv2
    before = last.weight.detach().clone()
    result = net(batch, 0)
    result.loss.backward()
    yield Check("loss", result.loss, golden.output("loss"), "rel", 1e-5)
    plan = net.optim_plan(golden.meta["max_step"])
    yield from check_gradients(plan, golden)
    yield Check("conv2_bias_grad", last.bias.grad, golden.output("conv2_bias_grad"), "rel", 1e-4)
    optimizer = build_optimizer(plan)
    set_rates(optimizer, plan, 0)
    optimizer.step()
    update = (last.weight.detach() - before)[:, :8, 1, 1]
    yield Check("conv2_update_slice", update, golden.output("conv2_update_slice"), "rel", 1e-4)


CASES: dict[str, Callable[[Golden], Iterable[Check]]] = {
    "seg_forward": forward,
    "seg_multiscale": multiscale,
    "seg_loss": loss,
    "seg_optim": optim,
    "seg_train_step": train_step,
}

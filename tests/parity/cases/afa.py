"""AFA: labels, random walk and losses against stored outputs of the original."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from tagmask.backbones.mit import MixTransformer
from tagmask.losses.affinity import pair_loss
from tagmask.losses.segmentation import balanced_cross_entropy
from tagmask.losses.tags import multilabel_soft_margin
from tagmask.ops.affinity import (
    affinity_labels,
    propagate,
    propagate_with_background,
    radius_mask,
    transition,
)
from tagmask.ops.labels import box_mask, labels_from_maps, labels_with_ignore, refine_labels, refine_shares
from tagmask.ops.maps import keep_present, present_classes, take_classes
from tagmask.ops.pixel_refinement import par
from tagmask.ops.resize import resize_bilinear
from tests.parity.golden import Check, Golden

LABEL_SHARE = 1e-3


def rgb_images(golden: Golden) -> Tensor:
    levels = golden.tensor("images_u8").permute(0, 3, 1, 2).float()
    return levels if "0..255" in golden.config.get("image_range", "") else levels / 255


def cam_label(golden: Golden) -> Iterable[Check]:
    maps, tags, boxes = golden.tensor("cams"), golden.tensor("cls_labels"), golden.tensor("img_box")
    config = golden.meta["config"]
    background = config["bkg_score"]
    yield Check("valid_cam", keep_present(maps, tags), golden.output("valid_cam"), "exact")
    pairs = {
        "label_ignore_mid": labels_with_ignore(maps, tags, config["high_thre"], config["low_thre"], boxes),
        "label_box": labels_from_maps(maps, tags, background, boxes),
        "label_plain": labels_from_maps(maps, tags, background),
        "label_plain_boxed": labels_from_maps(maps, tags, background, boxes),
    }
    for name, ours in pairs.items():
        yield Check(name, ours, golden.output(name), "exact")


def radius_masks(golden: Golden) -> Iterable[Check]:
    for index, (h, w, radius) in enumerate(golden.inputs["h_w_radius"].tolist()):
        yield Check(
            f"mask_{index}", radius_mask(h, w, radius), golden.output(f"mask_{index}").bool(), "exact"
        )
    last = golden.meta["config"]["stride"] // 16
    with torch.device("meta"):
        encoder = MixTransformer("mit_b0", (4, 2, 2, last))
    sizes = [encoder.grid(*shape) for shape in golden.inputs["shapes"].tolist()]
    yield Check("down_size", torch.tensor(sizes), golden.output("down_size"), "exact")


def aff_propagate(golden: Golden) -> Iterable[Check]:
    config = golden.meta["config"]
    maps, affinity = golden.tensor("cams"), golden.tensor("aff")
    mask, tags = golden.tensor("mask").bool(), golden.tensor("cls_labels")
    low, high = config["bkg_low"], config["bkg_high"]
    how = {"power": config["power"], "doublings": config["log_iters"]}
    steps = transition(affinity, mask, epsilon=config["eps_with_bkg"], **how)
    for name, ours in zip(
        ("cam_low", "cam_high"), propagate_with_background(maps, tags, (low, high), steps), strict=True
    ):
        yield Check(name, ours, golden.output(name), "abs", 1e-5)
    steps = transition(affinity, epsilon=config["eps_with_bkg"], **how)
    free = propagate_with_background(maps, tags, (low,), steps)[0]
    yield Check("cam_low_nomask", free, golden.output("cam_low_nomask"), "abs", 1e-5)
    steps = transition(affinity, mask, epsilon=config["eps_no_bkg"], **how)
    walked = propagate(keep_present(maps, tags), steps)
    yield Check("cam_no_bkg", walked, golden.output("cam_no_bkg"), "abs", 1e-5)


def aff_label(golden: Golden) -> Iterable[Check]:
    stride = golden.meta["config"]["stride"]
    labels = golden.tensor("label")[:, ::stride, ::stride]
    mask = golden.tensor("mask").bool()
    yield Check("aff_label", affinity_labels(labels, mask), golden.output("aff_label"), "exact")
    yield Check("aff_label_nomask", affinity_labels(labels), golden.output("aff_label_nomask"), "exact")


def recording(calls: list[Tensor], config: dict[str, Any]) -> Callable[[Tensor, Tensor], Tensor]:
    def refine(images: Tensor, maps: Tensor) -> Tensor:
        calls.append(par(images, maps, config["dilations"], config["num_iter"]))
        return calls[-1]

    return refine


def refine_bkg(golden: Golden) -> Iterable[Check]:
    config, tags = golden.meta["config"], golden.tensor("cls_labels")
    calls: list[Tensor] = []
    ours = refine_labels(
        rgb_images(golden),
        golden.tensor("cams"),
        tags,
        config["high_thre"],
        config["low_thre"],
        recording(calls, config["par"]),
        golden.tensor("img_box"),
        shrink=config["down_scale"],
    )
    yield Check("label", ours, golden.output("label"), "mismatch", LABEL_SHARE)
    high, low = calls[0].chunk(2, dim=1)
    for index, count in enumerate(tags.sum(1).int().tolist()):
        for name, part in (("par_h", high), ("par_l", low)):
            found = part[index : index + 1, : count + 1]
            yield Check(f"{name}_{index}", found, golden.output(f"{name}_{index}"), "abs", 1e-4)


def refine_cls(golden: Golden) -> Iterable[Check]:
    images, maps = rgb_images(golden), golden.tensor("cams_small")
    tags, boxes = golden.tensor("cls_labels_with_bkg")[:, 1:], golden.tensor("img_box")
    keys, _ = present_classes(tags)
    chosen = torch.cat([maps[:, :1], take_classes(maps[:, 1:], keys)], dim=1)
    large = resize_bilinear(chosen, (images.shape[2], images.shape[3]))
    calls: list[Tensor] = []
    refine = recording(calls, golden.meta["config"]["par"])
    # The same maps stand for both planes, so that the combined label is their arg max.
    ours = refine_shares(images, torch.stack([large, large]), keys, refine, boxes)
    inside = box_mask(boxes, (images.shape[2], images.shape[3]))
    label = golden.output("label")
    yield Check("label", ours.masked_fill(~inside, 0), label, "mismatch", LABEL_SHARE)
    yield Check("ignored outside the box", ours[~inside] == 255, torch.ones_like(ours[~inside]), "exact")
    counts = tags.sum(1).int().tolist()
    limits = torch.tensor([images.shape[2]] * 2 + [images.shape[3]] * 2)
    boxes = torch.minimum(boxes.clamp(min=0), limits)
    for index, (count, (top, bottom, left, right)) in enumerate(zip(counts, boxes.tolist(), strict=True)):
        refined = calls[index][:, : count + 1]
        yield Check(f"par_{index}", refined, golden.output(f"par_{index}"), "abs", 1e-4)
        window = resize_bilinear(refined, (bottom - top, right - left))[0]
        full = torch.zeros(count + 1, *images.shape[2:])
        full[:, top:bottom, left:right] = window
        yield Check(f"refined_{index}", full, golden.output(f"refined_{index}"), "abs", 1e-4)
        yield Check(f"sum_{index}", full.sum(0), golden.output("channel_sum")[index], "abs", 1e-4)


def losses(golden: Golden) -> Iterable[Check]:
    def both(name: str, loss: Tensor, argument: Tensor) -> Iterable[Check]:
        (gradient,) = torch.autograd.grad(loss, argument)
        yield Check(f"{name}_loss", loss, golden.output(f"{name}_loss"), "rel", 1e-5)
        yield Check(f"{name}_grad", gradient, golden.output(f"{name}_grad"), "rel", 1e-5)

    logits = golden.tensor("cls_logit").requires_grad_()
    yield from both("cls", multilabel_soft_margin(logits, golden.tensor("cls_label")), logits)
    seg, labels = golden.tensor("seg_logit").requires_grad_(), golden.tensor("seg_label").long()
    yield from both("seg", balanced_cross_entropy(seg, labels), seg)
    # The original gives NaN without any background pixel; here that half counts nothing.
    guarded = balanced_cross_entropy(seg, labels.masked_fill(labels == 0, 255))
    yield Check("seg_loss_no_background is finite", guarded.isfinite(), torch.tensor(True), "exact")
    affinity, pairs = golden.tensor("aff_pred").requires_grad_(), golden.tensor("aff_label")
    yield from both("aff", pair_loss(affinity, pairs), affinity)
    yield Check("pos_count", (pairs == 1).sum() + 1, golden.output("pos_count"), "exact")
    yield Check("neg_count", (pairs == 0).sum() + 1, golden.output("neg_count"), "exact")
    nothing = pair_loss(affinity, torch.full_like(pairs, 255))
    yield Check("aff_loss_all_ignored", nothing, golden.output("aff_loss_all_ignored"), "exact")


CASES = {
    "afa_cam_label": cam_label,
    "afa_radius_mask": radius_masks,
    "afa_aff_propagate": aff_propagate,
    "afa_aff_label": aff_label,
    "afa_refine_bkg": refine_bkg,
    "afa_refine_cls": refine_cls,
    "afa_losses": losses,
}

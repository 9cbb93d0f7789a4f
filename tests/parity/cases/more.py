"""MoRe's labels, refinement and losses against stored outputs of the original."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
import torch.nn.functional as F

from tagmask.backbones.base import IMAGENET_MEAN, IMAGENET_STD
from tagmask.losses.energy import dense_energy_loss
from tagmask.losses.segmentation import balanced_cross_entropy
from tagmask.losses.tags import multilabel_soft_margin
from tagmask.losses.tokens import (
    class_patch_contrast,
    class_token_contrast,
    patch_contrast,
    uncertain_regions,
)
from tagmask.ops.affinity import affinity_labels
from tagmask.ops.images import truncated_levels
from tagmask.ops.labels import labels_from_maps, labels_with_ignore, refine_labels
from tagmask.ops.maps import keep_present, min_max
from tagmask.ops.pixel_refinement import par
from tagmask.ops.uncertain import pick_uncertain, token_codes, uncertain_windows
from tests.parity.golden import Check, Golden


def labels(golden: Golden) -> Iterable[Check]:
    maps, tags, boxes = golden.tensor("cam"), golden.tensor("cls_label"), golden.tensor("img_box")
    for name, options in golden.meta["label_params"].items():
        box = boxes if options.get("img_box") else None
        if options.get("ignore_mid"):
            ours = labels_with_ignore(maps, tags, options["high_thre"], options["low_thre"], box)
        else:
            ours = labels_from_maps(maps, tags, options["bkg_thre"], box)
        yield Check(name, ours, golden.output(name), "exact")
    yield Check(
        "valid_cam_sum", keep_present(maps, tags).sum((2, 3)), golden.output("valid_cam_sum"), "rel", 1e-6
    )
    small = F.interpolate(maps, size=golden.meta["config"]["small"], mode="bilinear")
    wide = golden.output("score_map_norm")
    token_labels = golden.output("small_label").long()
    yield Check(
        "affinity_mask",
        affinity_labels(token_labels, diagonal=False),
        golden.output("affinity_mask"),
        "exact",
    )
    yield Check("norm_map", min_max(small - 0.3), golden.output("norm_map"), "abs", 1e-6)
    large = F.interpolate(small[:, : wide.shape[1]], size=wide.shape[2:], mode="bilinear")
    yield Check("score_map_norm", min_max(large), wide, "abs", 1e-6)
    options = golden.meta["label_params"]["label_voc_seed"]
    ours = labels_with_ignore(small, tags, options["high_thre"], options["low_thre"])
    yield Check("small_label", ours, token_labels, "exact")


def par_refine(golden: Golden) -> Iterable[Check]:
    images = truncated_levels(golden.tensor("image"), IMAGENET_MEAN, IMAGENET_STD)
    yield Check("image_denorm", images, golden.output("image_denorm"), "exact")
    tags, maps, config = golden.tensor("cls_label"), golden.tensor("cam"), golden.meta["config"]
    shrink = config["down_scale"]
    refine = partial(par, dilations=config["par"]["dilations"], iterations=config["par"]["num_iter"])
    half = F.interpolate(images, scale_factor=1 / shrink, mode="bilinear")[1:]
    ours = refine(half, golden.output("par_input"))
    yield Check("par_output", ours, golden.output("par_output"), "abs", 1e-5)
    for name, levels, boxes in (
        ("refined_label", "voc", None),
        ("refined_label_boxed", "boxed", golden.tensor("img_box")),
    ):
        high, low = (config[levels][key] for key in ("high_thre", "low_thre"))
        refined = refine_labels(images, maps, tags, high, low, refine, boxes, shrink=shrink)
        yield Check(name, refined, golden.output(name), "mismatch", 1e-3)


def loss_cre(golden: Golden) -> Iterable[Check]:
    patches, mask, tags = (
        golden.tensor("patch_tokens"),
        golden.tensor("mask").long(),
        golden.tensor("cls_label"),
    )
    for temperature in golden.meta["config"]["temps"]:
        suffix = f"t{temperature}".replace(".", "")
        tokens = golden.tensor("class_tokens").requires_grad_()
        loss = class_patch_contrast(tokens, patches, mask, tags, temperature)
        loss.backward()
        yield Check(f"loss_{suffix}", loss, golden.output(f"loss_{suffix}"), "rel", 1e-4)
        key = f"grad_class_tokens_{suffix}"
        yield Check(key, tokens.grad, golden.output(key), "rel", 1e-4)
    tokens = golden.tensor("class_tokens")
    for temperature in golden.meta["config"]["temps"]:
        key = f"loss_per_image_t{temperature}".replace(".", "")
        if key in golden.outputs:
            single = [
                class_patch_contrast(*(x[i : i + 1] for x in (tokens, patches, mask, tags)), temperature)
                for i in range(len(tags))
            ]
            yield Check(key, torch.stack(single), golden.output(key), "rel", 1e-4)


def loss_ure(golden: Golden) -> Iterable[Check]:
    tokens, tags = golden.tensor("class_tokens"), golden.tensor("cls_label")
    mask = golden.tensor("mask").long()
    windows = uncertain_windows(mask)
    margin, most = golden.meta["config"]["margin"], golden.meta["config"]["selected_num"]
    foreground = (token_codes(mask) == 2)[:, margin:-margin, margin:-margin]
    yield Check("roi_mask", token_codes(mask), golden.output("roi_mask"), "exact")
    yield Check("candidates", windows.nonzero(), golden.output("candidates"), "exact")
    found = windows.flatten(1).sum(1)
    scarce = foreground.flatten(1).sum(1) < (most - found) // 4
    branch = torch.where(found > most, 0, torch.where(scarce, 2, 1))
    yield Check("branch", branch, golden.output("branch"), "exact")
    for seed, suffix in zip(golden.meta["seeds"], "abcdefgh", strict=False):
        torch.manual_seed(seed)
        picked = pick_uncertain(mask)
        yield Check(f"selected_{suffix}", picked, golden.output(f"selected_{suffix}"), "exact")
        for source in (picked, golden.output(f"selected_{suffix}").long()):
            patches = golden.tensor("patch_tokens").requires_grad_()
            loss = uncertain_regions(tokens, patches, tags, source)
            loss.backward()
            yield Check(f"loss_{suffix}", loss, golden.output(f"loss_{suffix}"), "rel", 1e-5)
            key = f"grad_patch_tokens_{suffix}"
            yield Check(key, patches.grad, golden.output(key), "rel", 1e-4)


def loss_ptc(golden: Golden) -> Iterable[Check]:
    patches = golden.tensor("patch_tokens").requires_grad_()
    pairs = affinity_labels(golden.tensor("mask"), diagonal=False)
    loss = patch_contrast(patches, pairs)
    loss.backward()
    yield Check("loss", loss, golden.output("loss"), "rel", 1e-5)
    yield Check("grad_patch_tokens", patches.grad, golden.output("grad_patch_tokens"), "rel", 1e-5)
    counts = torch.stack([(pairs == kind).sum() for kind in (1, 0, 255)])
    yield Check("aff_counts", counts, golden.output("aff_counts"), "exact")


def loss_seg(golden: Golden) -> Iterable[Check]:
    label = golden.tensor("label").long()

    def run(target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = golden.tensor("logits").requires_grad_()
        loss = balanced_cross_entropy(F.interpolate(logits, size=label.shape[1:], mode="bilinear"), target)
        loss.backward()
        return loss.detach(), logits.grad

    loss, grad = run(label)
    yield Check("loss", loss, golden.output("loss"), "rel", 1e-5)
    yield Check("grad_logits", grad, golden.output("grad_logits"), "rel", 1e-5)
    yield Check("loss_background_only", run(label * 0)[0], golden.output("loss_background_only"), "rel", 1e-5)
    ignored, grad = run(torch.full_like(label, 255))
    yield Check("loss_all_ignored", ignored, golden.output("loss_all_ignored"), "rel", 1e-5)
    yield Check("grad_all_ignored", grad, torch.zeros_like(grad), "exact")


def loss_mct(golden: Golden) -> Iterable[Check]:
    temperature, tags = golden.meta["config"]["temperature"], golden.tensor("cls_label")
    tokens = golden.tensor("class_tokens").requires_grad_()
    loss = class_token_contrast(tokens, temperature)
    loss.backward()
    yield Check("loss_contrast_only", loss, golden.output("loss_contrast_only"), "rel", 1e-5)
    yield Check("grad_contrast_only", tokens.grad, golden.output("grad_contrast_only"), "rel", 1e-5)
    tokens = golden.tensor("class_tokens").requires_grad_()
    logits = F.normalize(tokens, dim=2).mean(2)
    loss = 0.5 * multilabel_soft_margin(logits, tags) + 0.5 * class_token_contrast(tokens, temperature)
    loss.backward()
    yield Check("loss_with_classification", loss, golden.output("loss_with_classification"), "rel", 1e-5)
    yield Check(
        "grad_with_classification", tokens.grad, golden.output("grad_with_classification"), "rel", 1e-5
    )
    same = class_token_contrast(tokens[:, :1].expand_as(tokens).detach(), temperature)
    yield Check("loss_identical_tokens", same, golden.output("loss_identical_tokens"), "rel", 1e-5)


def loss_energy(golden: Golden) -> Iterable[Check]:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    images, label = golden.tensor("image") * std + mean, golden.tensor("label").long()
    config = golden.meta["config"]
    how = {key: config[key] for key in ("weight", "sigma_rgb", "sigma_xy")}
    for suffix, boxes in (("full", None), ("boxed", golden.tensor("img_box").long())):
        logits = golden.tensor("logits").requires_grad_()
        loss = dense_energy_loss(logits, images, label, boxes, scale=config["scale_factor"], **how)
        loss.backward()
        yield Check(f"loss_{suffix}", loss.reshape(1), golden.output(f"loss_{suffix}"), "rel", 1e-3)
        key = f"grad_logits_{suffix}"
        yield Check(key, logits.grad * 1e7, golden.output(key), "rel", 1e-3)


CASES: dict[str, Callable[[Golden], Iterable[Check]]] = {
    "more_labels": labels,
    "more_par_refine": par_refine,
    "more_loss_cre": loss_cre,
    "more_loss_ure": loss_ure,
    "more_loss_ptc": loss_ptc,
    "more_loss_seg": loss_seg,
    "more_loss_mct": loss_mct,
    "more_loss_energy": loss_energy,
}

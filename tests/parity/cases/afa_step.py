"""AFA: whole training steps against stored outputs of the original."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from tagmask.backbones.base import IMAGENET_MEAN, IMAGENET_STD
from tagmask.methods.afa import AFA
from tagmask.ops.affinity import (
    propagate_with_background,
    radius_mask,
    transition,
)
from tagmask.ops.images import truncated_levels
from tagmask.ops.labels import box_mask, labels_with_ignore, refine_labels, refine_shares
from tagmask.ops.maps import keep_present, present_classes, take_classes
from tagmask.ops.resize import resize_bilinear
from tagmask.types import Batch, OptimPlan
from tests.parity.cases.afa import LABEL_SHARE, recording, rgb_images
from tests.parity.cases.afa_network import build_method
from tests.parity.golden import Check, Golden, joint_norm


def train_step(golden: Golden) -> Iterable[Check]:
    yield from _intermediates(golden)
    for iteration in golden.meta["config"]["iterations"]:
        yield from _one_step(golden, iteration)


def _step_method(golden: Golden) -> AFA:
    config = golden.meta["config"]
    # The scripts differ in more than their numbers: on COCO the pairs follow the segmentation.
    coco = "coco" in golden.name
    return build_method(
        golden,
        drop_path=config["drop_path"],
        dropout=config["dropout"],
        radius=config["radius"],
        scales=tuple(config["scales"]),
        high=config["high_thre"],
        low=config["low_thre"],
        par_iterations=config["par"]["num_iter"],
        par_dilations=tuple(config["par"]["dilations"]),
        tags_until=config["cam_iters"],
        walk_after=config["switch_iter"],
        pair_target="segmentation" if coco else "maps",
    ).train()


def _step_batch(golden: Golden) -> Batch:
    boxes = golden.tensor("img_box").long()
    names = tuple(map(str, range(len(boxes))))
    return Batch(rgb_images(golden), golden.tensor("cls_labels"), names, boxes)


def _intermediates(golden: Golden) -> Iterable[Check]:
    """What happens between the images and the losses, piece by piece."""
    method, batch, config = _step_method(golden), _step_batch(golden), golden.meta["config"]
    present, size = batch.tags > 0, (batch.images.shape[2], batch.images.shape[3])
    with torch.no_grad():
        yield Check("cls", method.classify(batch.images), golden.output("cls"), "rel", 1e-4)
        yield Check("segs", method.segment(batch.images), golden.output("segs"), "rel", 1e-4)
        attention = method.encoder(batch.images, (-2, -1)).attention.values()
        yield Check("attn_pred", method.attn_proj(attention), golden.output("attn_pred"), "abs", 1e-3)
        view = tuple(int(max(config["scales"]) * side) for side in size)
        large = resize_bilinear(batch.images, view)
        affinity = method.attn_proj(method.encoder(large, (-2, -1)).attention.values())
        yield Check("aff_mat", affinity, golden.output("aff_mat"), "abs", 1e-3)
        maps = method.maps(batch.images)["cam"]
    yield Check("cams_valid", maps[present], golden.output("cams_valid"), "abs", 1e-3)
    # The refinement here sees the images as they are; the original's passed through this rounding.
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    rounded = truncated_levels((batch.images - mean) / std, IMAGENET_MEAN, IMAGENET_STD) * 255
    yield Check("images_denorm_u8", rounded.round(), golden.output("images_denorm_u8"), "abs", 1)
    levels = (config["high_thre"], config["low_thre"])
    plain = labels_with_ignore(maps, batch.tags, *levels, batch.boxes)
    yield Check("pseudo_label", plain, golden.output("pseudo_label"), "mismatch", LABEL_SHARE)
    grid = method.encoder.grid(*view)
    small = resize_bilinear(keep_present(maps, batch.tags), grid)
    yield Check("valid_cam_resized", small[present], golden.output("valid_cam_resized"), "abs", 1e-3)
    steps = transition(affinity, radius_mask(*grid, config["radius"]))
    walked = propagate_with_background(small, batch.tags, levels, steps)
    with_background = torch.cat([torch.ones_like(present[:, :1]), present], dim=1)
    for name, part in zip(("high", "low"), walked, strict=True):
        theirs = golden.output(f"aff_cam_{name}")
        yield Check(f"aff_cam_{name}", part[with_background], theirs, "abs", 1e-3)
    yield from _step_labels(golden, batch, maps, walked, levels)
    for iteration in config["iterations"]:
        labels, pairs = method.targets(batch, iteration, method.encoder.grid(*size))
        for name, ours in (("seg_target", labels), ("aff_label", pairs)):
            theirs = golden.output(f"iter{iteration}/{name}")
            yield Check(f"{iteration} {name}", ours, theirs, "mismatch", LABEL_SHARE)
        counts = {"pos_count": (pairs == 1).sum() + 1, "neg_count": (pairs == 0).sum() + 1}
        for name, ours in counts.items():
            yield Check(f"{iteration} {name}", ours, golden.output(f"iter{iteration}/{name}"), "exact")


def _step_labels(
    golden: Golden, batch: Batch, maps: Tensor, walked: Tensor, levels: tuple[float, float]
) -> Iterable[Check]:
    def check(name: str, ours: Tensor) -> Check:
        return Check(name, ours, golden.output(name), "mismatch", LABEL_SHARE)

    refine = recording([], golden.meta["config"]["par"])
    ours = refine_labels(batch.images, maps, batch.tags, *levels, refine, batch.boxes)
    yield check("refined_pseudo_label", ours)
    size = (batch.images.shape[2], batch.images.shape[3])
    keys = present_classes(batch.tags)[0]
    chosen = torch.cat([torch.zeros_like(keys[:, :1]), keys + 1], dim=1)
    shares = torch.stack([resize_bilinear(take_classes(part, chosen), size) for part in walked])
    ours = refine_shares(batch.images, shares, keys, refine, batch.boxes)
    yield check("refined_aff_label", ours)
    inside = box_mask(batch.boxes, size)
    for index, name in enumerate(("refined_aff_high", "refined_aff_low")):
        one = refine_shares(batch.images, shares[[index, index]], keys, refine, batch.boxes)
        yield check(name, one.masked_fill(~inside, 0))


def _one_step(golden: Golden, iteration: int) -> Iterable[Check]:
    method, config = _step_method(golden), golden.meta["config"]
    batch = _step_batch(golden)
    plan = method.optim_plan(config["max_iters"])
    groups = [
        {"params": g.params, "lr": g.lr * plan.factor(iteration), "weight_decay": g.weight_decay}
        for g in plan.groups
    ]
    optimizer = torch.optim.AdamW(groups, betas=plan.betas, eps=plan.eps)
    result = method(batch, iteration)
    result.loss.backward()

    def value(name: str) -> Tensor:
        return golden.output(f"iter{iteration}/{name}")

    yield Check(f"{iteration} loss", result.loss, value("loss"), "rel", 1e-4)
    for ours, theirs in (("cls", "cls_loss"), ("seg", "seg_loss"), ("pairs", "aff_loss")):
        if ours in result.logs:
            yield Check(f"{iteration} {theirs}", result.logs[ours], value(theirs), "rel", 1e-4)
    norm = method.decoder.linear_fuse.bn
    yield Check(f"{iteration} bn passes", norm.num_batches_tracked, golden.output("bn_num_batches"), "exact")
    yield Check(f"{iteration} bn mean", norm.running_mean, golden.output("bn_running_mean"), "rel", 1e-4)
    yield Check(f"{iteration} bn variance", norm.running_var, golden.output("bn_running_var"), "rel", 1e-4)
    yield from _gradients(golden, method, plan, value, iteration)
    before = [[param.detach().clone() for param in group.params] for group in plan.groups]
    optimizer.step()
    moved = [
        torch.cat([(new - old).flatten() for new, old in zip(group.params, olds, strict=True)])
        .double()
        .norm()
        for group, olds in zip(plan.groups, before, strict=True)
    ]
    yield Check(f"{iteration} updates", torch.stack(moved).detach(), value("group_update_norm"), "rel", 2e-3)


def _gradients(
    golden: Golden, method: AFA, plan: OptimPlan, value: Callable[[str], Tensor], iteration: int
) -> Iterable[Check]:
    named = dict(method.named_parameters())
    norms = torch.tensor([joint_norm([named[name].grad]) for name in golden.meta["param_names"]])
    golden_norms = value("param_grad_norm")
    allowed = 1e-3 * golden_norms + 1e-6
    worst = ((norms - golden_norms).abs() / allowed).max()
    yield Check(f"{iteration} gradient norms, in tolerances", worst, torch.tensor(0.0), "abs", 1.0)
    whole = [joint_norm(p.grad for p in group.params) for group in plan.groups]
    yield Check(f"{iteration} group norms", whole, value("group_grad_norm"), "rel", 1e-3)
    missing = [name for name, param in named.items() if param.grad is None]
    yield Check(f"{iteration} missing gradients", len(missing), 0, "exact")


CASES = {"afa_train_step_voc": train_step, "afa_train_step_coco": train_step}

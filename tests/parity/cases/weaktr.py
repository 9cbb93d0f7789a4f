"""WeakTr's stored outputs: class maps of the first phase, pieces of the second."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tagmask.heads.attention_fusion import grouped_pool
from tagmask.losses.clipped import clip_pixel_loss, pixel_cross_entropy
from tagmask.losses.tags import multilabel_soft_margin
from tagmask.methods.weaktr import WeakTr, WeakTrConfig
from tagmask.types import Batch
from tests.parity.golden import Blank, Check, Golden, golden_weights

BACKBONE = "deit_small_patch16_224"


def _method(golden: Golden, **settings: Any) -> WeakTr:
    config = golden.meta["config"]
    settings |= {key: config[key] for key in ("drop_path", "lr", "weight_decay", "scales") if key in config}
    settings |= {"patch_refine": config["refine"]} if "refine" in config else {}
    given = WeakTrConfig(
        backbone=BACKBONE,
        weights="none",
        reduction=int(config["reduction"]),
        feature_reduction=config["feat_reduction"],
        pooling="max" if config["pool"] == "max" else "mean",
        **settings,
    )
    with Blank():
        method = WeakTr(given, config["num_classes"])
    method.load_state_dict(WeakTr.convert_weights({"model": golden_weights(golden.meta["state_dict"])}))
    return method.eval()


def _images(array: np.ndarray) -> Tensor:
    array = array[None] if array.ndim == 3 else array
    return torch.from_numpy(array.astype(np.float32) / 255).permute(0, 3, 1, 2)


def _forward(golden: Golden, tolerance: float) -> Iterable[Check]:
    method = _method(golden)
    for key in golden.inputs:
        name = key.removeprefix("image_")
        images = _images(golden.inputs[key])
        found: dict[str, Tensor] = {}
        with torch.no_grad():
            names = ("cls_logits", "coarse_logits", "fine_logits")
            found |= dict(zip(names, method.all_logits(images), strict=True))
            features = method.encoder(images, norm=False)
            found["class_tokens"] = features.class_tokens
            found["coarse_map"] = method.head(features.patches)
            for attention in golden.meta["config"]["types"]:
                found[f"cams_{attention}"], found["patch_attn"] = method.attention_maps(images, attention)
            found["fine_map"] = method.view_maps(images, ["cam"])["cam"]
            pooled, found["aaf_weight"] = _fusion(method, images, golden.meta["config"]["pool"])
            found["aaf_pooled"] = pooled
        for output, ours in found.items():
            if f"{name}/{output}" in golden.outputs:
                yield Check(f"{name}/{output}", ours, golden.outputs[f"{name}/{output}"], "rel", tolerance)


def _fusion(method: WeakTr, images: Tensor, pool: str) -> tuple[Tensor, Tensor]:
    """Pooled features and weights, head-major."""
    pooled: list[Tensor] = []
    kind = "max" if pool == "max" else "mean"
    method.encoder(
        images,
        visit=lambda _, __, branch: pooled.append(grouped_pool(branch, method.num_heads, kind)),
        norm=False,
    )
    stacked = torch.stack(pooled, 2).flatten(1, 2)
    return stacked, method.fusion(stacked)


def _multi_scale(golden: Golden) -> Iterable[Check]:
    method = _method(golden)
    for index in range(golden.meta["config"]["n_images"]):
        with torch.no_grad():
            maps = method.maps(_images(golden.inputs[f"image_{index}"]))["cam"][0]
        keys = golden.outputs[f"keys_{index}"]
        yield Check(f"cam_{index}", maps[keys], golden.outputs[f"cam_{index}"], "abs", 5e-4)


def _loss(golden: Golden) -> Iterable[Check]:
    logits = [golden.tensor(f"{name}_logits").requires_grad_() for name in ("cls", "coarse", "fine")]
    losses = torch.stack([multilabel_soft_margin(part, golden.tensor("targets")) for part in logits])
    losses.sum().backward()
    yield Check("losses", losses, golden.outputs["losses"], "abs", 1e-6)
    yield Check("total", losses.sum(), golden.outputs["total"], "abs", 1e-6)
    for name, part in zip(("cls", "coarse", "fine"), logits, strict=True):
        yield Check(f"grad_{name}", part.grad, golden.outputs[f"grad_{name}"], "rel", 1e-5)


def _schedule(golden: Golden) -> Iterable[Check]:
    for variant, (lr, decay, batch, epochs) in golden.meta["config"]["variants"].items():
        base = lr * batch / 512
        config = WeakTrConfig(backbone=BACKBONE, lr=base, weight_decay=decay, epochs=epochs)
        with torch.device("meta"):
            plan = WeakTr(config, golden.meta["config"]["num_classes"]).optim_plan(epochs * 10)
        rates = np.array([[base * plan.factor(epoch * 10)] for epoch in range(epochs)])
        yield Check(f"{variant}_lr", rates, golden.outputs[f"{variant}_lr_used_per_epoch"], "rel", 1e-9)
        counts = [len(group.params) for group in plan.groups]
        yield Check(f"{variant}_count", counts, golden.outputs[f"{variant}_group_param_count"], "exact")
        key, ours = f"{variant}_betas_eps", [*plan.betas, plan.eps]
        yield Check(key, ours, golden.outputs[key], "abs", 1e-12)
        decays = [group.weight_decay for group in plan.groups]
        yield Check(f"{variant}_decay", decays, golden.outputs[f"{variant}_group_weight_decay"], "exact")


def _step(golden: Golden) -> Iterable[Check]:
    settings = golden.meta["config"]
    method = _method(golden).train()
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    optimiser = torch.optim.AdamW(
        method.parameters(), lr=settings["lr"], weight_decay=settings["weight_decay"]
    )
    logs = []
    for step in range(settings["steps"]):
        images, tags = _images(golden.inputs[f"image_{step}"]), golden.tensor(f"target_{step}")
        result = method(Batch(images, tags, tuple(str(i) for i in range(len(images)))), step)
        optimiser.zero_grad()
        result.loss.backward()
        optimiser.step()
        logs.append(result.logs)
    for ours, theirs in (("cls", "cls"), ("coarse", "pat"), ("fine", "attn")):
        values = [float(log[ours]) for log in logs]
        yield Check(f"{theirs}_loss", values, golden.outputs[f"{theirs}_loss"], "abs", 1e-5)
    yield Check("loss", [float(log["loss"]) for log in logs], golden.outputs["loss"], "abs", 3e-5)
    names = [str(name) for name in golden.outputs["param_names"]]
    ours = {_published(name): (p.detach() - before[name]).norm() for name, p in method.named_parameters()}
    changes = np.array([float(ours[name]) for name in names])
    yield Check("param_change", changes, golden.outputs["param_change_l2"], "rel", 1e-3)


def _published(name: str) -> str:
    return name.removeprefix("encoder.").replace("fusion.", "adaptive_attention_fusion.", 1)


def _clipping(golden: Golden) -> Iterable[Check]:
    for case, settings in golden.meta["config"]["cases"].items():
        logits = golden.tensor(f"logits_{case}").requires_grad_()
        pixels = pixel_cross_entropy(logits, golden.tensor(f"target_{case}").long())
        clipped = clip_pixel_loss(pixels, settings["start_value"], settings["patch_size"])
        clipped.mean().backward()
        stored = {
            key.split("/")[1]: value for key, value in golden.outputs.items() if key.startswith(f"{case}/")
        }
        yield Check(f"{case}/pixel_loss", pixels, stored["pixel_loss"], "rel", 1e-6)
        yield Check(f"{case}/clipped_pixel_loss", clipped, stored["clipped_pixel_loss"], "rel", 1e-6)
        yield Check(f"{case}/loss", clipped.mean(), stored["loss"], "abs", 2e-6)
        yield Check(f"{case}/grad", logits.grad, stored["grad_logits"], "rel", 1e-5)


CASES = {
    "weaktr_cam_forward_voc": partial(_forward, tolerance=2e-5),
    "weaktr_cam_forward_coco": partial(_forward, tolerance=2e-5),
    "weaktr_cam_forward_avgpool": partial(_forward, tolerance=2e-5),
    "weaktr_cam_msinfer_voc": _multi_scale,
    "weaktr_cam_msinfer_coco": _multi_scale,
    "weaktr_cam_loss": _loss,
    "weaktr_cam_schedule": _schedule,
    "weaktr_cam_step": _step,
    "weaktr_seg_gradclip": _clipping,
}

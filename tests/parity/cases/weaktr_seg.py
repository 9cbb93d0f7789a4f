"""WeakTr's second phase: networks, weight surgery, parameter groups, training steps."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tagmask.backbones.vit_resampled import resize_kernel
from tagmask.engine.config import RuntimeConfig
from tagmask.inference.views import _opencv, image_scores
from tagmask.methods.segmenter import Segmenter, SegmenterConfig, SegmenterViews
from tagmask.ops.resize import resize_positions
from tagmask.training.optim import build_optimizer, set_rates
from tagmask.types import Batch
from tests.parity.golden import Blank, Check, Golden, golden_weights

TIMM_NAMES = {
    "deit_small_patch16_224": "deit_small_patch16_224.fb_in1k",
    "vit_small_patch16_384": "vit_small_patch16_384.augreg_in21k_ft_in1k",
    "dinov2_small_patch16_224": "vit_small_patch14_dinov2.lvd142m",
    "eva02_small_patch16_224": "eva02_small_patch14_224.mim_in22k",
}


def segmenter(golden: Golden, **settings: Any) -> Segmenter:
    """A published checkpoint, strictly loaded."""
    config = golden.meta["config"]
    name = TIMM_NAMES[config["backbone"]]
    values = {
        "backbone": f"mask:{name}",
        "weights": "none",
        "position_size": config["image_size"],
        **settings,
    }
    with Blank():
        method = Segmenter(SegmenterConfig(**values), config["n_cls"] - 1)
    state = golden_weights(golden.meta["state_dict"])
    method.load_state_dict(Segmenter.convert_weights({"model": state, "n_cls": config["n_cls"]}))
    return method.eval()


def images(array: np.ndarray) -> Tensor:
    array = array[None] if array.ndim == 3 else array
    return torch.from_numpy(array.astype(np.float32) / 255).permute(0, 3, 1, 2)


@torch.no_grad()
def forward(golden: Golden) -> Iterable[Check]:
    method = segmenter(golden)
    network: Any = method.network
    for key, array in golden.inputs.items():
        name, given = key.removeprefix("image_"), images(array)
        stored = {k.split("/")[1]: v for k, v in golden.outputs.items() if k.startswith(f"{name}/")}
        found: dict[str, Tensor] = {}
        handles = [
            network.encoder.register_forward_hook(lambda *x, found=found: found.update(features=x[2])),
            network.decoder.register_forward_hook(lambda *x, found=found: found.update(masks=x[2])),
        ]
        logits = method.segment(given)
        masks = found["masks"]
        both = method.segment_exits(given, 2)
        both_masks = found["masks"]
        for handle in handles:
            handle.remove()
        features: Any = found["features"]
        tokens = torch.cat([features.class_tokens, features.patches.flatten(2).transpose(1, 2)], 1)
        ours = {"masks": masks, "logits": logits}
        for i in range(2):
            ours |= {f"multi_masks_{i}": both_masks[:, i], f"multi_logits_{i}": both[:, i]}
        for output, theirs in stored.items():
            if output.startswith("encoder_tokens_every"):
                value = tokens[:, :: int(output.rpartition("every")[2])]
            elif "_stride" in output:
                part, _, stride = output.rpartition("_stride")
                value = ours[part][..., :: int(stride), :: int(stride)]
            else:
                value = ours[output]
            yield Check(f"{name}/{output}", value, theirs, "rel", 2e-4)


def init(golden: Golden) -> Iterable[Check]:
    grid = (golden.meta["config"]["grid"],) * 2
    # The stored tables bear the sides of their grids; DeiT's is the smallest, DINOv2's the largest.
    sides = golden.numbers(r"pos_embed_(\d+)")
    modes = (("deit", "bilinear"), ("augreg", "bicubic"), ("dinov2", "bilinear"))
    for side, (name, mode) in zip(sides, modes, strict=True):
        rows = golden.tensor(f"pos_embed_{side}")
        table = torch.cat([rows[:, :1], resize_positions(rows[:, 1:], grid, mode=mode)], 1)
        yield Check(f"{name}_pos_embed", table, golden.output(f"{name}_pos_embed"), "abs", 1e-5)
    small, large = golden.numbers(r"patch_weight_(\d+)")
    for name, side in (("deit", large), ("dinov2", small)):
        stored = golden.output(f"{name}_patch_weight")
        kernel = resize_kernel(golden.tensor(f"patch_weight_{side}"), stored.shape[2])
        yield Check(f"{name}_patch_weight", kernel, stored, "abs", 1e-5)
    yield from _chosen_modes()


def _chosen_modes() -> Iterable[Check]:
    """The encoders choose these rules by their names."""
    with torch.device("meta"):
        for name, mode in (("deit_small_patch16_224", "bilinear"), ("vit_small_patch16_384", "bicubic")):
            config = SegmenterConfig(backbone=f"mask:{TIMM_NAMES[name]}", weights="none")
            network: Any = Segmenter(config, 20).network
            yield Check(f"{name} mode", network.encoder.grid_mode, mode, "exact")


def schedule(golden: Golden) -> Iterable[Check]:
    settings = golden.meta["config"]
    config = SegmenterConfig(backbone=f"mask:{TIMM_NAMES[settings['backbone']]}", weights="none")
    with torch.device("meta"):
        method = Segmenter(config, settings["n_cls"] - 1)
    names = {id(param): name.removeprefix("network.") for name, param in method.named_parameters()}
    plan = method.optim_plan(settings["iter_max"])
    stored = [json.loads(str(text)) for text in golden.outputs["group_param_names"]]
    # Our encoders have no classifier: it takes no part, and its weight is all of one group.
    theirs = [[name for name in group if ".head." not in name] for group in stored]
    used = [index for index, group in enumerate(theirs) if group]
    ours = [[names[id(param)] for param in group.params] for group in plan.groups]
    same = [sorted(a) == sorted(b) for a, b in zip(ours, (theirs[i] for i in used), strict=True)]
    yield Check("group_param_names", same, [True] * len(used), "exact")
    scales = np.array([group.lr / 1e-4 for group in plan.groups])
    yield Check("group_lr_scale", scales, golden.outputs["group_lr_scale"][used], "rel", 1e-9)
    decays = [group.weight_decay for group in plan.groups]
    yield Check("group_weight_decay", decays, golden.outputs["group_weight_decay"][used], "exact")
    momentum = [plan.momentum, float(plan.nesterov)]
    yield Check("sgd_momentum_nesterov", momentum, golden.outputs["sgd_momentum_nesterov"], "exact")
    bases = np.array([plan.groups[0].lr, plan.groups[-1].lr])
    rates = np.array([bases * plan.factor(step) for step in range(settings["iter_max"])])
    yield Check("lr", rates, golden.outputs["lr_used_encoder_decoder"], "rel", 1e-9)
    total = settings["iter_max_full"]
    # One update more than there are shows the rate the last one leaves behind.
    full = method.optim_plan(total)
    steps = [step for step in settings["full_iterations"] if step < total]
    rates = np.array([bases[1] * full.factor(step) for step in steps])
    key = "full_schedule_decoder_lr_after_update"
    yield Check(key, rates, golden.outputs[key][: len(steps)], "rel", 1e-9)
    yield Check("floor", bases[1] * method.config.lr_floor, golden.outputs[key][len(steps)], "rel", 1e-9)


def step(golden: Golden) -> Iterable[Check]:
    settings = golden.meta["config"]
    for variant, values in settings["variants"].items():
        clip = {"clip_start": values["start_value"], "clip_patch": values["patch_size"]}
        rates = {"drop_path": settings["drop_path"], "dropout": settings["decoder_dropout"]}
        method = segmenter(golden, **rates, **clip).train()
        yield from _steps(golden, method, variant)


def _steps(golden: Golden, method: Segmenter, variant: str) -> Iterable[Check]:
    settings, out = golden.meta["config"], golden.outputs
    names = {name.removeprefix("network."): param for name, param in method.named_parameters()}
    before = {name: param.detach().clone() for name, param in names.items()}
    plan = method.optim_plan(settings["iter_max"])
    optimizer = build_optimizer(plan)
    logs, norms, rates = [], [], []
    groups = [str(name) for name in out["grad_norm_group_names"]]
    for index in range(settings["steps"]):
        rates.append(set_rates(optimizer, plan, index))
        labels = golden.tensor(f"target_{index}").long()
        given = images(golden.inputs[f"image_{index}"])
        names_of = tuple(map(str, range(len(given))))
        tags = torch.zeros(len(given), method.num_classes)
        result = method(Batch(given, tags, names_of, labels=labels), index)
        optimizer.zero_grad()
        result.loss.backward()
        norms.append([_norm(names, group) for group in groups])
        optimizer.step()
        logs.append(result.logs)
    for ours, theirs in (("segmentation", "loss"), ("unclipped", "mean_loss")):
        found = np.array([float(log[ours]) for log in logs])
        yield Check(f"{variant}/{theirs}", found, out[f"{variant}/{theirs}"], "rel", 1e-4)
    cut = np.array([float(log["clipped_pixels"]) for log in logs])
    yield Check(f"{variant}/clipped", cut, out[f"{variant}/clipped_fraction"], "abs", 1e-3)
    for part, place in (("encoder", 0), ("decoder", -1)):
        found = np.array([row[place] for row in rates])
        yield Check(f"{variant}/lr_{part}", found, out[f"{variant}/lr_{part}"], "rel", 1e-9)
    yield Check(f"{variant}/grad_norm", np.array(norms).T, out[f"{variant}/grad_norm"], "rel", 1e-3)
    changes = [
        float((names[name].detach() - before[name]).norm()) if name in names else 0.0
        for name in map(str, out["param_names"])
    ]
    yield Check(f"{variant}/param_change", np.array(changes), out[f"{variant}/param_change_l2"], "rel", 1e-3)


def _norm(names: dict[str, torch.nn.Parameter], group: str) -> float:
    grads = [p.grad for name, p in names.items() if name == group or name.startswith(f"{group}.")]
    return float(torch.stack([g.norm() for g in grads if g is not None]).norm()) if grads else float("nan")


def evaluation(golden: Golden) -> Iterable[Check]:
    config, picture = golden.meta["config"], images(golden.inputs["image_0"])
    method, runtime = segmenter(golden), RuntimeConfig(device="cpu").create()
    # Ratios that the script fixes; a file with fewer views was made with the first ones.
    scales = {"ss": (1.0,), "ms": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)}
    kinds = [kind for kind in scales if f"{kind}/input_sizes" in golden.outputs]
    for kind in kinds:
        doubled = 2 if golden.outputs[f"{kind}/flips"].any() else 1
        factors = scales[kind][: len(golden.outputs[f"{kind}/input_sizes"]) // doubled]
        stored = {k.removeprefix(f"{kind}/"): v for k, v in golden.outputs.items() if k.startswith(kind)}
        views = {
            "short_side": config["im_size"],
            "scales": factors,
            "sampling": "opencv",
            "window": config["window_size"],
            "window_stride": config["window_stride"],
            "flip": "mean" if kind == "ms" else "none",
            "merge": "mean",
            "probabilities": True,
        }
        yield from _inputs(kind, method, picture, SegmenterViews(**views), stored)
        for name, exits in (("single", ()), ("multi", (config["weight"], 1.0))):
            scores = image_scores(method, picture, runtime, SegmenterViews(**views, exits=exits))[0]
            label = scores.argmax(0)
            yield Check(f"{kind}/{name}_label", label, stored[f"{name}_label"], "mismatch", 1e-3)
            if f"{name}_prob" in stored:
                yield Check(f"{kind}/{name}_prob", scores, stored[f"{name}_prob"], "abs", 2e-5)
            if f"{name}_keys" in stored:
                yield Check(f"{kind}/{name}_keys", label.unique(), stored[f"{name}_keys"], "exact")
        for index, exits in enumerate(((1.0, 0.0), (0.0, 1.0))):
            if f"multi_prob_{index}" in stored:
                scores = image_scores(method, picture, runtime, SegmenterViews(**views, exits=exits))[0]
                yield Check(f"{kind}/prob_{index}", scores, stored[f"multi_prob_{index}"], "abs", 2e-5)


def _inputs(
    kind: str, method: Segmenter, picture: Tensor, config: SegmenterViews, stored: dict[str, np.ndarray]
) -> Iterable[Check]:
    """What the network is shown before it is cut into windows."""
    sizes = config.plan((picture.shape[2], picture.shape[3])).sizes
    both = [size for size in sizes for _ in range(2 if kind == "ms" else 1)]
    yield Check(f"{kind}/input_sizes", both, stored["input_sizes"], "exact")
    encoder: Any = method.network
    encoder = encoder.encoder
    for key, array in stored.items():
        if key.startswith("input_") and key.endswith("stride4"):
            index = int(key.split("_")[1])
            view = _opencv(picture, both[index])
            view = view.flip(3) if stored["flips"][index] else view
            made = encoder.normalise(view)[0, :, ::4, ::4]
            yield Check(f"{kind}/{key}", made, array, "abs", 0.02)


CASES = {
    "weaktr_seg_eval": evaluation,
    "weaktr_seg_forward_deit": forward,
    "weaktr_seg_forward_vit": forward,
    "weaktr_seg_forward_dinov2": forward,
    "weaktr_seg_forward_eva02": forward,
    "weaktr_seg_init": init,
    "weaktr_seg_schedule": schedule,
    "weaktr_seg_step": step,
}

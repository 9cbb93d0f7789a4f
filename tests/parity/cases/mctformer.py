"""MCTformer, all three versions, against stored outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from tagmask.losses.tokens import class_token_contrast
from tagmask.methods.base import Method
from tagmask.methods.mctformer import MCTformer, MCTformerConfig
from tagmask.ops.crf import CRF
from tagmask.ops.crf_presets import PRESETS, unary_from_probabilities
from tagmask.ops.images import truncated_levels
from tagmask.ops.resize import resize_positions
from tagmask.types import Batch, OptimPlan
from tests.parity.cases.psa import as_images, loaded
from tests.parity.golden import Check, Golden, golden_weights, joint_norm

_SETTINGS = {
    "input_size": "input_size",
    "decay": "pool_decay",
    "loss_weight": "contrast_weight",
    "num_cct": "contrast_blocks",
    "drop_path": "drop_path",
    "scales": "scales",
    "layer_index": "attention_blocks",
    "attention_type": "cam",
    "patch_attn_refine": "patch_refine",
}


def version_of(golden: Golden) -> str:
    return golden.name.split("_")[1]


def make(golden: Golden, **settings: object) -> MCTformer:
    settings |= {"version": version_of(golden), "backbone": "deit_small_patch16_224", "weights": "none"}
    settings |= {ours: golden.meta[key] for key, ours in _SETTINGS.items() if key in golden.meta}
    count = golden.shape("cls_token")[1]
    return loaded(MCTformer, MCTformerConfig(**settings), count, golden)


def numbered(images: Tensor) -> tuple[str, ...]:
    """A name for every image of a batch."""
    return tuple(map(str, range(len(images))))


def set_config(net: Method, **values: object) -> None:
    net.config = net.config.model_copy(update=values)


def plain(net: Method, images: Tensor) -> Tensor:
    """Normalised images back in [0, 1]."""
    return images * net.backbone.std + net.backbone.mean


@torch.no_grad()
def forward(golden: Golden) -> Iterable[Check]:
    net = make(golden).eval()
    last = net.backbone.depth - 1
    for shape in (key.removeprefix("images_") for key in golden.inputs if key.startswith("images_")):
        images = plain(net, golden.tensor(f"images_{shape}"))
        found = net.outputs(images, range(last + 1))
        yield Check(f"{shape}/class", found.class_logits, golden.output(f"{shape}_class_logits"), "rel", 2e-5)
        if found.patch_maps is not None:
            ours = net.patch_logits(found.patch_maps)
            yield Check(f"{shape}/patch", ours, golden.output(f"{shape}_patch_logits"), "rel", 2e-5)
        yield from _attention(net, golden, shape, images)
        if version_of(golden) == "plus":
            tokens = torch.stack([found.class_tokens[0], found.class_tokens[last]])
            key = f"{shape}_class_tokens_first_last"
            yield Check(key, tokens, golden.output(key), "rel", 2e-5)
            key = f"{shape}_mean_logits"
            yield Check(key, net.classify(images), golden.output(key), "rel", 2e-5)


def _attention(net: MCTformer, golden: Golden, shape: str, images: Tensor) -> Iterable[Check]:
    for key, stored in golden.outputs.items():
        kind, _, blocks = (
            key.removeprefix(f"{shape}_").removeprefix("cam_").removeprefix("cls_").partition("_n")
        )
        if not key.startswith((f"{shape}_cam_", f"{shape}_cls_attn")):
            continue
        cam = "mct" if kind == "attn" else kind
        set_config(net, cam=cam, attention_blocks=int(blocks or golden.meta.get("n_layers", 12)))
        ours = net.attention_maps(images)[0].reshape(stored.shape)
        yield Check(key, ours, stored, "rel", 2e-5)
    key = f"{shape}_patch_attn"
    if key in golden.outputs:
        total = net.attention_maps(images)[1]
        yield Check(key, total, golden.output(key).sum(0), "rel", 2e-5)
    last, count = net.backbone.depth - 1, net.num_classes
    found = net.backbone(images, scores=(0, last), reduce=lambda s: s.softmax(-1).mean(1)[:, count:, count:])
    ours = torch.stack([found.scores[0], found.scores[last]])
    if key in golden.outputs:
        yield Check(f"{key} of both ends", ours, golden.output(key)[[0, last]], "rel", 2e-5)
    elif f"{key}_first_last" in golden.outputs:
        yield Check(f"{key} of both ends", ours, golden.output(f"{key}_first_last"), "rel", 2e-5)


@torch.no_grad()
def cam(golden: Golden) -> Iterable[Check]:
    net = make(golden).eval()
    images = as_images(golden.tensor("image")[None])
    keys = golden.output("keys")
    yield Check("keys", golden.tensor("label").nonzero()[:, 0], keys, "exact")
    maps = net.maps(images)["cam"][0, keys]
    yield Check("cam", maps, golden.output("cam"), "abs", 1e-4)
    alphas = golden.numbers(r"crf_alpha(\d+)")
    if not alphas:
        return
    backbone = net.backbone
    seen = truncated_levels((images - backbone.mean) / backbone.std, backbone.mean, backbone.std)
    model = CRF((seen[0] * 255).round().byte().permute(1, 2, 0).contiguous(), PRESETS["psa_softmax"])
    for alpha in alphas:
        background = (1 - maps.amax(0, keepdim=True)).clamp(min=0) ** alpha
        ours = model.marginals(unary_from_probabilities(torch.cat([background, maps])))
        key = f"crf_alpha{alpha}"
        stored = golden.output(key)
        far = ((ours - stored).abs() > 1e-2).float().mean()
        yield Check(f"{key}/far", far, torch.zeros(()), "abs", 0.01)
        yield Check(f"{key}/mean", (ours - stored).abs().mean(), torch.zeros(()), "abs", 1e-3)


def train_step(golden: Golden) -> Iterable[Check]:
    net = make(golden).train()
    images = plain(net, golden.tensor("images"))
    result = net(Batch(images, golden.tensor("labels"), numbered(images)), 0)
    result.loss.backward()
    names = {"class": "cls_loss", "patch": "pat_loss"}
    if version_of(golden) == "plus":
        names = {"class": "mct_loss", "patch": "pat_loss", "contrast": "attn_loss"}
    for ours, stored in names.items():
        if stored in golden.outputs:
            yield Check(stored, result.logs[ours], golden.output(stored), "rel", 1e-5)
    yield Check("loss", result.loss, golden.output("loss"), "rel", 1e-5)
    with torch.no_grad():
        found = net.outputs(images)
        yield Check("class_logits", found.class_logits, golden.output("class_logits"), "rel", 2e-5)
        if found.patch_maps is not None:
            logits = net.patch_logits(found.patch_maps)
            yield Check("patch_logits", logits, golden.output("patch_logits"), "rel", 2e-5)
    yield from gradients(net, net.optim_plan(100), golden)


def gradients(net: Method, plan: OptimPlan, golden: Golden, prefix: str = "") -> Iterable[Check]:
    """Gradient norms per group and per parameter; split position tables are put together."""
    norms, count = {}, net.num_classes
    for name, param in net.named_parameters():
        grad = torch.zeros_like(param) if param.grad is None else param.grad.double()
        norms[name.removeprefix("backbone.")] = float(grad.norm())
        if name == "backbone.pos_embed":
            norms["pos_embed_cls"], norms["pos_embed_pat"] = (
                float(grad[:, :count].norm()),
                float(grad[:, count:].norm()),
            )
    listed = golden.meta["param_names"]
    if "pos_embed_pat" in listed:
        norms["pos_embed"] = 0.0  # the unused table of the original
    stored = golden.outputs[f"{prefix}grad_norm_param"]
    ours = np.array([norms.get(name, 0.0) for name in listed])
    large = stored > 1e-9
    yield Check(f"{prefix}grad_norm_param", ours[large] / stored[large], np.ones(large.sum()), "abs", 1e-4)
    yield Check(f"{prefix}grad_zero", ours[~large], np.zeros((~large).sum()), "abs", 1e-6)
    groups = [joint_norm(p.grad for p in g.params if p.grad is not None) for g in plan.groups]
    yield Check(f"{prefix}grad_norm_group", groups, golden.output(f"{prefix}grad_norm_group"), "rel", 1e-4)


def schedule(golden: Golden) -> Iterable[Check]:
    backbone = "vit:dim=384,depth=12,heads=6"
    settings = {"version": version_of(golden), **deit_schedule(golden)}
    net = MCTformer(MCTformerConfig(backbone=backbone, weights="none", **settings), 20)
    yield from check_schedule(net, golden)


def deit_schedule(golden: Golden) -> dict[str, float]:
    """Settings behind the arguments of DeiT's training script."""
    meta = golden.meta
    kept = {key: meta[key] for key in ("epochs", "warmup_epochs", "warmup_lr", "min_lr", "weight_decay")}
    return {"lr": meta["lr"] * meta["batch_size"] / 512, **kept}


def check_schedule(net: Method, golden: Golden) -> Iterable[Check]:
    """Rate of every epoch, members and decay of both groups."""
    stored = golden.output("lr")
    per_epoch = 7
    plan = net.optim_plan(len(stored) * per_epoch)
    base = plan.groups[0].lr
    ours = [
        [base * plan.factor(epoch * per_epoch + k) for k in (0, per_epoch - 1)]
        for epoch in range(len(stored))
    ]
    yield Check("lr", ours, torch.stack([stored, stored], 1), "rel", 1e-9)
    if "betas" in golden.outputs:
        stored = [*golden.outputs["betas"], golden.outputs["eps"]]
        yield Check("betas, eps", [*plan.betas, plan.eps], stored, "abs", 1e-12)
    names = {id(p): name.removeprefix("backbone.") for name, p in net.named_parameters()}
    for index, group in enumerate(plan.groups):
        listed = set(golden.outputs[f"group{index}_names"].tolist())
        listed -= {name for name in listed if name.startswith("head.") and net.head is None}
        members = {names[id(p)] for p in group.params}
        if version_of(golden) == "plus":
            listed -= {"pos_embed"}  # unused
            listed = {name if "pos_embed_" not in name else "pos_embed" for name in listed}
        yield Check(f"group{index}", sorted(members), sorted(listed), "exact")
    decays = [group.weight_decay for group in plan.groups]
    yield Check("weight_decay", decays, golden.output("weight_decay"), "abs", 0)


def positions(golden: Golden) -> Iterable[Check]:
    plus = version_of(golden) == "plus"
    table = golden.tensor("pos_embed_pat" if plus else "pos_embed")
    for index, (height, width) in enumerate(golden.meta["sizes"]):
        grid = (height // 16, width // 16)
        stored = golden.output(f"size{index}")
        if plus:
            yield Check(f"size{index}", resize_positions(table, grid), stored, "abs", 5e-5)
            continue
        count = stored.shape[1] - grid[0] * grid[1]
        prefix, rows = table[:, :count], table[:, count:]
        native = 16 * math.isqrt(rows.shape[1])
        if (height, width) != (native, native):
            rows = resize_positions(rows, grid, offset=0.1)
        yield Check(f"size{index}", torch.cat([prefix, rows], 1), stored, "abs", 2e-5)


def contrast(golden: Golden) -> Iterable[Check]:
    labels = golden.tensor("labels")
    for count in golden.meta["num_cct"]:
        tokens = golden.tensor("class_tokens").requires_grad_()
        loss = class_token_contrast(tokens[-count:].flatten(0, 1), 1.0, labels.repeat(count, 1))
        loss.backward()
        yield Check(f"loss_n{count}", loss, golden.output(f"loss_n{count}"), "rel", 1e-5)
        yield Check(f"grad_n{count}", tokens.grad, golden.output(f"grad_n{count}"), "rel", 1e-4)


def plus_init(golden: Golden) -> Iterable[Check]:
    count, rows = golden.meta["num_classes"], golden.outputs["pos_embed_pat_first32"].shape[1]
    config = MCTformerConfig(
        version="plus", backbone="deit_small_patch16_224", input_size=16 * math.isqrt(rows)
    )
    net = MCTformer(config, count)
    shapes = [
        (key, tuple(value.shape))
        for key, value in net.backbone.state_dict().items()
        if key not in ("cls_token", "pos_embed")
    ]
    state = golden_weights([*shapes, ("cls_token", (1, 1, net.backbone.dim))])
    net.backbone.load_plain(state | {"pos_embed": golden.tensor("pos_embed")}, "stored")
    table = net.backbone.pos_embed.detach()[..., : golden.outputs["pos_embed_cls"].shape[2]]
    yield Check("pos_embed_cls", table[:, :count], golden.output("pos_embed_cls"), "exact")
    yield Check("pos_embed_pat", table[:, count:], golden.output("pos_embed_pat_first32"), "exact")
    yield Check("cls_token", net.backbone.cls_token[0], state["cls_token"][0].expand(count, -1), "exact")


CASES: dict[str, Callable[[Golden], Iterable[Check]]] = {
    **{f"mctformer_{version}_forward": forward for version in ("v1", "v2", "plus")},
    **{f"mctformer_{version}_cam": cam for version in ("v1", "v2", "plus")},
    **{f"mctformer_{version}_train_step": train_step for version in ("v1", "v2", "plus")},
    **{f"mctformer_{version}_schedule": schedule for version in ("v1", "v2", "plus")},
    "mctformer_v2_pos_embed": positions,
    "mctformer_plus_pos_embed": positions,
    "mctformer_plus_reg_loss": contrast,
    "mctformer_plus_init": plus_init,
}

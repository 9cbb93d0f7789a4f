"""AReAM on MCTformer and on Conformer against stored outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from tagmask.methods.aream import AReAM, AReAMConfig
from tagmask.ops.affinity import affinity_labels
from tagmask.ops.entropy import entropy_weights
from tagmask.ops.labels import refine_labels
from tagmask.ops.pillow import pillow_bicubic
from tagmask.ops.pixel_refinement import par
from tagmask.ops.resize import resize_bilinear
from tagmask.types import Batch
from tests.parity.cases.mctformer import check_schedule, deit_schedule, gradients, numbered, plain
from tests.parity.cases.psa import as_images, loaded
from tests.parity.cases.transcam import gradient_norms, running_statistics
from tests.parity.golden import Check, Golden, golden_weights, joint_norm


def on_conformer(golden: Golden) -> bool:
    return "conformer" in golden.name


_SETTINGS = {
    "layer_index": "shallow_blocks",
    "aff_weight": "affinity_weight",
    "drop_path": "drop_path",
    "score_l": "low",
    "score_h": "high",
}


def config(golden: Golden, **settings: object) -> AReAMConfig:
    backbone = "conformer_small" if on_conformer(golden) else "deit_small_patch16_224"
    stored = {ours: golden.meta[key] for key, ours in _SETTINGS.items() if key in golden.meta}
    if "scales" in golden.meta:
        # One key for the views of training and of inference; the ViT has one training view.
        stored |= {"scales": golden.meta["scales"], "train_scales": golden.meta["scales"]}
    return AReAMConfig(**{"backbone": backbone, "weights": "none", **stored, **settings})


def make(golden: Golden, **settings: object) -> AReAM:
    head = golden.shape("att_head.weight" if on_conformer(golden) else "head.weight")
    return loaded(AReAM, config(golden, **settings), head[0], golden)


def small(golden: Golden, **settings: object) -> AReAM:
    """A method of the right kind where only its functions matter."""
    name = "conformer:dim=12,heads=1,ratio=1,base=4" if on_conformer(golden) else "vit:dim=12,heads=1"
    return AReAM(config(golden, backbone=name, **settings), 20)


@torch.no_grad()
def forward(golden: Golden) -> Iterable[Check]:
    net = make(golden).eval()
    first, second = ("cnn_logits", "att_logits") if on_conformer(golden) else ("class_logits", "patch_logits")
    blocks = range(net.depth)
    for shape in (key.removeprefix("images_") for key in golden.inputs if key.startswith("images_")):
        images = plain(net, golden.tensor(f"images_{shape}"))
        raw = net.run(images, blocks, lambda s: s)
        yield Check(f"{shape}/first", raw.logits[0], golden.output(f"{shape}_{first}"), "rel", 2e-5)
        yield Check(f"{shape}/second", raw.logits[1], golden.output(f"{shape}_{second}"), "rel", 2e-5)
        yield Check(f"{shape}/cam", raw.maps, golden.output(f"{shape}_cam"), "rel", 2e-5)
        means = {
            "attn_logits_headmean": [raw.scores[i].mean(1) for i in blocks],
            "attn_softmax_headmean": [raw.scores[i].softmax(-1).mean(1) for i in blocks],
        }
        for kind, values in means.items():
            key = f"{shape}_{kind}"
            if key in golden.outputs:
                yield Check(key, torch.stack(values), golden.output(key), "rel", 2e-5)
        for block in golden.numbers(rf"{shape}_attn_layer(\d+)_b0"):
            key = f"{shape}_attn_layer{block}_b0"
            yield Check(key, raw.scores[block][0], golden.output(key), "rel", 2e-5)
        if f"{shape}_block_xt_absmean" in golden.outputs:
            yield from _stages(net, images, golden, shape)


def _stages(net: AReAM, images: Tensor, golden: Golden, shape: str) -> Iterable[Check]:
    sizes: dict[str, list[Tensor]] = {"x": [], "xt": []}

    def note(module: object, given: object, made: tuple[Tensor, Tensor]) -> None:
        sizes["x"].append(made[0].abs().mean())
        sizes["xt"].append(made[1].abs().mean())

    hooks = [net.backbone.get_submodule(f"conv_trans_{i}").register_forward_hook(note) for i in range(2, 13)]
    net.run(images)
    for hook in hooks:
        hook.remove()
    for name, means in sizes.items():
        key = f"{shape}_block_{name}_absmean"
        yield Check(key, torch.stack(means), golden.output(key)[1:], "rel", 2e-5)


@torch.no_grad()
def cam(golden: Golden) -> Iterable[Check]:
    net = make(golden).eval()
    images = as_images(golden.tensor("image")[None])
    keys = golden.output("key")
    yield Check("key", golden.tensor("label").nonzero()[:, 0], keys, "exact")
    maps = net.maps(images)["cam"][0, keys]
    tolerance = 1e-3 if on_conformer(golden) else 5e-4
    yield Check("cam", maps, golden.output("cam"), "abs", tolerance)


@torch.no_grad()
def training_cam(golden: Golden) -> Iterable[Check]:
    classes = golden.meta["classes"]
    entropy = tuple(golden.inputs["entropy"].tolist())
    tolerance = 1e-3 if on_conformer(golden) else 5e-4
    for key, stored in golden.outputs.items():
        if not key.startswith("cam_"):
            continue
        kind, _, mode = key.removeprefix("cam_").partition("_")
        net = make(golden, entropy=entropy if kind.startswith("ent") else None, drop_path=0.0)
        net.train(mode == "train")
        images = plain(net, golden.tensor("images"))
        maps = net.training_maps(images)[:, classes]
        yield Check(key, maps, stored, "abs", tolerance)
        if mode == "train":
            yield from running_statistics(net, golden, "")
            count = net.backbone.bn1.num_batches_tracked
            yield Check("batches_tracked", count, golden.output("batches_tracked"), "exact")


@torch.no_grad()
def pseudo_labels(golden: Golden) -> Iterable[Check]:
    net = small(golden)
    images = plain(net, golden.tensor("images"))
    maps, tags = golden.tensor("cams"), golden.tensor("labels")
    low, high = golden.meta["score_l"], golden.meta["score_h"]
    boxes = golden.tensor("img_box") if "img_box" in golden.inputs else None
    refine = partial(par, dilations=golden.meta["par_dilations"], iterations=golden.meta["par_iterations"])
    yield from _planes(golden, images, maps, tags, {"low": low, "high": high}, refine)
    labels = refine_labels(images, maps, tags, high, low, refine, boxes)
    yield Check("seg", labels, golden.output("seg").long(), "mismatch", 0.0005)
    for name, level in (("low", low), ("high", high)):
        # One plane alone: the same level twice leaves no band to ignore.
        alone = refine_labels(images, maps, tags, level, level, refine, boxes)
        yield Check(f"seg_{name}", alone, golden.output(f"seg_{name}").long(), "mismatch", 0.0005)
    pairs = affinity_labels(labels[:, ::16, ::16])
    yield Check("aff", pairs, golden.output("aff"), "mismatch", 0.002)


def _planes(
    golden: Golden,
    images: Tensor,
    maps: Tensor,
    tags: Tensor,
    levels: dict[str, float],
    refine: Callable[[Tensor, Tensor], Tensor],
) -> Iterable[Check]:
    size = (images.shape[2] // 2, images.shape[3] // 2)
    half, shrunk = resize_bilinear(images, size), resize_bilinear(maps, size)
    for index in range(len(images)):
        present = shrunk[index, tags[index] > 0]
        for name, level in levels.items():
            stack = torch.cat([torch.full_like(present[:1], level), present]).softmax(0)
            refined = refine(half[index : index + 1], stack[None])[0]
            key = f"par_{name}_b{index}"
            yield Check(key, refined, golden.output(key), "rel", 1e-5)


def affinity_loss(golden: Golden) -> Iterable[Check]:
    first = golden.meta["layer_index"]
    prefix = golden.meta["num_extra_tokens"]
    entropy = tuple(golden.inputs["entropy"].tolist())
    nets = {"uniform": small(golden), "ent": small(golden, entropy=entropy)}
    aff = golden.tensor("aff")
    half_ignored, ignored = aff.clone(), torch.full_like(aff, 255)
    half_ignored[1] = 255
    for kind, net in nets.items():
        for case, pairs in (("", aff), ("_noneg", half_ignored), ("_empty", ignored)):
            scores = golden.tensor("att").requires_grad_()
            means = [scores[block][:, :, prefix:, prefix:].mean(1) for block in range(first, len(scores))]
            total, each = net.affinity_loss(means, pairs)
            yield Check(f"loss_{kind}{case}", total, golden.output(f"loss_{kind}{case}"), "abs", 1e-6)
            stored = golden.output(f"loss_per_layer{case}")
            yield Check(f"loss_per_layer{case}", each, stored, "abs", 1e-6)
            if not case:
                total.backward()
                key = f"grad_{kind}"
                yield Check(key, scores.grad[first:], golden.output(key), "rel", 1e-5)


def train_step(golden: Golden) -> Iterable[Check]:
    entropy = tuple(golden.inputs["entropy"].tolist())
    tolerance = 1e-4 if on_conformer(golden) else 1e-5
    for case in ("warm", "uniform", "ent"):
        net = make(
            golden,
            affinity_from=1 if case == "warm" else 0,
            entropy=entropy if case == "ent" else None,
        ).train()
        images = plain(net, golden.tensor("images"))
        boxes = golden.tensor("img_box") if "img_box" in golden.inputs else None
        batch = Batch(images, golden.tensor("labels").float(), numbered(images), boxes)
        kept: list[Tensor] = []
        made = net.pseudo_labels

        def keep(given: Batch, made: Callable[[Batch], Tensor] = made, kept: list[Tensor] = kept) -> Tensor:
            kept.append(made(given))
            return kept[-1]

        net.pseudo_labels = keep  # type: ignore[method-assign]
        result = net(batch, 0)
        result.loss.backward()
        yield Check(f"{case}_loss", result.loss, golden.output(f"{case}_loss"), "rel", tolerance)
        for ours, stored in (("first", "loss1"), ("second", "loss2")):
            yield Check(
                f"{case}_{stored}", result.logs[ours], golden.output(f"{case}_{stored}"), "rel", tolerance
            )
        if case != "warm":
            key = f"{case}_aff_loss"
            yield Check(key, result.logs["affinity"], golden.output(key), "rel", tolerance)
            yield Check(f"{case}_seg", kept[0], golden.output(f"{case}_seg").long(), "mismatch", 0.0005)
            pairs = affinity_labels(kept[0][:, ::16, ::16])
            yield Check(f"{case}_aff", pairs, golden.output(f"{case}_aff"), "mismatch", 0.002)
        yield from _step_gradients(net, golden, case)


def _step_gradients(net: AReAM, golden: Golden, case: str) -> Iterable[Check]:
    plan = net.optim_plan(24)
    if not on_conformer(golden):
        yield from gradients(net, plan, golden, f"{case}_")
        return
    yield from running_statistics(net, golden, f"{case}_")
    count = net.backbone.bn1.num_batches_tracked
    yield Check(f"{case}_tracked", count, golden.output(f"{case}_tracked"), "exact")
    yield from gradient_norms(net, golden, f"{case}_grad_norm_param")
    norms = [joint_norm(p.grad for p in g.params if p.grad is not None) for g in plan.groups]
    key = f"{case}_grad_norm_group"
    yield Check(key, np.array(norms) / golden.outputs[key], np.ones(len(norms)), "abs", 5e-3)


@torch.no_grad()
def entropy(golden: Golden) -> Iterable[Check]:
    net = make(golden).eval()
    side = golden.meta["size"]
    rows = []
    for index, tags in enumerate(golden.tensor("labels")):
        image = as_images(golden.tensor(f"image{index}")[None])
        rows.append(net.layer_entropy(pillow_bicubic(image, (side, side)), tags[None])[0])
    each = torch.stack(rows).double()
    yield Check("entropy_per_image", each, golden.output("entropy_per_image"), "abs", 1e-5)
    yield Check("entropy", each.mean(0), golden.output("entropy"), "abs", 1e-5)
    weights = entropy_weights(each.mean(0).tolist())
    tolerance = 5e-3 if on_conformer(golden) else 1e-3
    yield Check("weights", weights, golden.output("weights"), "abs", tolerance)


def schedule(golden: Golden) -> Iterable[Check]:
    if not on_conformer(golden):
        settings = {"backbone": "vit:dim=384,depth=12,heads=6", **deit_schedule(golden)}
        yield from check_schedule(AReAM(config(golden, **settings), 20), golden)
        return
    meta = golden.meta
    given = {"warmup_lr": "start_lr", "min_lr": "final_lr", "head_factor": "lr_scale"}
    given |= {key: key for key in ("lr", "weight_decay")}
    settings = {ours: meta[stored] for ours, stored in given.items()}
    # A warm-up counted in updates is that many epochs of one update each.
    brief = config(golden, **settings, epochs=meta["short_total"], warmup_epochs=meta["short_warmup"])
    net = AReAM(brief, 20)
    plan = net.optim_plan(meta["short_total"])
    base = plan.groups[0].lr
    short = [base * plan.factor(step) for step in range(meta["short_total"])]
    yield Check("lr_short", short, golden.output("lr_short"), "rel", 1e-9)
    whole = config(golden, **settings, epochs=meta["full_total"], warmup_epochs=meta["full_warmup"])
    net.config = whole
    full = net.optim_plan(meta["full_total"])
    rates = [base * full.factor(int(step)) for step in golden.outputs["full_index"]]
    yield Check("lr_full", rates, golden.output("lr_full"), "rel", 1e-9)
    names = {id(p): name.removeprefix("backbone.") for name, p in net.named_parameters()}
    for index, group in enumerate(plan.groups):
        listed = golden.outputs[f"group{index}_names"].tolist()
        yield Check(f"group{index}", sorted(names[id(p)] for p in group.params), sorted(listed), "exact")
    yield Check(
        "weight_decay", [g.weight_decay for g in plan.groups], golden.output("weight_decay"), "abs", 0
    )
    scale = [g.lr / base for g in plan.groups]
    yield Check("lr_scale", scale, golden.output("lr_scale"), "rel", 1e-9)


def initial_weights(golden: Golden) -> Iterable[Check]:
    net = AReAM(config(golden), golden.meta["num_classes"])
    shapes = [
        (key, tuple(value.shape))
        for key, value in net.backbone.state_dict().items()
        if key not in ("cls_token", "pos_embed")
    ]
    deit = golden_weights([*shapes, ("head.weight", (1000, net.backbone.dim)), ("head.bias", (1000,))])
    deit |= {key: golden.tensor(key) for key in ("pos_embed", "cls_token")}
    net.backbone.load_plain(deit, "stored")
    for key in ("pos_embed", "cls_token"):
        ours = net.backbone.get_parameter(key).detach()
        yield Check(key, ours, golden.output(key), "exact")
    missing = [key for key in net.state_dict() if not key.startswith("backbone.")]
    yield Check("missing", np.array(missing), golden.outputs["missing"], "exact")


CASES: dict[str, Callable[[Golden], Iterable[Check]]] = {
    **{f"aream_{kind}_forward": forward for kind in ("mctformer", "conformer")},
    **{f"aream_{kind}_cam": cam for kind in ("mctformer", "conformer")},
    **{f"aream_{kind}_msf_cam": training_cam for kind in ("mctformer", "conformer")},
    **{f"aream_{kind}_pseudo_labels": pseudo_labels for kind in ("mctformer", "conformer")},
    **{f"aream_{kind}_aff_loss": affinity_loss for kind in ("mctformer", "conformer")},
    **{f"aream_{kind}_train_step": train_step for kind in ("mctformer", "conformer")},
    **{f"aream_{kind}_entropy": entropy for kind in ("mctformer", "conformer")},
    **{f"aream_{kind}_schedule": schedule for kind in ("mctformer", "conformer")},
    "aream_mctformer_init": initial_weights,
}

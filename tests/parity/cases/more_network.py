"""MoRe's network and maps against stored outputs of the original."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tagmask.backbones.base import IMAGENET_MEAN, IMAGENET_STD
from tagmask.backbones.weights import load_strictly
from tagmask.heads.graph import GraphRepresentation
from tagmask.methods.more import MoRe, MoReConfig
from tagmask.ops.attention import class_to_patch
from tagmask.types import ViewPlan
from tests.parity.golden import Blank, Check, Golden, golden_weights

_ENCODER = "encoder."


def images(golden: Golden) -> Tensor:
    """The stored images, which are normalised 8-bit ones, back in [0, 1]."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return ((golden.tensor("image").double() * std + mean) * 255).round().div(255).float()


def model(golden: Golden, **settings: object) -> MoRe:
    """MoRe with the golden weights, loaded as a published checkpoint would be."""
    count, stored = golden.shape("classifier.weight")[0], golden.meta.get("config", {})
    if "aux_layer" in stored:
        settings["aux_block"] = stored["aux_layer"]
    if "num_attri" in stored:
        settings["num_registers"] = stored["num_attri"] - count
    with Blank():
        built = MoRe(MoReConfig(**settings), count).eval()
    state = MoRe.convert_weights(golden_weights(golden.meta["state_dict"]))
    load_strictly(built, state, golden.name)
    return built


def init(golden: Golden) -> Iterable[Check]:
    # The originals filled every entry by its name with a prefix, which the checkpoint does not have.
    prefix = golden.meta["fill_prefix"]
    filled = golden_weights([(prefix + name, shape) for name, shape in golden.meta["entries"]])
    state = {name.removeprefix(prefix): value for name, value in filled.items()}
    for key, stored in golden.meta["config"].items():
        torch.manual_seed(0)
        count = len(golden.outputs[f"{key}_pos_embed_class_rows"])
        extra, kept = stored["num_attri"] - count, len(golden.outputs[f"{key}_pos_embed_patch_rows"])
        network = MoRe(MoReConfig(num_registers=extra), count).encoder
        network.load_plain(state, golden.name)
        tokens, rows = network.cls_token[0].detach(), network.pos_embed[0].detach()
        yield Check(f"{key}_cls_token", tokens, golden.output(f"{key}_cls_token"), "exact")
        first = extra + count
        for name, part in (("class", rows[extra:first]), ("patch", rows[first : first + kept])):
            label = f"{key}_pos_embed_{name}_rows"
            yield Check(label, part, golden.output(label), "exact")
        spread = rows[:extra].std(correction=0), golden.output(f"{key}_register_pos_std")
        yield Check(f"{key}_register_pos_std", *spread, "rel", 0.02)
        outside = float((rows[:extra].abs().max() - 2).clamp(min=0))
        yield Check(f"{key}_register_pos_absmax above 2", outside, 0.0, "exact")
        copied = sorted(k for k, v in network.state_dict().items() if k in state and torch.equal(v, state[k]))
        wanted = sorted(set(stored["copied"]))
        yield Check(f"{key}_copied", np.array(copied), np.array(wanted), "exact")


def forward(golden: Golden) -> Iterable[Check]:
    network = model(golden)
    count = network.num_classes
    x = images(golden)
    last = network.encoder.depth - 1
    with torch.no_grad():
        features = network.encoder(x, hidden=(network.aux_block,), scores=(last,))
        aux = network.encoder.to_map(features.hidden[network.aux_block], features.grid)
        patches = features.patches.flatten(2).transpose(1, 2)
        ours = {
            "cls_logits": network.classify(x),
            "aux_logits": network.aux_classifier(F.adaptive_max_pool2d(aux, 1)).flatten(1),
            "seg_logits": network.segment(x),
            "patch_tokens": network.encoder(x).patches,
            "aux_patch_tokens": aux,
            "class_tokens_encoder": features.class_tokens,
            "class_tokens": network.graph_layer(features.class_tokens, patches),
        }
        scores = class_to_patch(
            features.scores[last], network.encoder.num_prefix_tokens, count, features.grid
        )
        scale = network.encoder.blocks[last].attn.scale
        ours["attention_score_maps"] = scores.sum(1) / scale
        maps = network.view_maps(x, ("cam", "aux_cam", "lam"))
        ours |= {"cam": maps["cam"], "cam_aux": maps["aux_cam"], "lam": maps["lam"]}
        if "pos_embed" in golden.outputs:
            rows = network.encoder.positions((x.shape[2], x.shape[3]))
            ours["pos_embed"] = rows[0, network.encoder.num_prefix_tokens :]
        for name, value in ours.items():
            yield Check(name, value, golden.output(name), "rel", 5e-5)
        yield _topk(golden, network.graph_layer, features.class_tokens, patches)


def _topk(golden: Golden, graph: GraphRepresentation, tokens: Tensor, patches: Tensor) -> Check:
    """Neighbours as sets per row; rows whose gap at the boundary is float noise may differ."""
    key = "gcr_topk_index" if "gcr_topk_index" in golden.outputs else "topk_index"
    tail = graph.tail_proj(torch.cat([tokens, patches], dim=1))
    _, index = graph.neighbours(graph.head_proj(tokens), tail)
    ours, stored = index.sort(2).values, golden.output(key).long().sort(2).values
    if golden.meta["gcr_topk_boundary_gap"] < 1e-4:
        full = (graph.head_proj(tokens) * tokens.shape[2] ** -0.5) @ tail.transpose(1, 2)
        best = full.topk(index.shape[2] + 1, dim=2).values
        clear = best[..., -2] - best[..., -1] > 1e-4
        ours, stored = ours[clear], stored[clear]
    return Check(key, ours, stored, "exact")


def gcr(golden: Golden) -> Iterable[Check]:
    state = golden_weights(golden.meta["state_dict"])
    state = {k.partition("graph_layer.")[2] or k: v for k, v in state.items() if "_fc1" not in k}
    width = golden.inputs["class_tokens"].shape[2]
    graph = GraphRepresentation(width, golden.meta["config"]["tok_ratio"])
    load_strictly(graph, state, golden.name)
    tokens = golden.tensor("class_tokens").requires_grad_()
    patches = golden.tensor("patch_tokens").requires_grad_()
    out = graph(tokens, patches)
    (out * golden.tensor("grad_weight")).sum().backward()
    yield Check("class_tokens", out, golden.output("class_tokens"), "rel", 1e-4)
    yield Check("grad_class_tokens", tokens.grad, golden.output("grad_class_tokens"), "rel", 1e-4)
    yield Check("no gradient to patches", patches.grad is None, True, "exact")
    named = dict(graph.named_parameters())
    for name, norm in zip(golden.meta["param_names"], golden.outputs["param_grad_norm"], strict=True):
        if name in named:
            yield Check(f"param_grad_norm {name}", named[name].grad.norm(), norm, "rel", 1e-4)
        else:
            yield Check(f"param_grad_norm {name} unused", np.isnan(norm), True, "exact")
    for key in golden.outputs:
        name = key.removeprefix("grad_").replace("_bias", ".bias").replace("_weight", ".weight")
        if key.startswith("grad_") and name in named:
            yield Check(key, named[name].grad, golden.output(key), "rel", 1e-4)
    yield _topk(golden, graph, tokens.detach(), patches.detach())


def ms_cam(golden: Golden) -> Iterable[Check]:
    kept = golden.meta.get("kept_classes", slice(None))
    network = model(golden, scales=golden.meta["config"]["scales"])
    x = images(golden)
    if "coco" in golden.name:
        # One stored map has a range of 0.003 before it is scaled to [0, 1]. Float32 noise of 1e-6 becomes
        # up to 4e-4 there, depending on the number of threads; the stored values themselves are 8e-5 off.
        network, x = network.double(), x.double()
    maps = network.maps(x, ("cam", "aux_cam"))
    for key, kind in (("cam", "cam"), ("cam_aux", "aux_cam")):
        yield Check(key, maps[kind][:, kept], golden.output(key), "abs", 1e-4)


def ms_lam(golden: Golden) -> Iterable[Check]:
    network = model(golden)
    for key in (key.removeprefix("lam_") for key in golden.outputs):
        plan = ViewPlan(scales=tuple(golden.meta["config"][f"scales_{key}"]), flip="max", relu="none")
        ours = network.maps(images(golden), ("lam",), plan)["lam"]
        yield Check(f"lam_{key}", ours, golden.output(f"lam_{key}"), "abs", 1e-4)


CASES: dict[str, Callable[[Golden], Iterable[Check]]] = {
    "more_init": init,
    "more_voc_forward": forward,
    "more_coco_forward": forward,
    "more_gcr": gcr,
    "more_voc_ms_cam": ms_cam,
    "more_coco_ms_cam": ms_cam,
    "more_voc_ms_lam": ms_lam,
}

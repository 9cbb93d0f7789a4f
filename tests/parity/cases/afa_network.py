"""AFA: network, maps and evaluation against stored outputs of the original."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tagmask.backbones.base import IMAGENET_MEAN, IMAGENET_STD
from tagmask.backbones.mit import MixTransformer
from tagmask.backbones.mit_names import mit_names
from tagmask.data.classes import voc_palette
from tagmask.methods.afa import AFA, AFAConfig
from tagmask.metrics.confusion import ConfusionMatrix
from tagmask.metrics.tags import multilabel_f1
from tagmask.ops.crf import dense_crf
from tagmask.ops.crf_presets import CRFParams, unary_from_probabilities
from tagmask.ops.images import truncated_levels
from tagmask.ops.labels import labels_from_maps
from tagmask.ops.multiscale import view_sizes
from tagmask.ops.resize import resize_bilinear
from tagmask.ops.segmentation_views import segment_views
from tagmask.report.draw import label_colours, overlay_maps, picture_grid
from tests.parity.cases.afa import LABEL_SHARE
from tests.parity.golden import Blank, Check, Golden, golden_weights


def build_method(golden: Golden, **settings: object) -> AFA:
    config = golden.meta["config"]
    given: dict[str, object] = {"backbone": config["backbone"]}
    given |= {"strides": tuple(config["stride"])} if "stride" in config else {}
    given |= {"head_width": config["embedding_dim"]} if "embedding_dim" in config else {}
    given |= {"pooling": _POOLINGS[config["pooling"]]} if "pooling" in config else {}
    with Blank():
        method = AFA(AFAConfig(**{**given, **settings}), config["num_classes"] - 1)
    # Through the very path a published checkpoint takes: with or without its prefix, loading is strict.
    weights = golden_weights(golden.meta["state_dict"])
    method.load_state_dict(method.convert_weights(weights), strict=True)
    return method.eval()


_POOLINGS = {"gmp": "max", "gap": "mean"}


def _rgb(normalised: Tensor) -> Tensor:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return normalised * std + mean


def forward(golden: Golden) -> Iterable[Check]:
    method = build_method(golden)
    images = _rgb(golden.tensor("images"))
    with torch.no_grad():
        features = method.encoder(images, range(method.encoder.num_blocks))
        last = [features.attention[i] for i in (method.encoder.num_blocks - 2, method.encoder.num_blocks - 1)]
        ours = {
            "cls": method.classify(images),
            "seg": method.segment(images),
            "attn_logit": method.attn_proj.logits(last).unsqueeze(1),
            "cam_s4": method.view_maps(images, ("cam",))["cam"],
        }
        affinity = method.attn_proj(last)
    ours |= {f"feat{i + 1}": features.maps[i] for i in range(4)}
    ours |= {f"attn{i}": q @ k.transpose(2, 3) for i, (q, k) in features.attention.items()}
    ours |= {"attn_first": ours["attn0"], "attn_last": ours[f"attn{method.encoder.num_blocks - 1}"]}
    yield Check("attn_pred", affinity, golden.output("attn_pred"), "abs", 1e-3)
    for name in golden.outputs:
        if name != "attn_pred":
            yield Check(name, ours[name], golden.output(name), "rel", 1e-4)


def msc_cam(golden: Golden) -> Iterable[Check]:
    scales = golden.meta["config"]["scales"]
    method, images = build_method(golden, scales=tuple(scales)), _rgb(golden.tensor("images"))
    yield Check("cam", method.maps(images)["cam"], golden.output("cam"), "abs", 1e-3)
    for scale in scales:
        view = resize_bilinear(images, (int(scale * images.shape[2]), int(scale * images.shape[3])))
        raw = method.view_maps(torch.cat([view, view.flip(3)]), ("cam",))["cam"]
        yield Check(f"cam_s4_{scale}", raw, golden.output(f"cam_s4_{scale}"), "rel", 1e-4)
        if scale == max(scales):
            with torch.no_grad():
                attention = method.encoder(torch.cat([view, view.flip(3)]), (-2, -1)).attention
                affinity = method.attn_proj(attention.values())
            yield Check("aff_mat", affinity, golden.output("aff_mat"), "abs", 1e-3)


def hf_names(golden: Golden) -> Iterable[Check]:
    encoder = MixTransformer(golden.meta["config"]["backbone"])
    state = encoder.state_dict() | {"head.weight": torch.zeros(4, 2), "head.bias": torch.zeros(4)}
    rows = json.loads(str(golden.outputs["rows"]))
    for column, version in ((0, "original"), (1, "transformers 4"), (2, "transformers 5")):
        foreign = {}
        for row in rows:
            tensor = state[row[0]]
            half = tensor.shape[0] // 2
            part = {"": tensor, "[:C]": tensor[:half], "[C:]": tensor[half:]}[row[3]]
            foreign[row[column]] = tensor if column == 0 else part
        back = mit_names(foreign)
        wrong = [name for name in encoder.state_dict() if not torch.equal(back.pop(name), state[name])]
        yield Check(f"{version}: wrong or left over", len(wrong) + len(back), 0, "exact")


def optim(golden: Golden) -> Iterable[Check]:
    config = golden.meta["config"]
    method = AFA(
        AFAConfig(
            backbone=config["backbone"],
            lr=config["lr"],
            warmup=config["warmup_iter"],
            power=config["power"],
        ),
        config["num_classes"] - 1,
    )
    plan = method.optim_plan(config["max_iters"])
    names = {id(param): name for name, param in method.named_parameters()}
    groups = [[names[id(param)] for param in group.params] for group in plan.groups]
    for group, ours, theirs in zip(plan.groups, groups, golden.meta["groups"], strict=True):
        yield Check(group.name, np.array(ours), np.array(theirs), "exact")
    yield Check("group_sizes", torch.tensor([len(g) for g in groups]), golden.output("group_sizes"), "exact")
    rates = [
        [group.lr * plan.factor(step) for group in plan.groups] for step in golden.inputs["steps"].tolist()
    ]
    yield Check("lr", np.array(rates), golden.outputs["lr"], "rel", 1e-12)
    yield Check("betas, eps", [*plan.betas, plan.eps], [*config["betas"], config["eps"]], "exact")
    decay = np.array([group.weight_decay for group in plan.groups])
    yield Check("weight_decay", decay, golden.outputs["weight_decay"], "rel", 1e-12)


def _image(golden: Golden, index: int) -> Tensor:
    return golden.tensor(f"image_u8_{index}").permute(2, 0, 1)[None].float() / 255


def stored_crf(config: dict[str, Any]) -> CRFParams:
    """Parameters in the words of AFA's and MoRe's scripts."""
    names = ("pos_xy_std", "pos_w", "bi_xy_std", "bi_rgb_std", "bi_w", "iter_max")
    return CRFParams(*(config[name] for name in names))


def infer(golden: Golden) -> Iterable[Check]:
    config, method = golden.meta["config"], build_method(golden)
    matrices = [ConfusionMatrix(config["num_classes"]) for _ in range(3)]
    crf = stored_crf(config["crf"])
    for index in golden.numbers(r"image_u8_(\d+)"):
        image, truth = _image(golden, index), golden.tensor(f"gt_{index}")
        size = (image.shape[2], image.shape[3])
        ratio = config["resize_long"] / max(size)
        large = resize_bilinear(image, (int(size[0] * ratio), int(size[1] * ratio)))
        with torch.no_grad():
            single = method.segment(large)
            merged = segment_views(
                method.segment,
                large,
                view_sizes(large.shape[2], large.shape[3], config["test_scales"]),
                None,
                flip="mean",
                factors=config["test_scales"],
            )
        yield Check(f"segs_{index}", single, golden.output(f"segs_{index}"), "rel", 1e-4)
        yield Check(f"msc_segs_{index}", merged, golden.output(f"msc_segs_{index}"), "rel", 1e-4)
        probs = resize_bilinear(merged, size).softmax(1)[0]
        marginals = dense_crf(golden.tensor(f"image_u8_{index}"), unary_from_probabilities(probs), crf)
        labels = [resize_bilinear(x, size).argmax(1)[0] for x in (single, merged)] + [marginals.argmax(0)]
        names = (("pred", LABEL_SHARE), ("msc_pred", LABEL_SHARE), ("crf_pred", 5e-3))
        for matrix, ours, (name, allowed) in zip(matrices, labels, names, strict=True):
            yield Check(f"{name}_{index}", ours, golden.output(f"{name}_{index}"), "mismatch", allowed)
            matrix.update(preds=ours, target=truth)
    ious = np.array([matrix.compute().miou for matrix in matrices])
    yield Check("miou", ious, golden.outputs["miou"], "abs", 2e-3)


def validate(golden: Golden) -> Iterable[Check]:
    config = golden.meta["config"]
    settings = {"scales": tuple(config["scales"]), "radius": config["radius"], "low": config["bkg_aff"]}
    method, tags = build_method(golden, **settings), golden.tensor("cls_labels")
    matrices = {name: ConfusionMatrix(config["num_classes"]) for name in ("seg", "cam", "aff")}
    logits = []
    for index in golden.numbers(r"image_u8_(\d+)"):
        image, truth = _image(golden, index), golden.tensor(f"gt_{index}")
        own = tags[index : index + 1]
        with torch.no_grad():
            logits.append(method.classify(image))
            maps = method.maps(image, ("cam", "walk"), tags=own)
            scores = resize_bilinear(method.segment(image), (image.shape[2], image.shape[3]))
        labels = {
            "seg": scores.argmax(1),
            "cam": labels_from_maps(maps["cam"], own, config["bkg_score"]),
            # Half of a class's share against the background is where the arg max changes sides.
            "aff": labels_from_maps(maps["walk"], own, 0.5),
        }
        for name, ours in labels.items():
            theirs = golden.output(f"{name}_label_{index}")
            yield Check(f"{name}_label_{index}", ours[0], theirs, "mismatch", LABEL_SHARE)
            matrices[name].update(preds=ours[0], target=truth)
    f1 = multilabel_f1(tags, (torch.cat(logits) > 0).float()).mean()
    yield Check("cls_score", f1, golden.outputs["cls_score"], "abs", 2e-3)
    for name, matrix in matrices.items():
        scores = matrix.compute()
        for key, ours in (
            ("pAcc", scores.pixel_accuracy),
            ("mAcc", scores.mean_accuracy),
            ("miou", scores.miou),
            ("iou", scores.iou),
        ):
            yield Check(f"{name}_{key}", np.array(ours), golden.outputs[f"{name}_{key}"], "abs", 2e-3)


def pictures(golden: Golden) -> Iterable[Check]:
    images = golden.tensor("images")
    mean, std = ([value / 255 for value in golden.meta["config"][key]] for key in ("mean", "std"))
    levels = truncated_levels(images, mean, std) * 255
    plain = list(levels.round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    maps = resize_bilinear(golden.tensor("cam"), (images.shape[2], images.shape[3])).numpy()
    ours = {
        "grid_images": plain,
        "grid_cam": [overlay_maps(image, own) for image, own in zip(plain, maps, strict=True)],
        "grid_labels": [label_colours(label, voc_palette()) for label in golden.inputs["label"]],
    }
    for name, drawn in ours.items():
        yield Check(name, picture_grid(drawn).transpose(2, 0, 1), golden.outputs[name], "abs", 1)


CASES = {
    "afa_forward": forward,
    "afa_forward_odd": forward,
    "afa_forward_coco": forward,
    "afa_forward_b0_stride32": forward,
    "afa_forward_b2": forward,
    "afa_forward_b5": forward,
    "afa_msc_cam": msc_cam,
    "afa_hf_names": hf_names,
    "afa_optim": optim,
    "afa_infer_msc_flip": infer,
    "afa_validate": validate,
    "afa_vis": pictures,
}

"""MoRe's validation, seeds and multi-scale inference against stored outputs of the original."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from tagmask.metrics.confusion import ConfusionMatrix
from tagmask.metrics.tags import multilabel_f1
from tagmask.ops.crf import dense_crf
from tagmask.ops.crf_presets import PRESETS, unary_from_probabilities
from tagmask.ops.labels import labels_from_maps, predicted_tags
from tagmask.ops.maps import fuse, min_max
from tagmask.ops.multiscale import view_sizes
from tagmask.ops.resize import resize_bilinear
from tagmask.ops.segmentation_views import segment_views
from tagmask.types import ViewPlan
from tests.parity.cases.afa_network import stored_crf
from tests.parity.cases.more_network import images, model
from tests.parity.golden import Check, Golden


@torch.no_grad()
def validation(golden: Golden) -> Iterable[Check]:
    config = golden.meta["config"]
    network = model(golden, scales=config["cam_scales"])
    tags, truth = golden.tensor("cls_label"), golden.output("pred_seg").new_tensor(golden.inputs["label"])
    size = tuple(truth.shape[1:])
    predictions: dict[str, list[Tensor]] = {"seg": [], "cam": [], "score_map": [], "fused": []}
    logits = []
    for image, tag in zip(images(golden).split(1), tags.split(1), strict=True):
        square = resize_bilinear(image, (config["crop_size"],) * 2)
        cam = resize_bilinear(network.maps(square, ("cam",))["cam"], size)
        lam = min_max(resize_bilinear(network.view_maps(square, ("lam",))["lam"], size))
        for name, maps in (("cam", cam), ("score_map", lam), ("fused", fuse(lam, cam))):
            predictions[name].append(labels_from_maps(maps, tag, config["bkg_thre"]))
        predictions["seg"].append(resize_bilinear(network.segment(square), size).argmax(1))
        logits.append(network.classify(square))
    for name, parts in predictions.items():
        labels = torch.cat(parts)
        yield Check(f"pred_{name}", labels, golden.output(f"pred_{name}"), "mismatch", 1e-3)
        matrix = ConfusionMatrix(network.num_classes + 1)
        matrix.update(preds=labels, target=truth)
        scores = matrix.compute(absent="skip_truth")
        for key, value in (
            ("miou", scores.miou),
            ("iou", scores.iou),
            ("precision", scores.precision),
            ("recall", scores.recall),
            ("confusion", scores.confusion),
            ("pacc", scores.pixel_accuracy),
            ("macc", scores.mean_accuracy),
        ):
            yield Check(f"{key}_{name}", value, golden.output(f"{key}_{name}"), "abs", 1e-3)
    class_logits = torch.cat(logits)
    yield Check("cls_logits", class_logits, golden.output("cls_logits"), "rel", 5e-5)
    f1 = multilabel_f1(tags, class_logits > 0).mean()
    yield Check("cls_score", f1, golden.output("cls_score"), "abs", 1e-3)


@torch.no_grad()
def seeds(golden: Golden) -> Iterable[Check]:
    network, x, tags = model(golden), images(golden), golden.tensor("cls_label")
    config = golden.meta["config"]
    square = resize_bilinear(x, (config["base"],) * 2)
    size = (x.shape[2], x.shape[3])
    single = ViewPlan(scales=(1.0,))
    maps = network.maps(square, ("lam",)) | network.maps(square, ("cam",), single)
    lam, cam = (resize_bilinear(maps[kind], size) for kind in ("lam", "cam"))
    yield Check("lam", lam, golden.output("lam"), "abs", 1e-4)
    for name, value in (("lam_label", lam), ("cam_label", cam)):
        labels = labels_from_maps(value, tags, config["bkg_thre"])
        yield Check(name, labels, golden.output(name), "mismatch", 1e-3)
    logits, mask = network.classify(square), network.segment(square).argmax(1)
    yield Check("cls_logits", logits, golden.output("cls_logits"), "rel", 5e-5)
    yield Check("seg_argmax", mask, golden.output("seg_argmax"), "mismatch", 1e-3)
    negative = -logits.abs()
    for name, class_logits, labels in (
        ("classes_train_tool", logits, mask),
        ("classes_test75_tool", logits, mask),
        ("classes_map_a_train_tool_negcls", negative, golden.tensor("map_a")[None]),
        ("classes_map_a_test75_tool", logits, golden.tensor("map_a")[None]),
        ("classes_map_b_train_tool_negcls", negative, golden.tensor("map_b")[None]),
        ("classes_map_b_test75_tool", logits, golden.tensor("map_b")[None]),
    ):
        rule = ("mask", 4) if "test75" in name else ("classifier", 5)
        yield Check(name, predicted_tags(class_logits, labels, *rule), golden.output(name), "exact")
    # The background is 1 - max: where a map is nearly 1, a difference of 3e-6 in the LAM moves its logarithm
    # and q by 4e-3. So q is compared on the stored LAM, the labels on both.
    q, labels = _crf_on_lam(golden, golden.output("lam"), tags)
    yield Check("crf_q", q, golden.output("crf_q"), "abs", 1e-3)
    yield Check("crf_label", labels, golden.output("crf_label"), "mismatch", 3e-3)
    _, labels = _crf_on_lam(golden, lam, tags)
    yield Check("crf_label from our LAM", labels, golden.output("crf_label"), "mismatch", 3e-3)


def _crf_on_lam(golden: Golden, lam: Tensor, tags: Tensor) -> tuple[Tensor, Tensor]:
    present = tags[0].nonzero()[:, 0]
    chosen = lam[0, present]
    planes = torch.cat([1 - chosen.amax(0, keepdim=True), chosen])
    image = golden.tensor("image_u8")[0]
    q = dense_crf(image, unary_from_probabilities(planes), PRESETS["more_seeds"])
    names = torch.cat([torch.zeros(1, dtype=torch.int64), present + 1])
    return q, names[q.argmax(0)]


@torch.no_grad()
def segmentation(golden: Golden) -> Iterable[Check]:
    network, x = model(golden), images(golden)
    size = (x.shape[2], x.shape[3])
    sizes = view_sizes(*size, golden.meta["config"]["scales"], base=golden.meta["config"]["base"])
    logits = segment_views(network.segment, x, sizes, size)
    yield Check("logits", logits, golden.output("logits"), "rel", 5e-5)
    yield Check("label", logits.argmax(1), golden.output("label"), "mismatch", 1e-3)
    image = golden.tensor("image_u8")[0]
    for sharpness, suffix in ((1, ""), (12, "_sharp")):
        probs = (sharpness * logits[0]).softmax(0)
        q = dense_crf(image, unary_from_probabilities(probs), stored_crf(golden.meta["config"]["crf"]))
        yield Check(f"crf_label{suffix}", q.argmax(0), golden.output(f"crf_label{suffix}"), "mismatch", 3e-3)
        if suffix:
            # The stored copy is half precision, half a unit in its last place near 1 being 2.4e-4.
            stored = np.asarray(golden.outputs["crf_q_sharp"], dtype=np.float32)
            yield Check("crf_q_sharp", q, stored, "abs", 1e-3)


CASES: dict[str, Callable[[Golden], Iterable[Check]]] = {
    "more_voc_val": validation,
    "more_voc_lam_infer": seeds,
    "more_voc_seg_infer": segmentation,
}

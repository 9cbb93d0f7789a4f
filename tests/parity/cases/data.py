"""Stored metrics and training views against tagmask's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch

from tagmask.data.classes import voc_palette
from tagmask.data.transforms.base import CropDraw, Jitter, PadCropDraw, make_view
from tagmask.metrics.confusion import ConfusionMatrix, Scores
from tagmask.metrics.seeds import SweepResult, percent_steps, threshold_sweep
from tagmask.metrics.tags import average_precision, mean_average_precision, multilabel_f1
from tests.parity.golden import Check, Golden

TIGHT = 1e-9
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def _matrix(
    truths: Iterable, predictions: Iterable, classes: int, ignore_prediction: int | None = None
) -> ConfusionMatrix:
    matrix = ConfusionMatrix(classes, ignore_prediction=ignore_prediction)
    for truth, prediction in zip(truths, predictions, strict=True):
        matrix.update(preds=prediction, target=truth)
    return matrix


def _scores(prefix: str, golden: Golden, scores: Scores, scale: float = 1.0) -> Iterator[Check]:
    ours = {
        "pAcc": scores.pixel_accuracy,
        "mAcc": scores.mean_accuracy,
        "miou": scores.miou,
        "mIoU": scores.miou,
        "iou": scores.iou,
        "precision": scores.precision,
        "recall": scores.recall,
        "confusion": scores.confusion,
        "FP": scores.false_positive,
        "FN": scores.false_negative,
        "pixel_accuracy": scores.pixel_accuracy,
        "class_accuracy": scores.mean_accuracy,
        "fwiou": scores.frequency_weighted_iou,
        "Prediction": np.nanmean(scores.precision),
        "Recall": np.nanmean(scores.recall),
    }
    for key, value in ours.items():
        if prefix + key in golden.outputs:
            yield Check(
                prefix + key, np.asarray(value) * scale, golden.outputs[prefix + key], "abs", TIGHT * scale
            )


def confusion(golden: Golden) -> Iterator[Check]:
    images, classes = golden.numbers(r"gt_(\d+)"), golden.config["num_classes"]
    truths = [golden.inputs[f"gt_{j}"] for j in images]
    predictions = [golden.inputs[f"pred_{j}"] for j in images]
    matrix = _matrix(truths, predictions, classes)
    yield Check("confusion", matrix.counts, golden.outputs["confusion"], "exact")
    for original in ("MoRe", "afa"):
        yield from _scores(f"scores_{original}/", golden, matrix.compute("skip_truth"))
    undecided = [np.concatenate([np.full_like(p[:3], 255), p[3:]]) for p in predictions]
    pseudo = _matrix(truths, undecided, classes, ignore_prediction=255)
    for original in ("MoRe", "afa"):
        yield from _scores(f"pseudo_scores_{original}/", golden, pseudo.compute("skip_truth"))
    yield from _scores("evaluator/", golden, matrix.compute("nan", epsilon=1e-5))
    yield from _scores("eval_WeakTr/", golden, matrix.compute("nan"), 100)
    for original in ("AReAM", "MCTformer"):
        yield from _scores(f"eval_{original}/", golden, matrix.compute("zero"), 100)
    # The original scores an image without a prediction as if it were perfect; tagmask refuses to.
    flattered = _matrix(truths, [truths[0], *predictions[1:]], classes).compute("zero")
    yield from _scores("eval_AReAM_missing_first/", golden, flattered, 100)


def _maps(golden: Golden, names: tuple[str, str, str]) -> list[tuple]:
    cam, key, truth = names
    count = sum(name.startswith(truth) for name in golden.inputs)
    return [tuple(golden.inputs[f"{part}{j}"] for part in (cam, key, truth)) for j in range(count)]


def cam_sweep(golden: Golden) -> Iterator[Check]:
    images, classes = _maps(golden, ("cam_", "keys_", "gt_")), golden.config["num_classes"]

    def sweep(original: str, absent: str, **how: bool) -> SweepResult:
        count = len(golden.outputs[f"{original}/mIoU"])
        return threshold_sweep(images, classes, percent_steps(0, count), absent, **how)

    full = sweep("AReAM", "zero")
    yield Check("AReAM/mIoU", full.miou * 100, golden.outputs["AReAM/mIoU"], "abs", 1e-7)
    best = full.best()
    yield Check(
        "AReAM/best",
        [full.miou[best] * 100, full.thresholds[best]],
        golden.outputs["AReAM/best"],
        "abs",
        1e-7,
    )
    zero = sweep("MCTformer", "zero")
    for original, result in (("MCTformer", zero), ("TransCAM", sweep("TransCAM", "zero"))):
        yield Check(f"{original}/mIoU", result.miou * 100, golden.outputs[f"{original}/mIoU"], "abs", 1e-7)
    weak = sweep("WeakTr", "nan", softmax=True)
    yield Check("WeakTr/mIoU", weak.miou * 100, golden.outputs["WeakTr/mIoU"], "abs", 1e-7)
    for original, result in (("MCTformer", zero), ("WeakTr", weak)):
        key = f"{original}/best_threshold_count"
        yield Check(key, _stopped(result), golden.outputs[key], "abs", 1e-7)


def _stopped(result: SweepResult) -> list[float]:
    best = result.best(early_stop=True)
    return [result.miou[best] * 100, result.thresholds[best], result.evaluated(early_stop=True)]


def multilabel(golden: Golden) -> Iterator[Check]:
    score = multilabel_f1(golden.tensor("truth"), golden.tensor("prediction"))
    yield Check("score", score, golden.outputs["score"], "abs", TIGHT)
    yield Check("mean", score.mean(), golden.outputs["mean"], "abs", TIGHT)
    # Some rows of the stored decisions were emptied by hand; everywhere else they are logit > 0.
    decided, by_hand = golden.inputs["prediction"] > 0, ~(golden.inputs["prediction"] > 0).any(axis=1)
    same = ((golden.inputs["logits"] > 0) == decided).all(axis=1)
    yield Check("rows decided by logits, or emptied", same | by_hand, np.ones_like(same), "exact")
    by_logits = multilabel_f1(golden.tensor("truth"), golden.tensor("logits"))
    yield Check("score from logits", by_logits[same], golden.outputs["score"][same], "abs", TIGHT)


def more_metrics(golden: Golden) -> Iterator[Check]:
    classes = golden.config["num_classes"]
    scores = _matrix(golden.inputs["gt"], golden.inputs["pred"], classes).compute("skip_truth")
    yield from _scores("", golden, scores)
    f1 = multilabel_f1(golden.tensor("cls_true"), golden.tensor("cls_pred"))
    yield Check("f1_per_image", f1, golden.outputs["f1_per_image"], "abs", TIGHT)


def afa_metrics(golden: Golden) -> Iterator[Check]:
    truth = golden.inputs["gt"].copy()
    classes = golden.config["num_classes"]
    truth[truth >= classes] = 255
    scores = _matrix(truth, golden.inputs["pred"], classes).compute("skip_truth")
    pseudo = _matrix(truth, golden.inputs["pseudo"], classes, ignore_prediction=255).compute("skip_truth")
    yield from _scores("scores_", golden, scores)
    yield from _scores("pseudo_", golden, pseudo)
    f1 = multilabel_f1(golden.tensor("cls_true"), golden.tensor("cls_pred"))
    yield Check("f1", f1, golden.outputs["f1"], "abs", TIGHT)
    yield Check("colormap", voc_palette(), golden.outputs["colormap"], "exact")


def _normalised(image: torch.Tensor, golden: Golden | None = None) -> torch.Tensor:
    """With the mean and deviation that a file gives for levels of 0..255, else ImageNet's."""
    if golden is None or "mean" not in golden.config:
        return (image - MEAN) / STD
    mean, std = (torch.tensor(golden.config[key]).view(3, 1, 1) / 255 for key in ("mean", "std"))
    return (image - mean) / std


def _jitter(values: dict | None) -> Jitter | None:
    return None if values is None else Jitter(**(values | {"order": tuple(values["order"])}))


def more_voc_aug(golden: Golden) -> Iterator[Check]:
    view = make_view("resized_crop", golden.meta["config"]["out_size"])
    for i, drawn in enumerate(golden.meta["params"]):
        draw = CropDraw(*drawn["crop_top_left_h_w"], flip=drawn["flip"], jitter=_jitter(drawn["jitter"]))
        ours = _normalised(view.apply(golden.inputs["image_u8"], draw).image)
        yield Check(f"views[{i}]", ours, golden.outputs["views"][i], "abs", 1e-6)


def more_coco_aug(golden: Golden) -> Iterator[Check]:
    view = make_view("scale_pad_crop", golden.meta["config"]["crop_size"])
    for i, drawn in enumerate(golden.meta["params"]):
        pad, crop = tuple(drawn["pad_top_left"]), tuple(drawn["crop_top_left"])
        draw = PadCropDraw(drawn["scale"], drawn["flip"], pad, crop, _jitter(drawn["jitter"]))
        ours = view.apply(golden.inputs["image_u8"], draw)
        yield Check(f"crops[{i}]", _normalised(ours.image), golden.outputs["crops"][i], "abs", 1e-6)
        yield Check(f"img_box[{i}]", ours.box, golden.outputs["img_box"][i], "exact")


def afa_transforms(golden: Golden) -> Iterator[Check]:
    size = golden.meta["config"]["crop_size"]
    view = make_view("scale_crop", size)
    for i in golden.numbers(r"image_u8_(\d+)"):
        scale, mirror, *places = golden.outputs[f"draws_{i}"].tolist()
        pad, crop = (int(places[0]), int(places[1])), (int(places[2]), int(places[3]))
        ours = view.apply(golden.inputs[f"image_u8_{i}"], PadCropDraw(scale, mirror > 0.5, pad, crop))
        levels = (ours.image.permute(1, 2, 0) * 255).round().byte()
        yield Check(f"cropped_u8_{i}", levels, golden.outputs[f"cropped_u8_{i}"], "exact")
        # The original's box may reach past the crop; slicing clips it there, tagmask says it clipped.
        clipped = np.clip(golden.outputs[f"img_box_{i}"], 0, size)
        yield Check(f"img_box_{i}", ours.box, clipped, "exact")
        made = _normalised(ours.image, golden)
        yield Check(f"net_input_{i}", made, golden.outputs[f"net_input_{i}"], "abs", 1e-5)


def aream_metrics(golden: Golden) -> Iterator[Check]:
    truth, scores = golden.tensor("labels"), golden.tensor("logits").sigmoid()
    each = average_precision(truth, scores)
    yield Check("ap_per_image", each[~each.isnan()], golden.outputs["ap_per_image"], "abs", TIGHT)
    mean = mean_average_precision(truth, scores, over="images")
    yield Check("map", mean, golden.outputs["map"], "abs", TIGHT)
    f1 = multilabel_f1(truth, golden.tensor("logits")).mean()
    yield Check("f1_samples", f1, golden.outputs["f1_samples"], "abs", TIGHT)


def aream_evaluate(golden: Golden) -> Iterator[Check]:
    images = _maps(golden, ("cam", "key", "gt"))
    missing = golden.meta["missing_index"]
    # A missing prediction counts as perfect in the original; here that is spelled out as maps.
    truth = images[missing][2]
    present = [c for c in np.unique(truth) if 0 < c < 255]
    perfect = np.stack(
        [(truth == c).astype(np.float32) for c in present] or [np.zeros(truth.shape, np.float32)]
    )
    images[missing] = (perfect, np.array(present or [1]) - 1, truth)
    classes = _classes(golden, images)
    result = threshold_sweep(
        images, classes, percent_steps(golden.meta["start"], golden.meta["stop"]), "zero"
    )
    yield Check("miou", result.miou * 100, golden.outputs["miou"], "abs", 1e-7)
    best = result.best()
    yield Check("best", result.miou[best] * 100, golden.outputs["best"], "abs", 1e-7)
    yield Check("best_threshold", result.thresholds[best], golden.outputs["best_threshold"], "abs", TIGHT)


def mctformer_evaluate(golden: Golden) -> Iterator[Check]:
    images, count = _maps(golden, ("cam", "key", "gt")), len(golden.outputs["miou"])
    classes = len(golden.outputs["iou_t40"])
    result = threshold_sweep(images, classes, percent_steps(0, count), "zero")
    yield Check("miou", result.miou * 100, golden.outputs["miou"], "abs", 1e-7)
    best = result.best(early_stop=True)
    yield Check("greedy_best", result.miou[best] * 100, golden.outputs["greedy_best"], "abs", 1e-7)
    yield Check("greedy_threshold", result.thresholds[best], golden.outputs["greedy_threshold"], "abs", TIGHT)
    for level in golden.numbers(r"iou_t(\d+)"):
        at = result.scores[level]
        for name, value in (("iou", at.iou), ("fp", at.false_positive), ("fn", at.false_negative)):
            yield Check(f"{name}_t{level}", value * 100, golden.outputs[f"{name}_t{level}"], "abs", 1e-7)


def transcam_evaluate(golden: Golden) -> Iterator[Check]:
    images, count = _maps(golden, ("cam", "key", "gt")), len(golden.outputs["miou"])
    result = threshold_sweep(images, _classes(golden, images), percent_steps(0, count), "zero")
    yield Check("miou", result.miou * 100, golden.outputs["miou"], "abs", 1e-7)


def _classes(golden: Golden, images: list[tuple]) -> int:
    """Classes with the background, VOC's 21 unless the file knows others."""
    largest = max(int(truth[truth < 255].max(initial=0)) for _, _, truth in images)
    return int(golden.config.get("num_classes", max(21, largest + 1)))


CASES: dict[str, Callable[[Golden], Iterable[Check]]] = {
    "metrics_confusion": confusion,
    "metrics_cam_sweep": cam_sweep,
    "metrics_multilabel": multilabel,
    "more_metrics": more_metrics,
    "afa_metrics": afa_metrics,
    "afa_transforms": afa_transforms,
    "more_voc_aug": more_voc_aug,
    "more_coco_aug": more_coco_aug,
    "aream_mctformer_metrics": aream_metrics,
    "aream_mctformer_evaluate": aream_evaluate,
    "mctformer_v2_evaluate": mctformer_evaluate,
    "transcam_evaluate": transcam_evaluate,
}

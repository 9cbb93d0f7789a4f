"""WeakTr's stored views, labels and scores."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tagmask.backbones.vit import ViT
from tagmask.data.transforms.base import CropDraw, make_view
from tagmask.data.transforms.imagenet import Change, Erasure, ImageNetDraw
from tagmask.data.transforms.short_side_crop import recoloured
from tagmask.inference.crf import refine_by_crf
from tagmask.metrics.confusion import ConfusionMatrix
from tagmask.metrics.seeds import ThresholdSweep, percent_steps
from tagmask.ops.crf_presets import PRESETS
from tagmask.ops.labels import labels_from_maps
from tagmask.ops.pillow import pillow_bicubic
from tests.parity.golden import Check, Golden

MEAN = torch.tensor([123.68, 116.28, 103.53]).view(3, 1, 1) / 255
IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
STD = torch.tensor([58.40, 57.12, 57.38]).view(3, 1, 1) / 255


class LegacyDraws:
    """NumPy's old global generator behind the new one's names, to draw what the original drew."""

    def __init__(self, seed: int) -> None:
        self._state = np.random.RandomState(seed)
        self.uniform, self.random = self._state.uniform, self._state.random_sample
        self.integers = self._state.randint


def views(golden: Golden) -> Iterable[Check]:
    config = golden.meta["config"]
    view: Any = make_view("short_side_crop", config["crop_size"], short_side=config["im_size"])
    for index in range(config["n_images"]):
        image, label = golden.inputs[f"image_{index}"], golden.inputs[f"gt_{index}"]
        for seed in config["seeds"]:
            key = f"img{index}_seed{seed}"
            stored = {
                k.removeprefix(f"{key}/"): v for k, v in golden.outputs.items() if k.startswith(f"{key}/")
            }
            draw = view.draw(label.shape, LegacyDraws(seed), label)
            yield Check(f"{key}/size", draw.size, stored["resize_scale_and_size"][2:], "exact")
            made = view.apply(image, draw, label)
            flipped = stored["RandomFlip_bgr"]
            yield Check(f"{key}/flip", draw.flip, (flipped != stored["RandomCrop_bgr"]).any(), "exact")
            before = np.ascontiguousarray(flipped[..., ::-1])
            theirs = stored["PhotoMetricDistortion_bgr"][..., ::-1]
            gaps = np.abs(recoloured(before, draw.colour).astype(int) - theirs)
            yield from _levels(f"{key}/colour", gaps)
            final = torch.from_numpy(stored["final_image_stride2"]) * STD + MEAN
            gaps = ((made.image[:, ::2, ::2] - final) * 255).abs().round().int().numpy()
            yield from _levels(f"{key}/final_image", gaps)
            yield Check(f"{key}/final_target", made.label, stored["final_target"], "exact")


def _levels(name: str, gaps: np.ndarray) -> Iterable[Check]:
    """One grey level on one pixel in a hundred is what another OpenCV release may change."""
    yield Check(name, gaps.max(), 0, "abs", 1)
    yield Check(f"{name} pixels", gaps > 0, np.zeros_like(gaps, dtype=bool), "mismatch", 0.01)


def metric(golden: Golden) -> Iterable[Check]:
    config = golden.meta["config"]
    matrix = ConfusionMatrix(config["n_cls"], 255)
    for index in range(config["n_images"]):
        matrix.update(preds=golden.tensor(f"pred_{index}"), target=golden.tensor(f"gt_{index}"))
    scores = matrix.compute("nan")
    ours = {
        "pixel_accuracy": scores.pixel_accuracy,
        "mean_accuracy": scores.mean_accuracy,
        "mean_iou": scores.miou,
    }
    for name, value in ours.items():
        yield Check(name, round(100 * value, 2), golden.outputs[name], "exact")
    yield Check("cat_iou", scores.iou, golden.outputs["cat_iou"], "abs", 1e-6)


def labels(golden: Golden) -> Iterable[Check]:
    config = golden.meta["config"]
    count, indices = config["num_cls"], range(config["n_images"])
    for threshold in config["thresholds"]:
        key, matrix = f"t{round(100 * threshold)}", ConfusionMatrix(count)
        for index in indices:
            made = _label(golden, index, threshold)
            yield Check(f"label_{key}_{index}", made, golden.output(f"label_{key}_{index}"), "exact")
            matrix.update(preds=made, target=golden.tensor(f"gt_{index}"))
        scores = matrix.compute("nan")
        yield Check(f"iou_{key}", 100 * scores.iou, golden.outputs[f"iou_{key}"], "abs", 1e-9)
        means = [float(np.nanmean(part)) for part in (scores.precision, scores.recall)]
        means = 100 * np.array([scores.miou, scores.false_positive, scores.false_negative, *means])
        stored = golden.outputs[f"miou_fp_fn_prec_rec_{key}"]
        yield Check(f"means_{key}", means, stored, "abs", 1e-9)
    yield from _cleaned(golden)
    yield from _search(golden)


def _label(golden: Golden, index: int, threshold: float) -> Tensor:
    maps, keys = golden.tensor(f"cam_{index}")[None], golden.tensor(f"keys_{index}").long()
    return labels_from_maps(maps, torch.ones(1, len(keys)), threshold, keys=keys[None])[0]


def _cleaned(golden: Golden) -> Iterable[Check]:
    """What refine does with a parameter set for hard labels."""
    config = golden.meta["config"]
    kinds = [kind for kind in ("voc", "coco") if f"crf_{kind}_label_0" in golden.outputs]
    for kind in kinds:
        for index in range(config["n_images"]):
            images = golden.tensor(f"image_{index}").permute(2, 0, 1)[None] / 255
            maps, keys = golden.tensor(f"cam_{index}")[None], golden.tensor(f"keys_{index}").long()[None]
            made = refine_by_crf(
                images, maps, keys, (config["crf_threshold"],), None, PRESETS[f"weaktr_label_{kind}"]
            )
            stored = golden.output(f"crf_{kind}_label_{index}")
            yield Check(f"crf_{kind}_label_{index}", made[0], stored, "mismatch", 5e-3)


def _search(golden: Golden) -> Iterable[Check]:
    config = golden.meta["config"]
    sweep = ThresholdSweep(config["num_cls"], percent_steps(*config["curve"]), softmax=True)
    for index in range(config["n_images"]):
        parts = (golden.inputs[f"{name}_{index}"] for name in ("cam", "keys", "gt"))
        sweep.update(*parts)
    result = sweep.compute("nan")
    seen, best = result.evaluated(early_stop=True), result.best(early_stop=True)
    curve = np.stack([np.array(result.thresholds), 100 * result.miou], 1)
    yield Check("curve", curve[:seen], golden.outputs["curve_visited_threshold_miou"], "abs", 1e-9)
    yield Check("best", curve[best, ::-1], golden.outputs["curve_best_miou_threshold"], "abs", 1e-9)


def init(golden: Golden) -> Iterable[Check]:
    state = {name: golden.tensor(name) for name in ("pos_embed", "cls_token")}
    classes, width = golden.meta["config"]["num_classes"], state["cls_token"].shape[2]
    for size in golden.numbers(r"pos_embed_(\d+)"):
        grid = (size // 16, size // 16)
        encoder = ViT(f"vit:patch=16,dim={width},depth=1,heads=2", classes, 0, grid=grid)
        own = {k: v for k, v in encoder.state_dict().items() if k not in state}
        encoder.load_plain(own | state, "the golden")
        for name in state:
            ours = getattr(encoder, name)
            yield Check(f"{name}_{size}", ours, golden.output(f"{name}_{size}"), "abs", 1e-5)


def augment(golden: Golden) -> Iterable[Check]:
    picture = Image.fromarray(golden.inputs["image_0"])
    side = 4 * next(v for k, v in golden.outputs.items() if k.startswith("train_seed")).shape[1]
    view: Any = make_view("imagenet", side)
    for seed in golden.meta["config"]["seeds"]:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002  (timm draws from the global generators)
        torch.manual_seed(seed)
        crop, changes = _timm_crop(picture), _timm_changes()
        made = view.apply_all(picture, ImageNetDraw(crop, changes)).image
        ours = (made - IMAGENET_MEAN) / IMAGENET_STD
        if (box := _timm_box(side)) is not None:
            top, left, height, width = box
            # The view draws its noise from a generator of its own: only where it goes can be compared.
            noise = torch.empty(3, height, width).normal_()
            erased = view.apply_all(picture, ImageNetDraw(crop, changes, Erasure(*box, seed=0))).image
            outside = torch.ones(side, side, dtype=torch.bool)
            outside[top : top + height, left : left + width] = False
            yield Check(f"seed{seed}/kept", erased[:, outside], made[:, outside], "exact")
            ours[:, top : top + height, left : left + width] = noise
        stored = golden.output(f"train_seed{seed}_stride4")
        yield Check(f"train_seed{seed}", ours[:, ::4, ::4], stored, "abs", 1e-5)
    # Validation resizes to 256 / 224 of the side before it crops the centre.
    short = side * 256 // 224
    size = (picture.height * short // min(picture.size), picture.width * short // min(picture.size))
    large = pillow_bicubic(torch.from_numpy(golden.inputs["image_0"]).permute(2, 0, 1)[None] / 255, size)[0]
    top, left = (round((length - side) / 2) for length in size)
    centre = (large[:, top : top + side, left : left + side] - IMAGENET_MEAN) / IMAGENET_STD
    stored = golden.output("val_center_crop_stride2")
    yield Check("val_center_crop", centre[:, ::2, ::2], stored, "abs", 1e-5)


def _timm_crop(picture: Image.Image) -> CropDraw:
    """The crop and the mirror timm's transform draws."""
    width, height = picture.size
    for _ in range(10):
        area = random.uniform(0.08, 1.0) * width * height
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if w <= width and h <= height:
            top, left = random.randint(0, height - h), random.randint(0, width - w)
            return CropDraw(top, left, h, w, bool(torch.rand(1) < 0.5))
    raise AssertionError("no crop fits")


# timm's operations in its order, by our names, and whether they are drawn a sign.
_OPERATIONS = [
    *(("auto_contrast", False), ("equalize", False), ("invert", False), ("rotate", True)),
    *(("posterize", False), ("solarize", False), ("solarize_add", False), ("colour", True)),
    *(("contrast", True), ("brightness", True), ("sharpness", True), ("shear_x", True)),
    *(("shear_y", True), ("translate_x", True), ("translate_y", True)),
]


def _timm_changes() -> tuple[Change, ...]:
    changes = []
    for index in np.random.choice(len(_OPERATIONS), 2):  # noqa: NPY002
        if random.random() > 0.5:
            continue
        name, signed = _OPERATIONS[index]
        strength = min(max(random.gauss(9, 0.5), 0), 10)
        sign = -1 if signed and random.random() > 0.5 else 1
        changes.append(Change(name, strength, sign, bicubic=True))
    return tuple(changes)


def _timm_box(side: int) -> tuple[int, int, int, int] | None:
    if random.random() > 0.25:
        return None
    for _ in range(10):
        area = random.uniform(0.02, 1 / 3) * side * side
        ratio = math.exp(random.uniform(math.log(0.3), math.log(1 / 0.3)))
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if width < side and height < side:
            return random.randint(0, side - height), random.randint(0, side - width), height, width
    return None


CASES = {
    "weaktr_seg_data": views,
    "weaktr_seg_metric": metric,
    "weaktr_cam_label_voc": labels,
    "weaktr_cam_label_coco": labels,
    "weaktr_cam_init": init,
    "weaktr_cam_augment": augment,
}

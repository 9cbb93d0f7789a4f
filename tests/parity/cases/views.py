"""Training views of the multi-stage methods against stored crops and labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from tagmask.data.transforms.affinity_crop import AffinityDraw
from tagmask.data.transforms.base import PadCropDraw, make_view
from tagmask.data.transforms.batch_scale_crop import BatchScaleDraw
from tagmask.data.transforms.long_side_crop import LongSideDraw, Place
from tagmask.ops.affinity_pairs import pair_labels
from tests.parity.golden import Check, Golden

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def normalised(image: Tensor) -> Tensor:
    return (image - MEAN) / STD


def grey_levels(image: Tensor) -> Tensor:
    return (image.permute(1, 2, 0) * 255).round().byte()


def affinity(golden: Golden) -> Iterable[Check]:
    scores = np.concatenate([golden.inputs["low_alpha_scores"], golden.inputs["high_alpha_scores"]])
    for case in golden.numbers(r"case(\d+)/crop_size"):
        view = make_view("affinity_crop", int(golden.inputs[f"case{case}/crop_size"]))
        to_y, _, to_x, _, from_y, _, from_x, _ = golden.inputs[f"case{case}/box"].tolist()
        draw = AffinityDraw(Place(to_x, from_x), Place(to_y, from_y), bool(golden.inputs[f"case{case}/flip"]))
        made = view.apply(golden.inputs["image"], draw, scores)
        stored = golden.output(f"case{case}/image_crop").float()
        yield Check(f"case{case}/image_crop", normalised(made.image), stored, "abs", 2e-3)
        cells = made.label[::8, ::8]
        stored_label = golden.output(f"case{case}/label").long()
        yield Check(f"case{case}/label", cells, stored_label, "exact")
        for name, ours in zip(("bg_pos", "fg_pos", "neg"), pair_labels(cells[None]), strict=True):
            key = f"case{case}/{name}"
            yield Check(key, ours[0].byte(), golden.output(key), "exact")


def segment(golden: Golden) -> Iterable[Check]:
    view = make_view("batch_scale_crop", golden.meta["crop"])
    for case in golden.numbers(r"case(\d+)/scale"):
        get = {key: golden.inputs[f"case{case}/{key}"] for key in ("scale", "flip", "crop_yx")}
        for index in golden.numbers(r"im(\d+)/image"):
            top, left = get["crop_yx"][index].tolist()
            draw = BatchScaleDraw(float(get["scale"]), bool(get["flip"][index]), (top, left))
            image, label = (golden.inputs[f"im{index}/{key}"] for key in ("image", "label"))
            made = view.apply(image, draw, label)
            stored = golden.output(f"case{case}/images")[index]
            yield Check(f"case{case}/image{index}", normalised(made.image), stored, "abs", 1e-5)
            stored = golden.output(f"case{case}/labels")[index].long()
            yield Check(f"case{case}/label{index}", made.label, stored, "exact")


def transcam(golden: Golden) -> Iterable[Check]:
    image = golden.inputs["image"]
    limits = (golden.meta["min_long"], golden.meta["max_long"])
    view = make_view("long_side_crop", golden.meta["crop_size"], long_side=limits)
    for seed in golden.meta["seeds"]:
        long_side = int(golden.outputs[f"s{seed}_long"])
        size = view.scaled(image.shape[:2], long_side)
        yield Check(f"s{seed}_size", size, golden.output(f"s{seed}_size"), "exact")
        to_y, to_x, from_y, from_x = golden.outputs[f"s{seed}_offsets"].tolist()
        draw = LongSideDraw(long_side, False, Place(to_x, from_x), Place(to_y, from_y))
        made = normalised(view.apply(image, draw).image)
        stored = golden.output(f"s{seed}_crop").permute(2, 0, 1)
        yield Check(f"s{seed}_crop", made, stored, "abs", 1e-5)


def aream(golden: Golden) -> Iterable[Check]:
    view = make_view("scale_crop", golden.meta["crop_size"], resample="bicubic")
    for seed in golden.meta["seeds"]:
        get = {
            key: golden.outputs[f"s{seed}_{key}"]
            for key in ("scale", "flip", "paste", "start", "box", "crop")
        }
        pad, crop = get["paste"].tolist(), get["start"].tolist()
        draw = PadCropDraw(float(get["scale"]), bool(get["flip"]), tuple(pad), tuple(crop))
        made = view.apply(golden.inputs["image"], draw)
        yield Check(f"s{seed}_box", made.box, get["box"], "exact")
        yield Check(f"s{seed}_crop", grey_levels(made.image), get["crop"], "exact")


CASES: dict[str, Callable[[Golden], Iterable[Check]]] = {
    "psa_labels": affinity,
    "seg_augment": segment,
    "transcam_augment": transcam,
    "aream_conformer_augment": aream,
}

"""Refinement and regularisation: PAR, dense CRF and dense energy against stored outputs of the originals."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tagmask.losses.energy import dense_energy_loss
from tagmask.ops.crf import CRF, crf_on_labels, dense_crf
from tagmask.ops.crf_presets import PRESETS, CRFParams, unary_from_labels, unary_from_probabilities
from tagmask.ops.lattice import Lattice
from tagmask.ops.pixel_refinement import apply_par, par_kernel
from tagmask.ops.resize import resize_bilinear
from tests.parity.cases.afa_network import stored_crf
from tests.parity.golden import Check, Golden

MEAN = [123.675, 116.28, 103.53]
STD = [58.395, 57.12, 57.375]


def stored_params(name: str, stored: dict[str, Any]) -> CRFParams:
    """The parameters that a file says it was made with; which classes compete is the preset's."""
    names = ("gauss_sxy", "gauss_compat", "bilateral_sxy", "bilateral_srgb", "bilateral_compat", "iterations")
    kind = "labels" if stored["unary"] == "label" else "probabilities"
    return CRFParams(*(stored[key] for key in names), unary=kind, classes=PRESETS[name].classes)


def par_case(golden: Golden) -> Iterable[Check]:
    config = golden.meta["config"]
    images = golden.tensor("images_u8").permute(0, 3, 1, 2).float()
    if config["image_scale"].startswith("images_u8/255"):
        images = images / 255
    size = (images.shape[2], images.shape[3])
    maps = resize_bilinear(golden.tensor("masks"), size, align_corners=True)
    kernel = par_kernel(images, config["dilations"])
    if "kernel" in golden.outputs:
        yield Check("kernel", kernel[:1], golden.output("kernel"), "abs", 1e-4)
    for name, iterations in (("refined_1iter", 1), ("refined", config["num_iter"])):
        ours = apply_par(kernel, maps, config["dilations"], iterations)
        yield Check(name, ours, golden.output(name), "abs", 1e-4)


def crf_params(golden: Golden) -> Iterable[Check]:
    image, count = golden.tensor("image"), golden.meta["n_labels"]
    soft = unary_from_probabilities(golden.tensor("probs"), golden.meta["clip"])
    hard = unary_from_labels(golden.tensor("labels"), count, golden.meta["gt_prob"])
    yield Check("unary/softmax", soft.flatten(1), golden.output("unary/softmax"), "abs", 1e-5)
    yield Check("unary/label", hard.flatten(1), golden.output("unary/label"), "abs", 1e-6)
    for key in golden.outputs:
        kind, _, name = key.partition("/")
        if kind == "label":
            params = stored_params(name, golden.meta["params"][name])
            ours = dense_crf(image, hard if params.unary == "labels" else soft, params)
            yield Check(key, ours.argmax(0), golden.output(key), "mismatch", 5e-4)
            if f"marginals/{name}" in golden.outputs:
                marginals = golden.output(f"marginals/{name}")
                yield Check(f"marginals/{name}", ours, marginals, "abs", 2e-5)


def crf_21(golden: Golden) -> Iterable[Check]:
    image, unary = golden.tensor("image"), unary_from_probabilities(golden.tensor("probs"))
    for name in golden.meta["params"]:
        ours = dense_crf(image, unary, stored_params(name, golden.meta["params"][name]))
        yield Check(f"marginals/{name}", ours, golden.output(f"marginals/{name}"), "abs", 2e-5)
        yield Check(f"label/{name}", ours.argmax(0), golden.output(f"label/{name}"), "mismatch", 5e-4)


def crf_iterations(golden: Golden) -> Iterable[Check]:
    image, unary = golden.tensor("image"), unary_from_probabilities(golden.tensor("probs"))
    for name, stored in golden.meta["params"].items():
        crf = CRF(image, stored_params(name, stored))
        for count in golden.numbers(rf"{name}/marginals_after_(\d+)"):
            key = f"{name}/marginals_after_{count}"
            yield Check(key, crf.marginals(unary, count), golden.output(key), "abs", 1e-5)
        pixels = torch.from_numpy(np.indices(image.shape[:2])[::-1].copy()).flatten(1).t().float()
        colours = image.flatten(0, 1).float() / stored["bilateral_srgb"]
        features = {
            "gaussian": pixels / stored["gauss_sxy"],
            "bilateral": torch.cat([pixels / stored["bilateral_sxy"], colours], 1),
        }
        for kind, points in features.items():
            yield from lattice_checks(golden, f"{name}/{kind}", Lattice(points))


def lattice_checks(golden: Golden, prefix: str, lattice: Lattice) -> Iterable[Check]:
    size = golden.inputs["image"].shape[:2]
    ones = lattice.filter(torch.ones(1, lattice.num_points)).view(*size)
    values = lattice.filter(golden.tensor("values").t()).t()
    count = golden.output(f"{prefix}_num_vertices")
    yield Check(f"{prefix}_num_vertices", torch.tensor(lattice.num_vertices), count, "exact")
    for name, ours in (("filter_of_ones", ones), ("filter_of_values", values)):
        yield Check(f"{prefix}_{name}", ours, golden.output(f"{prefix}_{name}"), "rel", 1e-5)
    norm = golden.output(f"{prefix}_norm")
    yield Check(f"{prefix}_norm", (ones + 1e-20).rsqrt(), norm, "rel", 1e-5)
    if f"{prefix}_barycentric" in golden.outputs:
        stored = golden.output(f"{prefix}_barycentric")
        # Reading multiplies by 1 / (1 + 2^-d), which is not exactly invertible.
        gain = 1.0 / (1.0 + 2.0 ** (1 - stored.shape[1]))
        yield Check(f"{prefix}_barycentric", lattice._tables.read_weights / gain, stored, "abs", 2e-7)


def cam_labels(golden: Golden, names: tuple[str, str], limit: float, share: float) -> Iterable[Check]:
    cam, keys = golden.tensor("cam"), golden.tensor("keys" if "keys" in golden.inputs else "key")
    stored, params = golden.meta.get("params"), PRESETS["psa_softmax"]
    crf = CRF(golden.tensor("image"), stored_params("psa_softmax", stored) if stored else params)
    for kind in (key.removeprefix(names[0]) for key in golden.outputs if key.startswith(names[0])):
        value = float(kind.removeprefix("alpha").removeprefix("score"))
        background = (1 - cam.amax(0, keepdim=True)) ** value
        if kind.startswith("score"):
            background = torch.full_like(background, value)
        scores = crf.marginals(unary_from_probabilities(torch.cat([background, cam])))
        labels = torch.cat([keys.new_zeros(1), keys + 1])[scores.argmax(0)]
        yield Check(f"{names[0]}{kind}", scores, golden.output(f"{names[0]}{kind}"), "abs", limit)
        yield Check(f"{names[1]}{kind}", labels, golden.output(f"{names[1]}{kind}"), "mismatch", share)


def crf_cam_alpha(golden: Golden) -> Iterable[Check]:
    return cam_labels(golden, ("scores/", "label/"), 2e-5, 5e-4)


def aream_crf(golden: Golden) -> Iterable[Check]:
    return cam_labels(golden, ("prob_", "label_"), 1e-3, 5e-3)


def afa_crf(golden: Golden) -> Iterable[Check]:
    image, logit = golden.tensor("image_u8"), golden.tensor("logit")
    size = (image.shape[0], image.shape[1])
    probs = torch.softmax(resize_bilinear(logit.unsqueeze(0), size)[0], dim=0)
    unary = unary_from_probabilities(probs)
    test = dense_crf(image, unary, stored_crf(golden.meta["config"]["test"]))
    hard = crf_on_labels(
        image, golden.tensor("hard_label"), golden.meta["config"]["n_labels_hard"], PRESETS["label_50_5"]
    )
    helper = dense_crf(image, unary, PRESETS["psa_softmax"]).argmax(0)
    yield Check("prob_f16", test, golden.output("prob_f16"), "abs", 2e-3)
    for name, ours in (("pred", test.argmax(0)), ("pred_inference", helper), ("pred_from_label", hard)):
        yield Check(name, ours, golden.output(name), "mismatch", 5e-3)


def weaktr_crf(golden: Golden) -> Iterable[Check]:
    for index in range(golden.meta["config"]["n_images"]):
        image, keys = golden.tensor(f"image_{index}"), golden.tensor(f"keys_{index}")
        unary = unary_from_probabilities(golden.tensor(f"prob_{index}"))
        for kind in ("voc", "coco"):
            ours = dense_crf(image, unary, PRESETS[f"weaktr_{kind}"])
            marginals, labels = (golden.output(f"{kind}_{part}_{index}") for part in ("q", "label"))
            apart = (ours - marginals).abs() > 2e-2
            yield Check(f"{kind}_q_{index}", apart, torch.zeros_like(apart), "mismatch", 1e-2)
            yield Check(f"{kind}_label_{index}", keys[ours.argmax(0)], labels, "mismatch", 5e-3)


def energy(rule: str, loss_tolerance: float, grad_tolerance: float) -> Callable[[Golden], Iterable[Check]]:
    def case(golden: Golden) -> Iterable[Check]:
        config = golden.config
        mean, std = (
            torch.tensor(config.get(key, usual)).view(1, 3, 1, 1)
            for key, usual in (("mean", MEAN), ("std", STD))
        )
        how = {key: config[key] for key in ("weight", "sigma_rgb", "sigma_xy")}
        logits = golden.tensor("logit" if "logit" in golden.inputs else "seg_logit").requires_grad_()
        images = golden.tensor("image" if "image" in golden.inputs else "images") * std + mean
        boxes = golden.tensor("img_box").long() if "img_box" in golden.inputs else None
        how |= {"scale": config["scale_factor"], "size_rule": rule}
        loss = dense_energy_loss(logits, images / 255, golden.tensor("label"), boxes, **how)
        (grad,) = torch.autograd.grad(loss, logits)
        key = "grad_logit" if "grad_logit" in golden.outputs else "grad"
        yield Check("loss", loss.view(1), golden.output("loss"), "rel", loss_tolerance)
        yield Check(key, grad, golden.output(key), "rel", grad_tolerance)
        if "filtered" in golden.outputs:
            scaled, masked = golden.output("scaled_image"), golden.output("scaled_prob_masked")
            sigma = float(golden.outputs["sigma_xy_effective"])
            ours = bilateral(scaled, masked, config["sigma_rgb"], sigma)
            yield Check("filtered", ours, golden.output("filtered"), "rel", grad_tolerance)
        if "filter_input" in golden.outputs:
            scaled, values = golden.output("filter_image"), golden.output("filter_input")
            sigma = config["sigma_xy"] * config["scale_factor"]
            ours = bilateral(scaled, values, config["sigma_rgb"], sigma)
            yield Check("filter_output", ours, golden.output("filter_output"), "rel", grad_tolerance)

    return case


def energy_filter(golden: Golden) -> Iterable[Check]:
    for key in golden.outputs:
        rgb, xy = key.removeprefix("filtered/rgb").split("_xy")
        ours = bilateral(golden.tensor("image"), golden.tensor("values"), float(rgb), float(xy))
        yield Check(key, ours, golden.output(key), "rel", 1e-5)


def bilateral(images: Tensor, values: Tensor, sigma_rgb: float, sigma_xy: float) -> Tensor:
    height, width = images.shape[2:]
    place = torch.from_numpy(np.indices((height, width))[::-1].copy()).float() / sigma_xy
    place = place.expand(len(images), -1, -1, -1)
    features = torch.cat([place, images / sigma_rgb], 1).flatten(2).transpose(1, 2)
    return Lattice(features).filter(values.flatten(2)).view_as(values)


CASES: dict[str, Callable[[Golden], Iterable[Check]]] = {
    **{f"afa_par_{name}": par_case for name in ("voc", "coco", "4dil", "2dil", "1dil", "flat")},
    "crf_params": crf_params,
    "crf_21": crf_21,
    "crf_iterations": crf_iterations,
    "crf_cam_alpha": crf_cam_alpha,
    "aream_mctformer_crf": aream_crf,
    "afa_crf": afa_crf,
    "weaktr_seg_crf": weaktr_crf,
    "energy_more": energy("recomputed", 1e-5, 1e-5),
    "energy_odd_more": energy("recomputed", 1e-5, 1e-5),
    "energy_odd_afa": energy("given", 1e-5, 1e-5),
    "afa_energy_loss": energy("given", 1e-4, 1e-3),
    "energy_filter": energy_filter,
}

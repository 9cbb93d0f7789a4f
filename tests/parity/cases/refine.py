"""Refinement and regularisation: PAR, dense CRF and dense energy against stored outputs of the originals."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from tagmask.losses.energy import dense_energy_loss
from tagmask.ops.crf import CRF, crf_on_labels, dense_crf
from tagmask.ops.crf_presets import PRESETS, unary_from_labels, unary_from_probabilities
from tagmask.ops.lattice import Lattice
from tagmask.ops.pixel_refinement import apply_par, par_kernel
from tagmask.ops.resize import resize_bilinear
from tests.parity.golden import Check, Golden

MEAN = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)
STD = torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1)


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
    soft = unary_from_probabilities(golden.tensor("probs"))
    hard = unary_from_labels(golden.tensor("labels"), count)
    yield Check("unary/softmax", soft.flatten(1), golden.output("unary/softmax"), "abs", 1e-5)
    yield Check("unary/label", hard.flatten(1), golden.output("unary/label"), "abs", 1e-6)
    for key in golden.outputs:
        kind, _, name = key.partition("/")
        if kind == "label":
            params = PRESETS[name]
            ours = dense_crf(image, hard if params.unary == "labels" else soft, params)
            yield Check(key, ours.argmax(0), golden.output(key), "mismatch", 5e-4)
            if f"marginals/{name}" in golden.outputs:
                marginals = golden.output(f"marginals/{name}")
                yield Check(f"marginals/{name}", ours, marginals, "abs", 2e-5)


def crf_21(golden: Golden) -> Iterable[Check]:
    image, unary = golden.tensor("image"), unary_from_probabilities(golden.tensor("probs"))
    for name in golden.meta["params"]:
        ours = dense_crf(image, unary, PRESETS[name])
        yield Check(f"marginals/{name}", ours, golden.output(f"marginals/{name}"), "abs", 2e-5)
        yield Check(f"label/{name}", ours.argmax(0), golden.output(f"label/{name}"), "mismatch", 5e-4)


def crf_iterations(golden: Golden) -> Iterable[Check]:
    image, unary = golden.tensor("image"), unary_from_probabilities(golden.tensor("probs"))
    for name, stored in golden.meta["params"].items():
        crf = CRF(image, PRESETS[name])
        for count in (0, 1, 2, 5):
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


def cam_labels(golden: Golden, kinds: dict[str, float], names: tuple[str, str], limit: float, share: float):
    cam, keys = golden.tensor("cam"), golden.tensor("keys" if "keys" in golden.inputs else "key")
    crf = CRF(golden.tensor("image"), PRESETS["psa_softmax"])
    for kind, value in kinds.items():
        background = (1 - cam.amax(0, keepdim=True)) ** value
        if kind.startswith("score"):
            background = torch.full_like(background, value)
        scores = crf.marginals(unary_from_probabilities(torch.cat([background, cam])))
        labels = torch.cat([keys.new_zeros(1), keys + 1])[scores.argmax(0)]
        yield Check(f"{names[0]}{kind}", scores, golden.output(f"{names[0]}{kind}"), "abs", limit)
        yield Check(f"{names[1]}{kind}", labels, golden.output(f"{names[1]}{kind}"), "mismatch", share)


def crf_cam_alpha(golden: Golden) -> Iterable[Check]:
    kinds = {f"alpha{a}": float(a) for a in (1, 4, 12, 32)} | {"score0.25": 0.25, "score0.60": 0.60}
    return cam_labels(golden, kinds, ("scores/", "label/"), 2e-5, 5e-4)


def aream_crf(golden: Golden) -> Iterable[Check]:
    kinds = {"alpha1": 1.0, "alpha12": 12.0, "score0.25": 0.25, "score0.60": 0.60}
    return cam_labels(golden, kinds, ("prob_", "label_"), 1e-3, 5e-3)


def afa_crf(golden: Golden) -> Iterable[Check]:
    image, logit = golden.tensor("image_u8"), golden.tensor("logit")
    size = (image.shape[0], image.shape[1])
    probs = torch.softmax(resize_bilinear(logit.unsqueeze(0), size)[0], dim=0)
    unary = unary_from_probabilities(probs)
    test = dense_crf(image, unary, PRESETS["afa"])
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
        logits = golden.tensor("logit" if "logit" in golden.inputs else "seg_logit").requires_grad_()
        images = golden.tensor("image" if "image" in golden.inputs else "images") * STD + MEAN
        boxes = golden.tensor("img_box").long() if "img_box" in golden.inputs else None
        loss = dense_energy_loss(logits, images / 255, golden.tensor("label"), boxes, size_rule=rule)
        (grad,) = torch.autograd.grad(loss, logits)
        key = "grad_logit" if "grad_logit" in golden.outputs else "grad"
        yield Check("loss", loss.view(1), golden.output("loss"), "rel", loss_tolerance)
        yield Check(key, grad, golden.output(key), "rel", grad_tolerance)
        if "filtered" in golden.outputs:
            scaled, masked = golden.output("scaled_image"), golden.output("scaled_prob_masked")
            ours = bilateral(scaled, masked, 15.0, float(golden.outputs["sigma_xy_effective"]))
            yield Check("filtered", ours, golden.output("filtered"), "rel", grad_tolerance)
        if "filter_input" in golden.outputs:
            scaled, values = golden.output("filter_image"), golden.output("filter_input")
            ours = bilateral(scaled, values, 15.0, 50.0)
            yield Check("filter_output", ours, golden.output("filter_output"), "rel", grad_tolerance)

    return case


def energy_filter(golden: Golden) -> Iterable[Check]:
    for rgb, xy in ((15, 50), (15, 100), (5, 20)):
        ours = bilateral(golden.tensor("image"), golden.tensor("values"), rgb, xy)
        yield Check(f"rgb{rgb}_xy{xy}", ours, golden.output(f"filtered/rgb{rgb}_xy{xy}"), "rel", 1e-5)


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

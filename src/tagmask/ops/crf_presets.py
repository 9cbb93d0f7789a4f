"""Settings of the dense CRF: every parameter set of the supported papers, and how labels become energies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from tagmask.errors import ConfigError, nearest
from tagmask.ops.arrays import A, like, tensor
from tagmask.ops.checks import require_finite

__all__ = ["PRESETS", "CRFParams", "crf_params", "unary_from_labels", "unary_from_probabilities"]


@dataclass(frozen=True)
class CRFParams:
    """Kernels of a dense CRF with Potts compatibility.

    Attributes:
        spatial_sigma: Standard deviation of the smoothness kernel in pixels.
        spatial_weight: Its weight.
        bilateral_sigma: Standard deviation of the appearance kernel over positions, in pixels.
        colour_sigma: Its standard deviation over colours, in grey levels of 0..255.
        bilateral_weight: Its weight.
        iterations: Mean-field updates.
        unary: What the paper feeds in: "probabilities" (also unnormalised maps) or hard "labels".
        classes: Which classes the paper lets compete: "all" of the dataset, or background and the "present"
            ones only. It matters for the result, see `dense_crf`.
    """

    spatial_sigma: float
    spatial_weight: float
    bilateral_sigma: float
    colour_sigma: float
    bilateral_weight: float
    iterations: int = 10
    unary: Literal["probabilities", "labels"] = "probabilities"
    classes: Literal["all", "present"] = "all"

    def __post_init__(self) -> None:
        sigmas = self.spatial_sigma, self.bilateral_sigma, self.colour_sigma
        if min(sigmas) <= 0 or self.iterations < 0:
            raise ValueError(
                f"sigmas must be positive and iterations 0 or more, got {sigmas} and {self.iterations}"
            )


PRESETS: Mapping[str, CRFParams] = MappingProxyType(
    {
        # PSA, AReAM and MCTformer: background and present CAMs to the labels that train the affinity network.
        "psa_softmax": CRFParams(3, 3, 80, 13, 10, classes="present"),
        # TransCAM's labels before and after the random walk; AReAM's PNG mode; AFA's training option.
        "label_50_5": CRFParams(3, 3, 50, 5, 10, unary="labels"),
        # MoRe: segmentation over all classes, CAM and LAM seeds over the present ones.
        "more": CRFParams(1, 3, 67, 3, 4),
        "more_seeds": CRFParams(1, 3, 67, 3, 4, classes="present"),
        # ToCo and SeCo; the best guess for MoRe on COCO, whose inference script is missing.
        "seco": CRFParams(1, 1, 121, 5, 4),
        "afa": CRFParams(3, 3, 64, 5, 4),
        # ResNet-38 segmentation stage of MCTformer and AReAM.
        "seg38": CRFParams(4, 3, 83, 5, 3),
        "weaktr_voc": CRFParams(3, 3, 83, 5, 3, classes="present"),
        "weaktr_coco": CRFParams(1, 3, 67, 3, 4, classes="present"),
        "weaktr_label_voc": CRFParams(4, 3, 83, 5, 3, unary="labels", classes="present"),
        "weaktr_label_coco": CRFParams(3, 3, 50, 5, 10, unary="labels", classes="present"),
        "transcam_deeplab": CRFParams(3, 3, 32, 13, 10, iterations=1),
    }
)
"""Parameter sets by name; each is what the named paper's code runs."""


def crf_params(params: CRFParams | str) -> CRFParams:
    """The parameters themselves, or those of a preset.

    Raises:
        ConfigError: There is no preset of that name.
    """
    if isinstance(params, CRFParams):
        return params
    if params not in PRESETS:
        raise ConfigError(f"unknown CRF '{params}'. {nearest(params, PRESETS)}")
    return PRESETS[params]


def unary_from_probabilities(probs: A, floor: float = 1e-5) -> A:
    """Energies -log(p) of soft maps.

    Args:
        probs: Scores, (C, H, W). They need not sum to 1: the first softmax of the mean field normalises.
        floor: Lower bound of the scores; the upper bound is 1.

    Returns:
        Energies, float32, (C, H, W).

    Raises:
        ValueError: If a score is NaN or infinite.
    """
    scores = tensor("probabilities", probs)
    require_finite("probabilities", scores)
    return like(probs, scores.float().clamp(floor, 1.0).log().neg())


def unary_from_labels(labels: A, num_labels: int, confidence: float = 0.7) -> A:
    """Energies of a hard label map: -log g at the given label, -log((1 - g) / (num_labels - 1)) elsewhere.

    Args:
        labels: Label of every pixel in 0..num_labels - 1, integer, (H, W). "Ignore" is not a label.
        num_labels: How many labels compete; the result depends on it.
        confidence: Probability g of the given label, in (0, 1).

    Returns:
        Energies, float32, (num_labels, H, W).

    Raises:
        ValueError: If a label is out of range, or a setting is.
    """
    return like(labels, _label_energies(tensor("labels", labels), num_labels, confidence))


def _label_energies(labels: Tensor, num_labels: int, confidence: float) -> Tensor:
    if labels.ndim != 2 or labels.is_floating_point() or num_labels < 1 or not 0 < confidence < 1:
        raise ValueError(
            "labels must be integers (H, W), num_labels at least 1 and confidence in (0, 1), got "
            f"{labels.dtype} {tuple(labels.shape)}, {num_labels} and {confidence}"
        )
    low, high = torch.aminmax(labels) if labels.numel() else (labels.new_zeros(()),) * 2
    if int(low) < 0 or int(high) >= num_labels:
        raise ValueError(
            f"labels must be in 0..{num_labels - 1}, got {int(low)}..{int(high)}; "
            "replace 255 (ignore) before the CRF"
        )
    given = torch.tensor(confidence, dtype=torch.float32).log().neg().item()
    if num_labels == 1:
        return torch.full((1, *labels.shape), given, device=labels.device)
    other = torch.tensor((1.0 - confidence) / (num_labels - 1), dtype=torch.float32).log().neg().item()
    energy = torch.full((num_labels, *labels.shape), other, device=labels.device)
    return energy.scatter_(0, labels.long().unsqueeze(0), given)

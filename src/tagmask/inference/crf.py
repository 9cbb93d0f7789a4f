"""Dense CRF on what a stage has for one image, by the name of a paper's parameter set."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import AfterValidator
from torch import Tensor

from tagmask.errors import ConfigError, nearest
from tagmask.ops.crf import CRF, crf_on_labels, dense_crf
from tagmask.ops.crf_presets import PRESETS, CRFParams, unary_from_probabilities
from tagmask.ops.labels import strongest
from tagmask.ops.maps import with_background

__all__ = ["CRFName", "clean_labels", "crf_preset", "refine_by_crf", "segment_by_crf"]


def crf_preset(name: str) -> CRFParams:
    """Parameters by name.

    Raises:
        ConfigError: The name is unknown.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown CRF '{name}'. {nearest(name, PRESETS)}")
    return PRESETS[name]


def _known(name: str) -> str:
    if name not in PRESETS:
        raise ValueError(f"unknown CRF '{name}'. {nearest(name, PRESETS)}")
    return name


CRFName = Annotated[str, AfterValidator(_known)]
"""Name of a parameter set in settings: a wrong one is refused before anything is done."""


def clean_labels(images: Tensor, labels: Tensor, num_labels: int, params: CRFParams) -> Tensor:
    """A label map after a CRF on hard labels.

    Args:
        images: RGB in [0, 1], (1, 3, H, W).
        labels: Labels in 0..num_labels - 1, (H, W).
        num_labels: Labels of the data set, background included.
        params: A set for hard labels.

    Returns:
        (H, W).
    """
    return crf_on_labels(_bytes(images), labels, num_labels, params)


def segment_by_crf(images: Tensor, scores: Tensor, params: CRFParams, already_probabilities: bool) -> Tensor:
    """Labels of one image after the CRF.

    Args:
        images: RGB in [0, 1], (1, 3, H, W).
        scores: Segmentation scores, (1, C, H, W).
        params: Kernels and class rule.
        already_probabilities: Whether the scores need no softmax.

    Returns:
        (1, H, W) int64.
    """
    picture = _bytes(images)
    if params.unary == "labels":
        return crf_on_labels(picture, strongest(scores)[0], scores.shape[1], params)[None]
    # Classes that are not allowed come with minus infinity.
    probs = scores[0].clamp(min=0) if already_probabilities else scores[0].softmax(0)
    present = None
    if params.classes == "present":
        present = torch.unique(strongest(scores)).tolist()
    return dense_crf(picture, unary_from_probabilities(probs), params, present).argmax(0)[None]


def refine_by_crf(
    images: Tensor,
    maps: Tensor,
    keys: Tensor,
    levels: tuple[float, ...],
    powers: tuple[float, ...] | None,
    params: CRFParams,
) -> Tensor:
    """Labels from maps that compete with a background plane in a CRF.

    With two planes the CRF runs twice: foreground comes from the higher plane, background from where both
    say so, the rest is undecided.

    Args:
        images: RGB in [0, 1], (1, 3, H, W).
        maps: Maps of the present classes in [0, 1], (1, n, H, W), n at least 1.
        keys: 0-based class of each map, (1, n).
        levels: Heights of constant background planes, (high, low) or one.
        powers: If set, the planes are (1 - largest map)^power instead, (small, large) or one.
        params: Kernels.

    Returns:
        (1, H, W) int64, 255 where undecided.
    """
    picture, names = _bytes(images), torch.cat([keys.new_zeros(1), keys[0] + 1])
    model = CRF(picture, params)
    found = []
    planes = [(level, None) for level in levels] if powers is None else [(0.0, power) for power in powers]
    for level, power in planes:
        stack = with_background(maps[0], level, power)
        if params.unary == "labels":
            labels = crf_on_labels(picture, strongest(stack, 0), len(names), params)
        else:
            labels = strongest(model.marginals(unary_from_probabilities(stack)), 0)
        found.append(names[labels][None])
    high, low = found[0], found[-1]
    return torch.where(high > 0, high, torch.where(low > 0, torch.full_like(high, 255), 0))


def _bytes(images: Tensor) -> Tensor:
    return (images[0, :3] * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()

"""Class maps: made from features and classifier weights, limited to the classes that occur, scaled, fused."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tagmask.ops.arrays import A, Array, like, tensor

__all__ = [
    "class_maps",
    "fuse",
    "keep_present",
    "min_max",
    "present_classes",
    "scale_maps",
    "take_classes",
    "with_background",
]


def class_maps(features: A, weight: Array) -> A:
    """Class activation maps: what a linear classifier says at every place (Zhou et al., CVPR 2016).

    Args:
        features: Feature map the classifier pools, (B, D, h, w).
        weight: Classifier weights, (K, D), or (K, D, 1, 1) as a 1x1 convolution stores them.

    Returns:
        Maps before any rectification, (B, K, h, w).

    Raises:
        ValueError: If the widths of features and weights differ.
    """
    return like(features, _class_maps(tensor("features", features), tensor("weight", weight)))


def _class_maps(features: Tensor, weight: Tensor) -> Tensor:
    if weight.ndim < 2:
        raise ValueError(f"weight must be (K, D) or (K, D, 1, 1), got {tuple(weight.shape)}")
    weight = weight.flatten(1)
    if features.ndim != 4 or features.shape[1] != weight.shape[1]:
        raise ValueError(
            f"features must be (B, {weight.shape[1]}, h, w) for weights {tuple(weight.shape)}, "
            f"got {tuple(features.shape)}"
        )
    return F.conv2d(features, weight[:, :, None, None])


def keep_present(maps: A, tags: Array) -> A:
    """Maps with the classes an image does not show set to zero.

    Args:
        maps: Class maps, (B, K, H, W).
        tags: 1 for classes in the image, 0 for others, (B, K).
    """
    stack = tensor("maps", maps)
    return like(maps, stack * tensor("tags", tags).to(stack.dtype)[:, :, None, None])


def present_classes(tags: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of the classes each image shows, padded to the largest number in the batch.

    Args:
        tags: 1 for classes in the image, 0 for others, (B, K).

    Returns:
        Class indices in ascending order, int64, (B, M), and a bool mask (B, M) of the entries that are not
        padding. M is at least 1, so that images without any tag keep their shape.
    """
    present = tags > 0
    count = max(int(present.sum(1).max()), 1)
    # A stable sort of "absent" puts the present classes first and leaves each part in class order.
    order = torch.sort((~present).to(torch.uint8), dim=1, stable=True).indices[:, :count]
    return order, present.gather(1, order)


def take_classes(maps: Tensor, keys: Tensor) -> Tensor:
    """The maps of chosen classes, image by image.

    Args:
        maps: Class maps, (B, K, H, W).
        keys: Class indices, int64, (B, M).

    Returns:
        (B, M, H, W).
    """
    return maps.gather(1, keys[:, :, None, None].expand(-1, -1, *maps.shape[2:]))


def min_max(maps: A, epsilon: float = 1e-5, shifted: bool = False) -> A:
    """Scale every map of every image to [0, 1) by its own smallest and largest value.

    Args:
        maps: Any range, (B, K, H, W).
        epsilon: Added to the range before dividing; keeps constant maps at zero. Papers differ.
        shifted: PSA's and TransCAM's variant: values within epsilon of the smallest are set to 0 first, and
            the smallest value plus epsilon becomes 0. The rest falls just below 0, a map that is 0
            everywhere to -1; a map far above 0 gets strongly negative values where it is smallest.
    """
    return like(maps, _min_max(tensor("maps", maps), epsilon, shifted))


def _min_max(maps: Tensor, epsilon: float, shifted: bool) -> Tensor:
    low, high = torch.aminmax(maps.flatten(2), dim=2)
    low, high = low[:, :, None, None], high[:, :, None, None]
    if shifted:
        return (maps.masked_fill(maps < low + epsilon, 0) - low - epsilon) / (high - low + epsilon)
    return (maps - low) / (high - low + epsilon)


def with_background(maps: Tensor, level: float, power: float | None = None) -> Tensor:
    """Maps behind a score for the background.

    Args:
        maps: Maps of the present classes in [0, 1], (n, H, W); n may be 0.
        level: Constant score of the background.
        power: If given, the score is (1 - largest map)^power instead (PSA).

    Returns:
        (n + 1, H, W), background first.
    """
    background = maps.new_full((1, *maps.shape[1:]), level)
    if power is not None:
        largest = torch.cat([torch.zeros_like(background), maps]).amax(0, keepdim=True)
        background = (1 - largest).clamp(min=0) ** power
    return torch.cat([background, maps])


def scale_maps(maps: Tensor, rule: str, epsilon: float = 1e-5) -> Tensor:
    """Scale every map of every image by one of the papers' rules.

    Args:
        maps: Any range, (B, K, H, W).
        rule: "min_max", "shifted" (see `min_max`), or "max": divided by the largest value (PSA's
            classifier), so that 0 stays 0.
        epsilon: Added to the divisor.

    Raises:
        ValueError: The rule is unknown.
    """
    if rule == "max":
        return maps / (maps.amax(dim=(2, 3), keepdim=True) + epsilon)
    if rule not in ("min_max", "shifted"):
        raise ValueError(f"maps are scaled by 'min_max', 'shifted' or 'max', got {rule!r}")
    return _min_max(maps, epsilon, rule == "shifted")


def fuse(first: A, second: Array, epsilon: float = 1e-5) -> A:
    """Product of two kinds of maps, scaled to [0, 1): high only where both agree.

    Args:
        first: Maps in [0, 1], (B, K, H, W).
        second: Maps of the same shape.
        epsilon: See `min_max`.
    """
    return like(first, _min_max(tensor("first", first) * tensor("second", second), epsilon, False))

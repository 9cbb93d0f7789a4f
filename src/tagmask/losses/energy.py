"""Dense energy loss: pixels that look alike and are close should share a class (Tang et al., ECCV 2018)."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tagmask.ops.checks import require_finite, require_unit
from tagmask.ops.lattice import Lattice

__all__ = ["dense_energy", "dense_energy_loss"]

Gradient = Literal["published", "exact"]
SizeRule = Literal["recomputed", "given"]

_IGNORE = 255


def dense_energy_loss(
    logits: Tensor,
    images: Tensor,
    labels: Tensor,
    boxes: Tensor | None = None,
    *,
    sigma_rgb: float = 15.0,
    sigma_xy: float = 100.0,
    scale: float = 0.5,
    weight: float = 1e-7,
    size_rule: SizeRule = "recomputed",
    gate: bool = True,
    gradient: Gradient = "published",
) -> Tensor:
    """Gated dense energy of a segmentation, with the scaling that MoRe and AFA put around `dense_energy`.

    Images and labels are reduced by taking one pixel, probabilities by averaging; positions are measured in
    reduced pixels and `sigma_xy` shrinks with them. Computed in float32, also under autocast.

    Args:
        logits: Segmentation logits at image size, (B, C, H, W).
        images: RGB in [0, 1], (B, 3, H, W).
        labels: Pseudo labels, (B, H, W), 255 where there is none.
        boxes: Valid content as [top, bottom, left, right) in pixels, (B, 4); None if all of it is.
        sigma_rgb: Standard deviation of the colour kernel in grey levels of 0..255.
        sigma_xy: Standard deviation of the position kernel in full-size pixels.
        scale: Factor of the reduced size, in (0, 1].
        weight: Factor of the result.
        size_rule: How odd sides are sampled: "recomputed" with the ratio of the rounded sizes (MoRe), "given"
            with `scale` itself (AFA). The same for even sides.
        gate: Whether confident labelled pixels count less; False is the loss of Tang et al.
        gradient: See `dense_energy`.

    Returns:
        Scalar, at most 0, averaged over images but not over pixels: its size grows with the crop.

    Raises:
        ValueError: If shapes do not fit, a value is NaN or infinite, images are not in [0, 1] (normalised
            ones are not), or a setting is out of range.
    """
    _check(logits, images, labels, boxes, scale, size_rule)
    with torch.autocast(logits.device.type, enabled=False):
        height, width = logits.shape[-2:]
        size = max(int(height * scale), 1), max(int(width * scale), 1)
        keep_ratio = size_rule == "given" and size == (int(height * scale), int(width * scale))

        def reduced(values: Tensor, mode: str) -> Tensor:
            corners = False if mode == "bilinear" else None
            if keep_ratio:
                return F.interpolate(
                    values, scale_factor=scale, mode=mode, align_corners=corners, recompute_scale_factor=False
                )
            return F.interpolate(values, size=size, mode=mode, align_corners=corners)

        roi = logits.new_ones((len(logits), height, width), dtype=torch.float32)
        if boxes is not None:
            roi = _inside(boxes.to(logits.device), height, width)
        unlabelled = (labels == _IGNORE).to(torch.float32)
        energy = dense_energy(
            reduced(torch.softmax(logits.float(), dim=1), "bilinear"),
            reduced(images.float() * 255.0, "nearest"),
            reduced(roi.unsqueeze(1), "nearest").squeeze(1),
            reduced(unlabelled.unsqueeze(1), "nearest").squeeze(1).bool(),
            sigma_rgb,
            sigma_xy * scale,
            gate=gate,
            gradient=gradient,
        )
        return energy * weight


def dense_energy(
    prob: Tensor,
    image_255: Tensor,
    roi: Tensor,
    unlabelled: Tensor,
    sigma_rgb: float,
    sigma_xy: float,
    gate: bool = True,
    gradient: Gradient = "published",
) -> Tensor:
    """Energy -(1/B) sum_{b,c,i} S g F(S) of class probabilities, without scaling or weight.

    S = prob * roi; F is the unnormalised lattice filter over position and colour (`ops.lattice.Lattice`); the
    gate is g = max(roi - max_c prob, 0), 1 on unlabelled pixels, or g = roi when switched off.

    The originals return for dL/dprob the term -(2/B) roi g F(S), which is the derivative only where g is
    constant: it filters S before gating, never after, and ignores that g depends on prob. "published"
    (default) gives that gradient; "exact" differentiates the value as it stands, gate included.

    Args:
        prob: Class probabilities, (B, C, h, w).
        image_255: RGB in grey levels 0..255, (B, 3, h, w); gets no gradient.
        roi: 1 inside the valid region, 0 outside, (B, h, w).
        unlabelled: Pixels without a label, bool, (B, h, w).
        sigma_rgb: Standard deviation of the colour kernel in grey levels.
        sigma_xy: Standard deviation of the position kernel in pixels.
        gate: Whether to gate.
        gradient: "published" or "exact".

    Returns:
        Scalar, float32.

    Raises:
        ValueError: If shapes do not fit, a value is NaN or infinite, a sigma is not positive, or `gradient`
            is unknown.
    """
    _check_tensors(prob, image_255, roi, unlabelled)
    if not (sigma_rgb > 0 and sigma_xy > 0):
        raise ValueError(f"both sigmas must be positive, got {sigma_rgb} and {sigma_xy}")
    if gradient not in ("published", "exact"):
        raise ValueError(f"gradient must be 'published' or 'exact', got {gradient!r}")
    with torch.autocast(prob.device.type, enabled=False):
        prob, roi = prob.float(), roi.float()
        lattice = Lattice(_features(image_255.float(), sigma_rgb, sigma_xy))
        if gradient == "exact":
            return _exact(prob, roi, unlabelled, lattice, gate)
        with torch.no_grad():
            value, pull = _value_and_pull(prob, roi, unlabelled, lattice, gate)
        published: Tensor = _Published.apply(prob, value, pull)
        return published


class _Published(torch.autograd.Function):
    """Hand a value on; let the originals' gradient flow back."""

    @staticmethod
    def forward(ctx: Any, prob: Tensor, value: Tensor, pull: Tensor) -> Tensor:
        ctx.save_for_backward(pull)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (pull,) = ctx.saved_tensors
        return pull * (grad * (-2.0 / len(pull))), None, None


def _exact(prob: Tensor, roi: Tensor, unlabelled: Tensor, lattice: Lattice, gate: bool) -> Tensor:
    """The energy as autograd sees it."""
    rows = _rows(prob)
    filtered = lattice.filter_rows(rows * roi.reshape(-1, 1))
    factors = _gates(prob, roi, unlabelled, gate) * roi
    return -torch.sum(rows * filtered * factors.reshape(-1, 1)) / len(prob)


def _value_and_pull(
    prob: Tensor, roi: Tensor, unlabelled: Tensor, lattice: Lattice, gate: bool
) -> tuple[Tensor, Tensor]:
    """The energy and the gated filter output inside the region, (B, C, h, w), without gradient.

    Region and gates are factors of whole points: they go into the lattice's weights, and nothing of the size
    of the probabilities is made but the result.
    """
    rows, factors = _rows(prob), _gates(prob, roi, unlabelled, gate) * roi
    pull = lattice.read(lattice.spread(rows, roi.flatten()), scale=factors.flatten())
    energy = -torch.dot(rows.flatten(), pull.flatten()) / len(prob)
    return energy, pull.view(len(prob), *prob.shape[2:], -1).permute(0, 3, 1, 2)


def _rows(prob: Tensor) -> Tensor:
    # Point by point, as the lattice works: no copy on the way in or out of it.
    return prob.permute(0, 2, 3, 1).flatten(0, 2).contiguous()


def _gates(prob: Tensor, roi: Tensor, unlabelled: Tensor, gate: bool) -> Tensor:
    if not gate:
        return roi
    doubt = (roi - prob.amax(dim=1)).clamp_min(0.0)
    return torch.where(unlabelled, torch.ones_like(doubt), doubt)


def _features(image_255: Tensor, sigma_rgb: float, sigma_xy: float) -> Tensor:
    batch, _, height, width = image_255.shape
    down = torch.arange(height, dtype=torch.float32, device=image_255.device) / sigma_xy
    across = torch.arange(width, dtype=torch.float32, device=image_255.device) / sigma_xy
    places = torch.stack(torch.meshgrid(across, down, indexing="xy"))
    planes = torch.cat([places.expand(batch, -1, -1, -1), image_255 / sigma_rgb], dim=1)
    # Planes one after the other are what the lattice computes on; the transpose costs nothing.
    return planes.flatten(2).transpose(1, 2)


def _inside(boxes: Tensor, height: int, width: int) -> Tensor:
    rows = torch.arange(height, device=boxes.device)
    columns = torch.arange(width, device=boxes.device)
    top, bottom, left, right = (side.view(-1, 1) for side in boxes.unbind(1))
    down, across = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    return (down.unsqueeze(2) & across.unsqueeze(1)).to(torch.float32)


def _check(
    logits: Tensor, images: Tensor, labels: Tensor, boxes: Tensor | None, scale: float, size_rule: str
) -> None:
    batch, _, height, width = logits.shape if logits.ndim == 4 else (0, 0, 0, 0)
    expected = {"images": (batch, 3, height, width), "labels": (batch, height, width)}
    for name, given in (("images", images), ("labels", labels)):
        if logits.ndim != 4 or tuple(given.shape) != expected[name]:
            raise ValueError(
                f"logits (B, C, H, W), images (B, 3, H, W) and labels (B, H, W) must agree, "
                f"got logits {tuple(logits.shape)} and {name} {tuple(given.shape)}"
            )
    if boxes is not None and tuple(boxes.shape) != (batch, 4):
        raise ValueError(f"boxes must be ({batch}, 4), got {tuple(boxes.shape)}")
    if not 0 < scale <= 1:
        raise ValueError(f"scale must be in (0, 1], got {scale}")
    if size_rule not in ("recomputed", "given"):
        raise ValueError(f"size_rule must be 'recomputed' or 'given', got {size_rule!r}")
    require_unit("images", images)


def _check_tensors(prob: Tensor, image_255: Tensor, roi: Tensor, unlabelled: Tensor) -> None:
    batch, _, height, width = prob.shape if prob.ndim == 4 else (0, 0, 0, 0)
    plane = (batch, height, width)
    fits = tuple(image_255.shape) == (batch, 3, height, width)
    if prob.ndim != 4 or not fits or tuple(roi.shape) != plane or tuple(unlabelled.shape) != plane:
        raise ValueError(
            "prob (B, C, h, w), image (B, 3, h, w), roi and unlabelled (B, h, w) must agree, got "
            f"{tuple(prob.shape)}, {tuple(image_255.shape)}, {tuple(roi.shape)}, {tuple(unlabelled.shape)}"
        )
    require_finite("class probabilities", prob)
    require_finite("images", image_255)

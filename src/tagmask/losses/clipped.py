"""Cross entropy with its largest pixels cut off, so that wrong pseudo labels stop pulling."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tagmask.names import deprecated

__all__ = ["clip_pixel_loss", "pixel_cross_entropy"]


@deprecated("0.2", arguments={"ignore": "ignore_index"})
def pixel_cross_entropy(logits: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
    """Cross entropy per pixel; ignored pixels have 0.

    Args:
        logits: (B, C, H, W).
        labels: int64 (B, H, W) in 0..C-1 or `ignore_index`.
        ignore_index: Label without a loss.

    Returns:
        (B, H, W), float32 or the dtype of `logits` if wider.
    """
    return F.cross_entropy(logits.float(), labels, ignore_index=ignore_index, reduction="none")


def clip_pixel_loss(pixel_loss: Tensor, start: float = 1.2, patch: int = 120) -> Tensor:
    """Cap each pixel's loss by what is usual in its patch (WeakTr, section "gradient clipping decoder").

    While the mean loss is above `start` nothing is cut: early in training large losses are right. Later a
    pixel above max(mean of its patch over the batch, mean of the batch) keeps that threshold as a constant,
    so its gradient is zero; a pixel at or below it keeps its full gradient. Ignored pixels count in both.

    Args:
        pixel_loss: (B, H, W); H and W multiples of `patch`.
        start: Mean loss below which the cutting sets in.
        patch: Side of the square patches in pixels.

    Returns:
        (B, H, W); its mean is the loss.

    Raises:
        ValueError: A side is no multiple of `patch`.
    """
    height, width = pixel_loss.shape[-2:]
    if height % patch or width % patch:
        raise ValueError(f"clipping patches of {patch} px must divide the crop, got {height} x {width}")
    values = pixel_loss.detach()
    mean = values.mean()
    local = F.avg_pool2d(values.mean(0, keepdim=True).unsqueeze(0), patch)
    limit = F.interpolate(local.clamp(min=mean), scale_factor=patch, mode="nearest")[0]
    # where() instead of minimum(): minimum would halve the gradient of pixels exactly at the threshold
    cut = torch.where(pixel_loss > limit, limit, pixel_loss)
    return torch.where(mean > start, pixel_loss, cut)

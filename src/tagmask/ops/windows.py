"""Sliding windows: cut a picture into overlapping squares, run them in batches, put them back once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tagmask.ops.resize import resize_bilinear

__all__ = ["run_windows", "window_starts", "windowed"]


def window_starts(side: int, window: int, stride: int) -> list[int]:
    """First pixels of the windows along one axis: every `stride`, and one flush with the far end.

    Args:
        side: Length of the axis in pixels, at least `window`.
        window: Window length in pixels.
        stride: Step in pixels.

    Raises:
        ValueError: The axis is shorter than the window, or the stride leaves gaps.
    """
    if side < window:
        raise ValueError(f"a side of {side} px is shorter than the window of {window} px; enlarge the image")
    if not 0 < stride <= window:
        raise ValueError(f"stride must be in 1..{window} (the window), got {stride}")
    return [*range(0, side - window, stride), side - window]


def run_windows(
    fn: Callable[[Tensor], Tensor], images: Tensor, window: int, stride: int, batch_size: int = 4
) -> Tensor:
    """Mean of `fn` over all windows that cover a pixel.

    Windows of all images travel together through `fn`, so a mirror image costs no extra call.

    Args:
        fn: (n, 3, window, window) to (n, ..., window, window), for example logits of one or several exits.
        images: (B, 3, H, W), both sides at least `window`.
        window: Window side in pixels.
        stride: Step between windows in pixels.
        batch_size: How many windows go through `fn` at once; bounds the memory.

    Returns:
        (B, ..., H, W).

    Raises:
        ValueError: See `window_starts`.
    """
    height, width = images.shape[-2:]
    corners = [
        (b, top, left)
        for top in window_starts(height, window, stride)
        for left in window_starts(width, window, stride)
        for b in range(images.shape[0])
    ]
    total: Tensor | None = None
    cover = images.new_zeros(height, width)
    for first in range(0, len(corners), batch_size):
        part = corners[first : first + batch_size]
        crops = torch.stack([images[b, :, t : t + window, x : x + window] for b, t, x in part])
        for (b, t, x), piece in zip(part, fn(crops), strict=True):
            if total is None:
                total = piece.new_zeros(images.shape[0], *piece.shape[:-2], height, width)
            total[b, ..., t : t + window, x : x + window] += piece
            if b == 0:
                cover[t : t + window, x : x + window] += 1
    assert total is not None  # every axis has at least one window
    return total / cover


def windowed(
    fn: Callable[[Tensor], Tensor], window: int, stride: int, batch_size: int = 4
) -> Callable[[Tensor], Tensor]:
    """A function of pictures of any size, made of one that is used on squares of one size.

    Pictures whose shorter side is less than the window are enlarged to it first, keeping their shape.

    Args:
        fn: (n, 3, window, window) to (n, ..., h, w) of any size, for example logits.
        window: Window side in pixels.
        stride: Step between windows in pixels.
        batch_size: How many windows go through `fn` at once.

    Returns:
        A function (B, 3, H, W) to (B, ..., H', W'), float32, of the (enlarged) pictures' size.
    """

    def at_full_size(crops: Tensor) -> Tensor:
        found = fn(crops).float()
        planes = found.reshape(len(crops), -1, *found.shape[-2:])
        return resize_bilinear(planes, (window, window)).reshape(*found.shape[:-2], window, window)

    def run(images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if min(height, width) < window:
            ratio = max(height, width) / min(height, width)
            long = int(ratio * window)
            images = resize_bilinear(images, (window, long) if height < width else (long, window))
        return run_windows(at_full_size, images, window, stride, batch_size)

    return run

"""Pixel-adaptive refinement (PAR): maps diffuse along similar colours (AFA, Ru et al., CVPR 2022)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tagmask.ops.arrays import A, Array, like, tensor
from tagmask.ops.blocks import rows_per_block
from tagmask.ops.checks import require_finite

__all__ = ["PAR_DILATIONS", "apply_par", "par", "par_kernel"]

PAR_DILATIONS = (1, 2, 4, 8, 12, 24)
"""Neighbour distances of AFA and the methods after it; 8 neighbours each, 48 in all."""

_SHARPNESS = 0.3
_POSITION_WEIGHT = 0.01
_EPSILON = 1e-8
# Floats a pass works on: these stay in a core's second-level cache (measured, 2 MB).
_BLOCK = 150_000
_KERNEL_BLOCK = 400_000
# From here on gathering pixels beats shifting planes on a CPU; both add in the same order.
_MANY_MAPS = 6


def par(
    images: Array,
    maps: A,
    dilations: Sequence[int] = PAR_DILATIONS,
    iterations: int = 10,
) -> A:
    """Refine class maps with the colours of their images.

    Sizes must agree; whoever calls resizes. Every iteration scales the maps by 1.01 (see `par_kernel`),
    which leaves an arg max as it is. No gradient flows.

    Args:
        images: RGB in [0, 1], (B, 3, H, W), tensor or NumPy array; the scale cancels out except in flat
            areas.
        maps: Any number of maps per image, (B, C, H, W).
        dilations: Distances of the neighbours in pixels, each at least 1.
        iterations: How often the maps are averaged over their neighbours; 0 returns them unchanged.

    Returns:
        Refined maps, float32, (B, C, H, W); an array if `maps` is one.

    Raises:
        ValueError: If shapes do not fit, a value is NaN or infinite, or a dilation or count is out of range.
    """
    guide, stack = tensor("images", images), tensor("maps", maps)
    _check_maps(stack, guide)
    return like(maps, apply_par(par_kernel(guide, dilations), stack, dilations, iterations))


def par_kernel(images: Tensor, dilations: Sequence[int] = PAR_DILATIONS) -> Tensor:
    """Weight of every neighbour of every pixel; depends on the images only, so it can serve many maps.

    With M = 8 * len(dilations) neighbours n of pixel c (border replicated), per colour channel
    t_n = -(|x_n - x_c| / (s + 1e-8) / 0.3)^2, s the unbiased standard deviation over the M neighbours.
    The weights are softmax_n(mean over channels of t) + 0.01 * softmax_n(same formula on the distances).

    Args:
        images: RGB or more bands, (B, 3, H, W); half precision is computed in float32.
        dilations: Distances of the neighbours in pixels, each at least 1.

    Returns:
        Kernel, float32, (B, M, H, W), summing to 1.01 over M: dilation by dilation, and within each the
        eight neighbours row by row.

    Raises:
        ValueError: If the shape is not (B, 3, H, W), a value is NaN or infinite, or a dilation is below 1.
    """
    if images.ndim != 4 or images.shape[1] < 3 or not images.is_floating_point():
        raise ValueError(
            f"images must be floating point (B, 3, H, W), got {images.dtype} {tuple(images.shape)}; grey "
            "levels are divided by 255, a single image needs a batch dimension"
        )
    require_finite("images", images)
    offsets = _offsets(dilations)
    with torch.autocast(images.device.type, enabled=False), torch.no_grad():
        images = images.float().contiguous()
        batch, bands, height, width = images.shape
        reach = max(dilations)
        padded = F.pad(images, [reach] * 4, mode="replicate")
        kernel = images.new_empty(batch, len(offsets), height, width)
        position = _POSITION_WEIGHT * _position_softmax(dilations, images.device)
        block = rows_per_block(batch * bands * len(offsets) * width, _KERNEL_BLOCK, images.device)
        block = min(block, height)
        space = images.new_empty(2, len(offsets), batch, bands, block, width)
        for top, rows in _row_blocks(height, block):
            steps, spare = space[..., :rows, :]
            centre = images[:, :, top : top + rows]
            first = 0
            for d in dilations:
                for ring in _ring(padded, top + reach, reach, d, rows, width):
                    torch.sub(ring, centre, out=steps[first : first + len(ring)])
                    first += len(ring)
            weights = _image_softmax(steps, spare).add_(position.view(-1, 1, 1, 1))
            kernel[:, :, top : top + rows] = weights.transpose(0, 1)
    return kernel


def apply_par(
    kernel: Tensor,
    maps: Tensor,
    dilations: Sequence[int] = PAR_DILATIONS,
    iterations: int = 10,
) -> Tensor:
    """Average maps over their neighbours, again and again, with weights from `par_kernel`.

    Channels do not influence each other, so stacks of maps (several thresholds, zero-padded class lists)
    give the same values as separate calls.

    Args:
        kernel: Neighbour weights, (B, 8 * len(dilations), H, W).
        maps: Maps of the same size, (B, C, H, W).
        dilations: The distances the kernel was made with.
        iterations: Number of averaging passes.

    Returns:
        Refined maps, float32, (B, C, H, W).

    Raises:
        ValueError: If kernel, maps and dilations do not fit, a map holds NaN or infinity, or iterations < 0.
    """
    offsets = _offsets(dilations)
    _check_maps(maps, kernel)
    if kernel.shape[1] != len(offsets):
        raise ValueError(f"{len(offsets)} neighbours need as many kernel channels, got {kernel.shape[1]}")
    if iterations < 0:
        raise ValueError(f"iterations must be 0 or more, got {iterations}")
    with torch.autocast(maps.device.type, enabled=False), torch.no_grad():
        source, weights = maps.float().contiguous(), kernel.float()
        if not maps.numel() or not iterations:
            return source
        if maps.device.type != "cpu" or maps.shape[1] >= _MANY_MAPS:
            return _average_pixels(weights, source, offsets, iterations)
        for _ in range(iterations):
            source = _average_planes(weights, source, offsets, max(dilations))
    return source


def _average_pixels(kernel: Tensor, maps: Tensor, offsets: list[tuple[int, int]], iterations: int) -> Tensor:
    """All passes, each one weighted sum over neighbouring pixels with all their maps side by side."""
    batch, channels, height, width = maps.shape
    steps = torch.tensor(offsets, dtype=torch.int32, device=maps.device)
    down, across = (torch.arange(n, dtype=torch.int32, device=maps.device) for n in (height, width))
    row = (down.view(-1, 1, 1) + steps[:, 0]).clamp_(0, height - 1).mul_(width)
    near = row + (across.view(-1, 1) + steps[:, 1]).clamp_(0, width - 1)
    first = torch.arange(batch, dtype=torch.int32, device=maps.device).mul_(height * width)
    near = (first.view(-1, 1, 1, 1) + near).view(-1, len(offsets))
    weights = kernel.permute(0, 2, 3, 1).reshape(-1, len(offsets)).contiguous()
    pixels = maps.permute(0, 2, 3, 1).reshape(-1, channels).contiguous()
    for _ in range(iterations):
        pixels = F.embedding_bag(near, pixels, mode="sum", per_sample_weights=weights)
    return pixels.view(batch, height, width, channels).permute(0, 3, 1, 2).contiguous()


def _average_planes(kernel: Tensor, maps: Tensor, offsets: list[tuple[int, int]], reach: int) -> Tensor:
    """One pass, neighbour by neighbour over a block of rows that stays in the cache."""
    batch, channels, height, width = maps.shape
    padded = F.pad(maps, [reach] * 4, mode="replicate")
    result = torch.zeros_like(maps)
    for top, rows in _row_blocks(height, rows_per_block(batch * channels * width, _BLOCK, maps.device)):
        block = result[:, :, top : top + rows]
        for index, (dy, dx) in enumerate(offsets):
            window = _window(padded, top + reach + dy, reach + dx, rows, width)
            block.addcmul_(window, kernel[:, index : index + 1, top : top + rows])
    return result


def _ring(
    padded: Tensor, top: int, left: int, distance: int, rows: int, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Views (n, B, 3, rows, W) of the neighbours above, beside and below, n = 3, 2, 3."""
    batch, channels = padded.shape[:2]
    images, planes, lines, _ = padded.stride()
    views = []
    for down, count, step in ((-1, 3, 1), (0, 2, 2), (1, 3, 1)):
        start = (top + down * distance) * lines + left - distance
        size = (count, batch, channels, rows, width)
        views.append(padded.as_strided(size, (step * distance, images, planes, lines, 1), start))
    return views[0], views[1], views[2]


def _image_softmax(steps: Tensor, spare: Tensor) -> Tensor:
    """(M, B, 3, rows, W) colour steps to (M, B, rows, W) weights; overwrites both arguments."""
    # Two passes: E[x^2] - E[x]^2 loses the small deviations of nearly flat areas (errors up to 0.08).
    centred = torch.sub(steps, steps.mean(0), out=spare)
    deviation = (centred.square_().sum(0) / (len(steps) - 1)).sqrt_()
    # The mean over the channels of (step / deviation / sharpness)^2, its division taken into the factor.
    bands = steps.shape[2]
    factor = deviation.add_(_EPSILON).mul_(_SHARPNESS * math.sqrt(bands)).reciprocal_()
    scaled = steps.mul_(factor).square_()
    energy = scaled[:, :, 0] + scaled[:, :, 1]
    for band in range(2, bands):
        energy.add_(scaled[:, :, band])
    return torch.softmax(energy.neg_(), dim=0)


def _position_softmax(dilations: Sequence[int], device: torch.device) -> Tensor:
    diagonal = math.sqrt(2.0)
    ring = [diagonal, 1.0, diagonal, 1.0, 1.0, diagonal, 1.0, diagonal]
    distances = torch.tensor([d * r for d in dilations for r in ring], dtype=torch.float32, device=device)
    scaled = distances / (distances.std() + _EPSILON) / _SHARPNESS
    return torch.softmax(-scaled.square(), dim=0)


def _offsets(dilations: Sequence[int]) -> list[tuple[int, int]]:
    if not dilations or any(d < 1 for d in dilations):
        raise ValueError(f"dilations must be one or more distances of at least 1 pixel, got {dilations}")
    steps = (-1, 0, 1)
    return [(d * dy, d * dx) for d in dilations for dy in steps for dx in steps if (dy, dx) != (0, 0)]


def _window(padded: Tensor, top: int, left: int, rows: int, columns: int) -> Tensor:
    return padded[:, :, top : top + rows, left : left + columns]


def _row_blocks(height: int, rows: int) -> Iterator[tuple[int, int]]:
    for top in range(0, height, rows):
        yield top, min(rows, height - top)


def _check_maps(maps: Tensor, guide: Tensor) -> None:
    if (
        maps.ndim != 4
        or guide.ndim != 4
        or (maps.shape[0], *maps.shape[2:])
        != (
            guide.shape[0],
            *guide.shape[2:],
        )
    ):
        raise ValueError(
            f"maps must be (B, C, H, W) with the batch and size of their guide, got maps {tuple(maps.shape)} "
            f"for {tuple(guide.shape)}; resize one of them first"
        )
    require_finite("maps", maps)

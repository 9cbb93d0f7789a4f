"""Resizing with every choice named: images, maps, position embeddings, padding to the patch grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "banded",
    "extended",
    "on_whole_patches",
    "pad_to_multiple",
    "resize_bilinear",
    "resize_positions",
    "resize_positions_traced",
]


def resize_bilinear(
    values: Tensor, size: tuple[int, int], align_corners: bool = False, factor: float | None = None
) -> Tensor:
    """Bilinear resampling without antialiasing; the same tensor if the size already fits.

    Args:
        values: Images or maps, (B, C, H, W).
        size: Wanted (height, width).
        align_corners: Whether the corner pixels' centres stay in place.
        factor: The exact factor that was rounded down to `size`. Given, samples are 1 / factor apart instead
            of at the ratio of the sizes, and what is left of a pixel at the far border is cut off.
    """
    # An exported graph serves every size: it must not choose by that of the example it was traced with.
    if not torch.compiler.is_exporting() and tuple(values.shape[2:]) == tuple(size):
        return values
    if factor is not None:
        return F.interpolate(
            values,
            scale_factor=factor,
            mode="bilinear",
            align_corners=align_corners,
            recompute_scale_factor=False,
        )
    return F.interpolate(values, size=size, mode="bilinear", align_corners=align_corners)


def resize_positions(
    rows: Tensor,
    size: tuple[int, int],
    grid: tuple[int, int] | None = None,
    *,
    offset: float = 0.0,
    mode: str = "bicubic",
    antialias: bool = False,
) -> Tensor:
    """Position embedding of another patch grid.

    Args:
        rows: One row per patch of the stored grid, row-major, (1, N, D).
        size: Wanted grid (h, w).
        grid: Stored grid; a square if None.
        offset: 0 resamples to the wanted size. Otherwise the scale factor (size + offset) / grid is used as
            such for the sampling coordinates, as DINO and the papers built on it do with 0.1: same size,
            other values (4-9 % rms on random rows).
        mode: "bicubic", "bilinear" or "nearest".
        antialias: Whether to smooth when shrinking (timm's default; the papers do not).

    Returns:
        (1, h * w, D).

    Raises:
        ValueError: If the rows do not fill the grid, or offset and antialias are combined with "nearest".
    """
    height, width = grid or (round(rows.shape[1] ** 0.5),) * 2
    if rows.ndim != 3 or rows.shape[1] != height * width:
        raise ValueError(f"{tuple(rows.shape)} position rows do not fill a grid of {height} x {width}")
    if mode == "nearest" and (offset or antialias):
        raise ValueError("nearest resampling takes neither an offset nor antialiasing")
    table = rows.transpose(1, 2).reshape(rows.shape[0], -1, height, width)
    corners = None if mode == "nearest" else False
    if offset:
        factors = ((size[0] + offset) / height, (size[1] + offset) / width)
        table = F.interpolate(
            table,
            scale_factor=factors,
            mode=mode,
            align_corners=corners,
            antialias=antialias,
            recompute_scale_factor=False,
        )
    else:
        table = F.interpolate(table, size=size, mode=mode, align_corners=corners, antialias=antialias)
    return table.flatten(2).transpose(1, 2)


def resize_positions_traced(
    rows: Tensor, size: tuple[int, int], grid: tuple[int, int], offset: float, square: Tensor
) -> Tensor:
    """Bicubic `resize_positions` with an offset, for graphs that are traced once and serve every size.

    The weights are computed inside the graph from the size, and the stored grid keeps its rows.

    Args:
        rows: One row per patch of the stored grid, row-major, (1, N, D).
        size: Wanted grid (h, w), symbolic while tracing.
        grid: Stored grid.
        offset: See `resize_positions`; not 0.
        square: Whether the image is square, bool, (): only then is the stored grid left alone.

    Returns:
        (1, h * w, D).
    """
    table = rows.reshape(*grid, rows.shape[2])
    counts = [torch.ones(side, device=rows.device, dtype=torch.float64).sum() for side in size]
    stored = square & (counts[0] == grid[0]) & (counts[1] == grid[1])
    down, across = (
        # The rows that the step is worked out for: the offset is not added where the grid is left alone.
        _cubic_weights(torch.where(stored, count, count + offset), side, full)
        for count, side, full in zip(counts, size, grid, strict=True)
    )
    made = torch.einsum("ih,hwd,jw->ijd", down, table, across)
    return made.reshape(1, -1, rows.shape[2])


def _cubic_weights(count: Tensor, length: int, source: int) -> Tensor:
    """PyTorch's bicubic weights (length, source): Keys' cubic with a = -0.75, borders repeated.

    Args:
        count: What the rows there are count as in the wanted grid, float64, (): `length` or a little more.
        length: Rows wanted.
        source: Rows there are.
    """
    # PyTorch works the step out in double precision, too, and everything else in single.
    step = (source / count).float()
    place = (torch.arange(length, device=count.device)[:, None] + 0.5) * step - 0.5
    rows = place.floor() + torch.arange(-1, 3, device=count.device)  # the four around each place
    distance = (place - rows).abs()
    near = (1.25 * distance - 2.25) * distance * distance + 1
    far = ((-0.75 * distance + 3.75) * distance - 6.0) * distance + 3.0
    weights = torch.where(distance <= 1, near, far)
    index = rows.clamp(0, source - 1)
    hit = index[..., None] == torch.arange(source, device=count.device)
    return torch.where(hit, weights[..., None], 0.0).sum(1)


def pad_to_multiple(images: Tensor, multiple: int, value: float | Sequence[float] | Tensor = 0.0) -> Tensor:
    """Pad at the bottom and right until both sides are multiples of a patch.

    Args:
        images: (B, C, H, W).
        multiple: Patch side in pixels.
        value: What the border holds, one value or one per channel; fewer are repeated, see `banded`.
    """
    if multiple == 1:
        return images
    # Written with whole patches, not as a remainder: so much a tracer of all sizes can reason about.
    bottom, right = ((side + multiple - 1) // multiple * multiple - side for side in images.shape[2:])
    if not torch.compiler.is_exporting() and not (bottom or right):
        return images
    border = (0, right, 0, bottom)
    if isinstance(value, float | int):
        return F.pad(images, border, value=value)
    values = value if isinstance(value, Tensor) else images.new_tensor(list(value))
    colour = banded(values.view(-1), images.shape[1]).view(1, -1, 1, 1).to(images)
    inside = F.pad(torch.ones_like(images[:1, :1]), border)
    return torch.where(inside > 0, F.pad(images, border), colour)


def banded(values: Tensor, bands: int) -> Tensor:
    """Numbers of red, green and blue for any number of bands: repeated from the first on, (bands, ...)."""
    if values.shape[0] == bands:
        return values
    return values.repeat(-(-bands // values.shape[0]), *[1] * (values.ndim - 1))[:bands]


def extended(images: Tensor, side: int) -> Tensor:
    """Images at least `side` pixels high and wide: what is missing repeats the border at bottom and right.

    Args:
        images: (B, C, H, W).
        side: Smallest height and width in pixels.
    """
    # An exported graph takes no images that small.
    if torch.compiler.is_exporting():
        return images
    below, right = (max(side - length, 0) for length in images.shape[2:])
    return F.pad(images, (0, right, 0, below), mode="replicate") if below or right else images


def on_whole_patches(
    fn: Callable[[Tensor], Tensor], multiple: int, colour: float | Sequence[float] | Tensor
) -> Callable[[Tensor], Tensor]:
    """A function of images of any size, made of one that needs whole patches and answers for every patch.

    Without the padding, what exceeds a patch would be lost, and the answer stretched over all of the image.

    Args:
        fn: (n, 3, H, W) to (n, ..., h, w), the sides H and W being multiples of `multiple`.
        multiple: Patch side in pixels.
        colour: Of the padding, see `pad_to_multiple`.

    Returns:
        A function that gives what `fn` gives for images that fit, and (n, ..., H, W) for the others: the
        answer for the padded image, enlarged and cut to the image.
    """

    def run(images: Tensor) -> Tensor:
        padded = pad_to_multiple(images, multiple, colour)
        found = fn(padded)
        if padded is images:
            return found
        planes = found.reshape(found.shape[0], -1, *found.shape[-2:])
        large = resize_bilinear(planes, (padded.shape[2], padded.shape[3]))
        large = large.reshape(*found.shape[:-2], *large.shape[-2:])
        return large[..., : images.shape[2], : images.shape[3]]

    return run

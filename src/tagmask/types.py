"""What passes between the parts of tagmask.

Letters used in every docstring: B batch, K foreground classes, C = K + 1 channels (background first),
D embedding width, L blocks, A attention heads, H x W pixels, h x w patch grid, N = h * w patch tokens,
P prefix tokens, T = P + N tokens. Sizes are (height, width). Label 0 is background, k + 1 is class k,
255 is "ignore".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

__all__ = [
    "IGNORE",
    "MEAN_COLOUR",
    "Batch",
    "OptimPlan",
    "ParamGroup",
    "SegmentationPlan",
    "StepResult",
    "ViewPlan",
]

IGNORE = 255
"""Label of pixels that take no part in a loss or a score."""

MEAN_COLOUR = (0.485, 0.456, 0.406)
"""ImageNet's mean RGB in [0, 1]; padding of this colour is zero after the usual normalisation."""

_T = TypeVar("_T", bound="Batch")


@dataclass(frozen=True)
class Batch:
    """Images with what is known about them.

    Attributes:
        images: RGB in [0, 1], float32, (B, 3, H, W), as `ops.images.unit` makes them; with `data.bands`,
            (B, C, H, W) with C above 3. Backbones normalise, nobody else.
        tags: Image-level labels, 0 or 1, float32, (B, K).
        names: One name per image.
        boxes: Valid content as [top, bottom, left, right) in pixels, int64, (B, 4); None if all of it is.
        labels: Per-pixel labels to learn from (pseudo labels or corrections, never evaluation masks),
            int64, (B, H, W), 255 = ignore; None if the method makes its own.
        corrected: Further images, whose labels a person corrected; None if nobody corrected any.
    """

    images: Tensor
    tags: Tensor
    names: tuple[str, ...]
    boxes: Tensor | None = None
    labels: Tensor | None = None
    corrected: Batch | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.shape[1] < 3 or not self.images.is_floating_point():
            raise ValueError(
                f"images must be RGB in [0, 1], (B, 3, H, W), got {self.images.dtype} "
                f"{tuple(self.images.shape)}"
            )
        size = self.images.shape[0]
        if self.tags.ndim != 2 or self.tags.shape[0] != size or len(self.names) != size:
            raise ValueError(
                f"{size} images need {size} rows of tags and names, "
                f"got tags {tuple(self.tags.shape)} and {len(self.names)} names"
            )
        if self.boxes is not None and tuple(self.boxes.shape) != (size, 4):
            raise ValueError(f"boxes must be ({size}, 4), got {tuple(self.boxes.shape)}")
        if self.labels is not None and self.labels.shape != (size, *self.images.shape[2:]):
            raise ValueError(
                f"labels must be (B, H, W) like the images, got {tuple(self.labels.shape)} "
                f"for images {tuple(self.images.shape)}"
            )

    def _map(self: _T, fn: Callable[[Tensor], Tensor]) -> _T:
        changed: dict[str, Any] = {
            f.name: fn(value)
            for f in dataclasses.fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        if self.corrected is not None:
            changed["corrected"] = self.corrected._map(fn)
        return dataclasses.replace(self, **changed)

    def to(self: _T, device: torch.device | str, non_blocking: bool = True) -> _T:
        """The same batch with every tensor on `device`."""
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self: _T) -> _T:
        """The same batch in page-locked memory, for fast copies to a GPU."""
        return self._map(lambda t: t.pin_memory())


@dataclass(frozen=True)
class StepResult:
    """What one training step gives back.

    Attributes:
        loss: Total loss, scalar with gradient.
        logs: Named detached scalars worth plotting (the single losses); read by the loop at log time only,
            so that a step never waits for the device.
    """

    loss: Tensor
    logs: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class ParamGroup:
    """Parameters that share a learning rate and a weight decay.

    Attributes:
        name: Shown in logs.
        params: The parameters, in the model's order.
        lr: Base learning rate of the group; the schedule multiplies it.
        weight_decay: Decoupled weight decay for AdamW, L2 for SGD.
    """

    name: str
    params: Sequence[nn.Parameter]
    lr: float
    weight_decay: float


@dataclass(frozen=True)
class OptimPlan:
    """How a method wants to be optimised.

    Attributes:
        name: "adamw" or "sgd".
        groups: Parameter groups in the order of the paper's code.
        factor: Update index (0-based) to the multiplier of every group's base rate; or one multiplier per
            group when the groups follow different curves.
        betas: AdamW's moments.
        eps: AdamW's epsilon.
        momentum: SGD's momentum.
        nesterov: SGD's look-ahead.
        max_grad_norm: Gradient clipping by global norm; None switches it off.
    """

    name: str
    groups: Sequence[ParamGroup]
    factor: Callable[[int], float | Sequence[float]]
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: float = 0.0
    nesterov: bool = False
    max_grad_norm: float | None = None


@dataclass(frozen=True)
class ViewPlan:
    """How the views of one image become one stack of class maps in [0, 1].

    Attributes:
        scales: Resize factors of the image; the first one is usually 1.
        flip: "max" keeps the larger of a view and its mirror image, "sum" adds them, "none" does not mirror.
        relu: "view" rectifies every view before the sum, "sum" rectifies the sum, "none" keeps negatives.
        epsilon: Added to the maximum when a map is scaled to [0, 1]; papers differ.
        scaling: "min_max", "shifted" (TransCAM) or "max" (PSA); see `ops.maps.scale_maps`.
        base: Side of a square that replaces the image's own size; the aspect ratio is lost (TransCAM).
        rounding: Sides of views are rounded "down" or to the "nearest" pixel.
        resample: "bilinear", or "pillow" for Pillow's bicubic on 8 bits.
        pad: Views are padded at the bottom and right to multiples of this; 1 leaves them as they are.
        pad_colour: RGB of the padding; the ImageNet mean is zero after normalisation.
        mirror_padding: Whether the twin mirrors the padded view or pads the mirrored one.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: str = "max"
    relu: str = "view"
    epsilon: float = 1e-5
    scaling: str = "min_max"
    base: int | None = None
    rounding: str = "down"
    resample: str = "bilinear"
    pad: int = 1
    pad_colour: tuple[float, ...] = MEAN_COLOUR
    mirror_padding: bool = False


@dataclass(frozen=True)
class SegmentationPlan:
    """How the views of one image become one stack of segmentation scores.

    Attributes:
        sizes: (height, width) of every view.
        first: Size that the image gets before views are made of it; its own if None.
        flip: "sum" or "mean" of a view and its mirror image, or "none".
        merge: "max", "mean" or "sum" over the views.
        probabilities: Merge softmax values instead of logits.
        at_logits: Merge at the size of the first view's logits instead of the image's.
        sampling: "bilinear"; "corners", where corner pixels stay in place; or "opencv", its arithmetic on 8
            bits.
        factors: Distance of bilinear samples, a view; the ratio of the rounded sizes if None.
        exits: Weights of the decoder's last exits, the earliest first; the last exit alone if empty.
        window: (side, stride, batch) of the squares that views are cut into; whole views if None.
    """

    sizes: tuple[tuple[int, int], ...]
    first: tuple[int, int] | None = None
    flip: str = "none"
    merge: str = "max"
    probabilities: bool = False
    at_logits: bool = False
    sampling: str = "bilinear"
    factors: tuple[float, ...] | None = None
    exits: tuple[float, ...] = ()
    window: tuple[int, int, int] | None = None

"""The contract of a method: one paper, one file, one settings class, one module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from tagmask.config import Config, Scales
from tagmask.errors import ConfigError
from tagmask.ops.multiscale import in_small_calls, multi_scale, view_sizes
from tagmask.ops.pooling import SoftPooling
from tagmask.types import Batch, OptimPlan, SegmentationPlan, StepResult, ViewPlan

__all__ = ["Method", "MethodConfig", "SegmentationViews", "in_mode", "ordered"]


class MethodConfig(Config):
    """Settings every method has; each method adds its own, with the paper's reason beside each default."""

    backbone: str
    """Name of the network, for example a timm ViT."""
    weights: str = "hub"
    """Where the pretrained backbone comes from: "hub", "none" or a path to a local file."""

    updates: ClassVar[tuple[str, ...]] = ()
    """Settings that are numbers of updates; a run that is made shorter shrinks them alike."""


class SegmentationViews(Config):
    """How whole images are segmented; a method with a way of its own adds options."""

    size: int | None = Field(default=None, ge=16)
    """Images become squares of this side first; their own size if not given."""
    scales: Scales = (1.0,)
    """Resize factors of the views."""
    flip: Literal["sum", "mean", "none"] = "none"
    """How a view merges with its mirror image."""
    merge: Literal["max", "mean", "sum"] = "max"
    """How scales merge."""
    probabilities: bool = False
    """Merge probabilities instead of logits."""

    def plan(self, size: tuple[int, int]) -> SegmentationPlan:
        """The views of an image of (height, width) pixels, and how they merge."""
        return SegmentationPlan(
            sizes=tuple(view_sizes(*size, self.scales, base=self.size)),
            flip=self.flip,
            merge=self.merge,
            probabilities=self.probabilities,
        )


def ordered(config: MethodConfig, *pairs: tuple[str, str]) -> None:
    """Refuse settings of which the first is above the second.

    Raises:
        ValueError: One is; pydantic makes it part of its own error.
    """
    for first, second in pairs:
        small, large = getattr(config, first), getattr(config, second)
        if small > large:
            raise ValueError(f"{first} {small} is above {second} {large}")


@contextmanager
def in_mode(module: nn.Module, training: bool) -> Iterator[None]:
    """Training or evaluation mode for as long as it lasts; the mode before comes back whatever happens."""
    before = module.training
    module.train(training)
    try:
        yield
    finally:
        module.train(before)


class Method(nn.Module, ABC):
    """A network with its training step and what it can say about an image afterwards.

    The forward pass is the training step, so that a wrapper for several processes wraps the method once.
    Scales, flips, thresholds and files belong to the caller; a method answers for one view.

    Args:
        config: Settings of the method.
        num_classes: K, the number of foreground classes.
    """

    config_class: ClassVar[type[MethodConfig]]
    views_class: ClassVar[type[SegmentationViews]] = SegmentationViews
    """How it segments whole images, for methods that `segments`."""
    map_kinds: ClassVar[tuple[str, ...]] = ()
    """Kinds of class maps the method offers ("cam", "aux_cam", "lam", ...), the default first."""
    side_multiple: int = 1
    """Sides of the images a pass takes must be multiples of this."""
    analysis_size: int = 224
    """Side of the squares that the layer-wise analysis looks at, where the method has one."""
    segments: ClassVar[bool] = False
    """Whether `segment` gives a mask (single-stage methods and segmenters)."""
    sync_norms: ClassVar[bool] = False
    """Whether batch norms take their statistics over all processes, as the paper's code does."""
    has_class_tokens: ClassVar[bool] = False
    """Whether `class_tokens` gives an embedding per class."""
    background_shift: Tensor | None
    """What `segment` adds to the background's logit, (1,), fitted behind a training on labels; None where
    nothing is fitted."""

    def __init__(self, config: MethodConfig, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.register_buffer("background_shift", None)

    @property
    def view_kinds(self) -> tuple[str, ...]:
        """The kinds of maps that `view_maps` makes; the others need several views."""
        return self.map_kinds

    def size_problem(self, size: int) -> str | None:
        """Why training views of `size` x `size` pixels cannot be learned from; None if they can."""
        if size % self.side_multiple:
            return f"{type(self).__name__} needs sides that are multiples of {self.side_multiple}"
        return None

    def check_size(self, size: int) -> None:
        """Refuse training views of a size the method cannot take.

        Raises:
            ConfigError: It cannot; the message names the nearest size that it can.
        """
        if problem := self.size_problem(size):
            near = [side for d in range(1, 1025) for side in (size - d, size + d) if side > 0]
            right = next((side for side in near if self.size_problem(side) is None), None)
            advice = f"; the nearest size that fits is {right}" if right else ""
            raise ConfigError(f"train.size {size}: {problem}{advice}")

    @abstractmethod
    def forward(self, batch: Batch, step: int) -> StepResult:
        """One training step: total loss and what to log, for the 0-based update `step`."""

    @abstractmethod
    def optim_plan(self, iterations: int) -> OptimPlan:
        """Optimiser, parameter groups and rate curve for a run of `iterations` updates."""

    @abstractmethod
    def initialise(self, weights: str) -> None:
        """Load the pretrained backbone from "hub", "none" (leave random) or a local file.

        Raises:
            CheckpointError: The file is missing, damaged or of another shape, or the hub cannot be reached.
        """

    @classmethod
    def batch_rule(cls, config: MethodConfig) -> tuple[float, int] | None:
        """Base rate (the setting `lr`) and the batch it is for, if the paper's rate grows with the batch.

        That is the rule of DeiT and its descendants, rate times batch / 512; None where the paper has none.
        """
        return None

    @classmethod
    def convert_weights(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The authors' published checkpoint under this module's names, to be loaded strictly."""
        return {key.removeprefix("module."): value for key, value in state.items()}

    def classify(self, images: Tensor) -> Tensor:
        """Class logits (B, K) for images (B, 3, H, W) in [0, 1]."""
        raise AttributeError(f"{type(self).__name__} has no image classifier")

    def head_tokens(self, images: Tensor) -> dict[str, Tensor]:
        """What linear classifiers on a backbone that is frozen read, {head: (B, N, D)}; else empty."""
        return {}

    def head_reading(self, head: str) -> tuple[SoftPooling, bool]:
        """How a head's map becomes a logit, and whether it has a bias."""
        raise AttributeError(f"{type(self).__name__} has no head '{head}'")

    def set_head(self, head: str, weight: Tensor, bias: Tensor) -> None:
        """Give a head that was fitted elsewhere its weights (K, D) and bias (K,)."""
        raise AttributeError(f"{type(self).__name__} has no head '{head}'")

    def segment(self, images: Tensor) -> Tensor:
        """Segmentation logits (B, K + 1, h', w') for images (B, 3, H, W) in [0, 1]."""
        raise AttributeError(f"{type(self).__name__} makes no segmentation; train a segmenter on its labels")

    def segment_exits(self, images: Tensor, count: int) -> Tensor:
        """Logits (B, count, K + 1, h', w') of the decoder's last `count` exits, the earliest first.

        Raises:
            ConfigError: The decoder has fewer exits.
        """
        if count != 1:
            raise ConfigError(f"{type(self).__name__} has one exit, not {count}")
        return self.segment(images).unsqueeze(1)

    def class_tokens(self, images: Tensor) -> Tensor:
        """Embedding of every class in every image, (B, K, D), for images (B, 3, H, W) in [0, 1]."""
        raise AttributeError(f"{type(self).__name__} has no class tokens")

    def view_maps(self, images: Tensor, kinds: Sequence[str]) -> dict[str, Tensor]:
        """Raw class maps of one view on the patch grid: {kind: (B, K, h, w)}, any range, detached."""
        raise AttributeError(f"{type(self).__name__} makes no class maps")

    def view_plan(self, kind: str) -> ViewPlan:
        """How the paper merges scales and flips for maps of this kind."""
        return ViewPlan()

    def maps(
        self,
        images: Tensor,
        kinds: Sequence[str] | None = None,
        plan: ViewPlan | None = None,
        tags: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Class maps merged over scales and flips, scaled to [0, 1] per image and class.

        Args:
            images: RGB in [0, 1], (B, 3, H, W).
            kinds: Which maps; the method's first kind if None. Kinds that share a plan share their passes.
            plan: Overrides the paper's scales and flips.
            tags: Classes the images are known to show, (B, K); for kinds in which the classes of an image
                compete, which then do without a guess.

        Returns:
            {kind: (B, K, H, W)}, for all K classes whether tagged or not.
        """
        wanted = tuple(kinds or self.map_kinds[:1])
        groups: dict[ViewPlan, list[str]] = {}
        for kind in wanted:
            groups.setdefault(plan or self.view_plan(kind), []).append(kind)
        merged: dict[str, Tensor] = {}
        for shared, names in groups.items():
            merged |= multi_scale(partial(self._views_maps, names), images, shared)
        return {kind: merged[kind] for kind in wanted}

    def _views_maps(self, kinds: Sequence[str], views: Tensor) -> dict[str, Tensor]:
        fn = partial(self.view_maps, kinds=kinds)
        # Batch norm that learns must see all views at once.
        return fn(views) if self.training else in_small_calls(fn, views)

    def config_values(self) -> dict[str, Any]:
        """Settings as plain values, for the checkpoint header."""
        config: MethodConfig = self.config
        return config.model_dump(mode="json")

    config: Any

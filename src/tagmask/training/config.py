"""Settings of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from tagmask.config import Config
from tagmask.inference.given_views import GivenViews
from tagmask.inference.views import MapConfig
from tagmask.training.heads import HeadsConfig
from tagmask.training.loop import LoopSettings

__all__ = ["TrainConfig"]


class TrainConfig(Config):
    """How long, on what views, and what is kept."""

    iterations: int = Field(default=20000, ge=1)
    """Updates of the weights."""
    batch_size: int = Field(default=4, ge=1)
    """Images per update, over all processes and micro-batches."""
    accumulate: int = Field(default=1, ge=1)
    """Micro-batches per update: the same update in less memory."""
    gradient_checkpointing: bool = False
    """Keep only the input of each block of the backbone and compute the rest again for the gradient: much
    less memory, about a third more time, the same numbers. For ViT and Mix Transformer backbones."""
    size: int = Field(default=448, ge=16)
    """Side of the training views in pixels."""
    view: str = "resized_crop"
    """Random training view: resized_crop, scale_pad_crop, scale_crop, long_side_crop, imagenet,
    affinity_crop, batch_scale_crop or short_side_crop."""
    view_settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of the view that differ from the paper's."""
    workers: int | None = Field(default=None, ge=0)
    """Processes that read images ahead; chosen by the machine if not given."""
    labels: Path | None = None
    """Folder of label images to learn from, for methods that need them."""
    corrections: Path | None = None
    """Masks that a person corrected for some of the images: a folder, or a .zip or .json of an annotation
    tool. They supervise the segmentation directly, beside the tags of all images."""
    corrections_batch: int = Field(default=4, ge=1)
    """Corrected images per micro-batch and process."""
    corrections_weight: float = Field(default=1.0, ge=0)
    """Factor of their loss."""
    heads: HeadsConfig | None = None
    """Fit the linear classifiers of a backbone that is frozen to the tokens of iterations x batch_size
    views at once, instead of by updates. Two of three batches are of whole images."""
    start: Path | None = None
    """Run or model folder whose weights training starts from, instead of the pretrained backbone."""
    rate: float = Field(default=1.0, gt=0)
    """Factor of all the method's learning rates; 0.2 suits continuing from a trained model (`start`)."""
    max_side: int | None = Field(default=None, ge=16)
    """Shrink larger pictures to this side before the view."""
    log_every: int = Field(default=20, ge=1)
    """Updates between two rows of the log."""
    eval_every: int = Field(default=2000, ge=0)
    """Updates between two evaluations on masks; 0 leaves them out."""
    eval_images: int | None = Field(default=None, ge=1)
    """How many images an evaluation uses; all if not given."""
    eval_maps: MapConfig = MapConfig()
    """Which maps are evaluated on the way, and how they are made."""
    eval_segment: GivenViews | None = None
    """How images are segmented on the way; in one view of the size in `eval_maps` if not given."""
    eval_background: float = Field(default=0.5, ge=0, le=1)
    """Map values up to this are background in these evaluations."""
    save_every: int = Field(default=1000, ge=0)
    """Updates between two saved states; 0 saves at the end and when stopped."""
    keep: int = Field(default=2, ge=1)
    """How many saved states are kept."""
    final: Literal["last", "best"] = "last"
    """Which weights become the model; "best" chose by true masks, so scores on those are optimistic."""
    best_by: str | None = None
    """Score that decides what is best; segmentation, else the first kind of map, if not given."""
    tensorboard: bool = True
    """Write event files for TensorBoard."""
    max_bad: int = Field(default=20, ge=1)
    """Stop after this many updates in a row without a finite loss."""
    broken_limit: int = Field(default=10, ge=0)
    """Unreadable images that are skipped before training stops."""

    @property
    def tag_side(self) -> int:
        """Images to score tags on are shrunk to this side: not much larger than what was learned from."""
        return min(self.max_side or 2 * self.size, 2 * self.size)

    def loop(self) -> LoopSettings:
        """What the loop needs of these settings."""
        return LoopSettings(
            self.iterations,
            self.accumulate,
            self.log_every,
            self.eval_every,
            self.save_every,
            self.max_bad,
        )

"""What a model is taught, how, and what became of it; see `tagmask.training.teach`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tagmask.data.readers.images import read_image
from tagmask.errors import ConfigError, DataError
from tagmask.methods.base import Method
from tagmask.models.trained import Trained
from tagmask.store.labels import read_mask
from tagmask.types import IGNORE

__all__ = ["Lesson", "Taught", "TeachConfig", "as_trained", "check_lessons"]


@dataclass(frozen=True)
class Lesson:
    """An image and the labels to learn from it.

    Attributes:
        name: Unique among the lessons.
        image: Pixels (H, W, C) uint8, a photograph's file, or what reads the pixels when they are needed.
        mask: Labels (H, W) uint8, or a label image: 0 background, k + 1 class k, 255 unknown. Unknown pixels
            teach nothing.
        tags: 0-based classes that are known whenever a mask of such an image is made; None if nobody tells.
    """

    name: str
    image: NDArray[np.uint8] | Path | Callable[[], NDArray[np.uint8]]
    mask: NDArray[np.uint8] | Path
    tags: tuple[int, ...] | None = None

    def read(self, num_classes: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Pixels and labels.

        Raises:
            DataError: One cannot be read, they differ in size, or a label is no class.
        """
        image = self.image
        if not isinstance(image, np.ndarray):
            image = read_image(image) if isinstance(image, Path) else image()
        mask = read_mask(self.mask) if isinstance(self.mask, Path) else self.mask
        if mask.shape != image.shape[:2]:
            raise DataError(
                f"the mask of '{self.name}' is {mask.shape[1]} x {mask.shape[0]}, its image "
                f"{image.shape[1]} x {image.shape[0]}; they must match pixel by pixel"
            )
        known = mask[mask != IGNORE]
        if known.size and int(known.max()) > num_classes:
            raise DataError(
                f"the mask of '{self.name}' holds label {int(known.max())}; the model knows 0 to "
                f"{num_classes}, and 255 for unknown"
            )
        return image, mask


@dataclass(frozen=True)
class TeachConfig:
    """How a model is taught; the defaults were chosen on photographs of animals.

    Attributes:
        blocks: Blocks of a vision transformer that learn.
        side: Side of the views in pixels; that of the network's own position table if None.
        views: Views of a corrected image, at most.
        lr: Rate of the blocks.
        lr_heads: Rate of what lies behind them.
        weight: Of the images that nobody corrected.
        epochs: How often every view is seen.
        updates: At most.
        seed: Views, order and what is held back follow from it.
    """

    blocks: int = 3
    side: int | None = None
    views: int = 6
    lr: float = 1e-4
    lr_heads: float = 5e-4
    weight: float = 0.3
    epochs: int = 6
    updates: int = 400
    seed: int = 0


@dataclass(frozen=True)
class Taught:
    """What became of it.

    Attributes:
        trained: The new model; None if it is not better, or the work was stopped.
        before: Mean IoU of the old model on corrections held back, in one view; not a number if there is no
            known pixel, or the work was stopped.
        after: Of the new one.
        corrections: How many were learned from.
        others: Images that came along with their old labels.
        held: Corrections that were held back.
        updates: Of the weights.
        seconds: In all.
        stopped: Whether `stop` said so.
    """

    trained: Trained | None
    before: float = float("nan")
    after: float = float("nan")
    corrections: int = 0
    others: int = 0
    held: int = 0
    updates: int = 0
    seconds: float = 0.0
    stopped: bool = False

    @property
    def text(self) -> str:
        """The outcome in one sentence."""
        if self.stopped:
            return f"stopped after {self.seconds:.0f} s; the model is as it was"
        scores = f"mean IoU on {self.held} corrections held back: {100 * self.before:.1f} before, "
        scores += f"{100 * self.after:.1f} after"
        end = "the new model is better" if self.trained else "no better, so the model stays as it was"
        return f"{scores} ({self.corrections} corrections, {self.seconds:.0f} s); {end}"


def as_trained(method: Method, before: Trained, result: Taught) -> Trained:
    """A method that was taught, with a header that says where it comes from.

    Args:
        method: What learned.
        before: What was taught.
        result: The scores to note.
    """
    for param in method.parameters():
        param.requires_grad_(True)
    extra = dict(before.meta.get("extra", {}))
    scores = {"before": round(result.before, 5), "after": round(result.after, 5)}
    extra["taught"] = {"from": before.checksum, "corrections": result.corrections, **scores}
    meta = {**before.meta, "extra": extra} if before.meta else {}
    return dataclasses.replace(before, method=method.cpu().eval(), checksum="", meta=meta)


def check_lessons(trained: Trained, corrections: Sequence[Lesson], seconds: float) -> None:
    """Refuse what cannot be learned from.

    Args:
        trained: The model.
        corrections: What shall teach it.
        seconds: Time for it.

    Raises:
        ConfigError: The method does not segment, or the time is no positive number.
        DataError: There are fewer than two corrections, or two of one image.
    """
    if not type(trained.method).segments:
        raise ConfigError(
            f"{type(trained.method).__name__} does not segment, so it cannot learn from corrected masks; "
            "use the segmenter that was trained on its labels, or use a single-stage method (more, afa)"
        )
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"the time must be a positive number of seconds, got {seconds}")
    if len(corrections) < 2:
        raise DataError(
            f"this needs at least 2 corrected images, because one is held back for checking; got "
            f"{len(corrections)}"
        )
    if len({lesson.name for lesson in corrections}) != len(corrections):
        raise DataError("two corrections have the same name; every image is corrected once")

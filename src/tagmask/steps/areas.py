"""Masks that cover about as much of the images as the labels they were learned from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tagmask.data import TagDataset
from tagmask.data.loader import eval_images
from tagmask.inference.views import image_scores
from tagmask.methods.base import Method, SegmentationViews
from tagmask.models.trained import Trained, load_trained, save_method
from tagmask.steps.base import Context
from tagmask.steps.cuts import some_tagged
from tagmask.store.files import file_for
from tagmask.store.labels import read_mask
from tagmask.types import IGNORE

__all__ = ["area_shift", "match_area"]

_SIDE = 96
_LEAST = 0.001
_CLEARLY = 1.5


def match_area(
    folder: Path, dataset: TagDataset, labels: Path, views: SegmentationViews, context: Context
) -> dict[str, Any]:
    """Fit a model's background logit and write the model again.

    Labels of images with tags say how much of them is foreground. A network taught with a balanced loss finds
    more, which drowns small things; labels themselves leave out soft borders. So where masks cover half as
    much again as labels or more, the logit moves half of the way.

    Args:
        folder: Model whose method has a `background_shift`; one without is left alone.
        dataset: Images it learned from.
        labels: Folder of their labels.
        views: How it will segment.
        context: The run.

    Returns:
        ``background_shift`` and ``label_area``, or nothing if nothing was fitted.

    Raises:
        UserError: An image, a label or the model cannot be read.
    """
    trained = load_trained(folder)
    if trained.method.background_shift is None:
        return {}
    pairs = _margins(trained.method.to(context.runtime.device).eval(), dataset, labels, views, context)
    if pairs is None:
        return {}
    margins, foreground = pairs
    shift, share = area_shift(margins, foreground), float(foreground.float().mean())
    if shift is None:
        return {}
    found = float((margins < 0).float().mean())
    fitted = trained.method.background_shift
    if found < _CLEARLY * share:
        return {"background_shift": round(float(fitted), 4), "label_area": round(share, 4)}
    # A model that another one was begun from may have a shift already, which the margins hold.
    fitted.add_(shift / 2)
    _save(folder, trained)
    context.display.say(
        f"background shifted by {shift / 2:+.2f}: masks would cover {100 * found:.1f} % of tagged images, "
        f"labels {100 * share:.1f} %; half way between"
    )
    return {"background_shift": round(float(fitted), 4), "label_area": round(share, 4)}


def area_shift(margins: Tensor, foreground: Tensor) -> float | None:
    """What to add to the background's logit so that as many pixels are foreground as in the labels.

    Args:
        margins: The background's logit minus the largest other one, of every labelled pixel, (N,).
        foreground: Whether the label says so, bool, (N,).

    Returns:
        The shift; None where labels are all background, or have hardly any.
    """
    share = float(foreground.float().mean())
    if not _LEAST < share < 1 - _LEAST:
        return None
    ordered = margins.sort().values
    place = min(len(ordered) - 1, max(0, round(share * len(ordered))))
    return -float(ordered[place])


def _margins(
    method: Method, dataset: TagDataset, labels: Path, views: SegmentationViews, context: Context
) -> tuple[Tensor, Tensor] | None:
    margins, foreground = [], []
    for _, batch in eval_images(some_tagged(dataset, 120)):
        path = file_for(labels, batch.names[0], ".png")
        if not path.exists():
            continue
        label = torch.from_numpy(read_mask(path))[None, None]
        size = (min(_SIDE, label.shape[2]), min(_SIDE, label.shape[3]))
        label = F.interpolate(label, size, mode="nearest")[0, 0]
        images = batch.images.to(context.runtime.device)
        with _any_classes(method):
            scores = image_scores(method, images, context.runtime, views).cpu()
        scores = F.interpolate(scores, size, mode="bilinear")[0]
        known = label != IGNORE
        margins.append((scores[0] - scores[1:].amax(0))[known])
        foreground.append((label > 0)[known])
    return (torch.cat(margins), torch.cat(foreground)) if margins else None


@contextmanager
def _any_classes(method: Method) -> Iterator[None]:
    """Scores without the knowledge that classes exclude each other, where a method has it.

    That knowledge makes the masks of whole images smaller or larger, and by too little for images that the
    network learned from, whose tags it is sure of. What is fitted here is the decoder's part.
    """
    config = method.config
    if "classes_per_image" in type(config).model_fields:
        method.config = config.model_copy(update={"classes_per_image": "any"})
    try:
        yield
    finally:
        method.config = config


def _save(folder: Path, trained: Trained) -> None:
    meta = trained.meta
    save_method(folder, trained.method, trained.name, trained.classes, meta["metrics"], meta["extra"])

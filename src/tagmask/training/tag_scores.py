"""How well a method predicts the tags of images that it did not learn from."""

from __future__ import annotations

import torch

from tagmask.data import TagDataset
from tagmask.data.readers.images import rgb_tensor
from tagmask.engine.line import figures_text
from tagmask.engine.log import Display
from tagmask.engine.runtime import Runtime
from tagmask.errors import DataError
from tagmask.inference.views import tag_chances
from tagmask.methods.base import Method
from tagmask.metrics.tags import mean_average_precision, multilabel_f1

__all__ = ["can_classify", "score_tags"]


def can_classify(method: type[Method]) -> bool:
    """Whether a method says which classes an image shows; a segmenter does not."""
    return method.classify is not Method.classify


def score_tags(
    method: Method, dataset: TagDataset, runtime: Runtime, display: Display, side: int
) -> dict[str, float]:
    """Score the classifier, each image whole; processes share the images.

    Args:
        method: In eval mode, and one that classifies.
        dataset: Images with tags; those that cannot be read are stepped over.
        runtime: Device, precision and processes.
        display: Says the figures.
        side: Larger pictures are shrunk to this side.

    Returns:
        "map", the mean average precision over the classes that occur; "f1", the mean over images at a
        probability of 0.5; "images", how many were scored. NaN where no image could be read.
    """
    # Truth, probability, and whether the image was read: one table to add up over the processes.
    table = torch.zeros(len(dataset), 2 * dataset.num_classes + 1)
    for index in range(runtime.rank, len(dataset), runtime.world):
        try:
            image = rgb_tensor(dataset.image(index, max_side=side))
        except DataError:
            continue
        chances = tag_chances(method, image[None].to(runtime.device), runtime)[0]
        table[index] = torch.cat([dataset.tags(index), chances, torch.ones(1)])
    table = runtime.reduce(table).cpu()
    seen, count = table[table[:, -1] > 0], dataset.num_classes
    truth, chances = seen[:, :count], seen[:, count:-1]
    scores = {
        "images": float(len(seen)),
        "map": mean_average_precision(truth, chances),
        "f1": float(multilabel_f1(truth, chances - 0.5).mean()),
    }
    figures = {"mAP": 100 * scores["map"], "F1": 100 * scores["f1"]}
    display.say(f"tags of {scores['images']:.0f} held-out images: {figures_text(figures)}")
    return scores

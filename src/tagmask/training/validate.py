"""Scores of a method in memory, while it trains."""

from __future__ import annotations

import torch

from tagmask.data import TagDataset
from tagmask.data.loader import eval_images
from tagmask.engine.log import Display
from tagmask.engine.runtime import Runtime
from tagmask.inference.predictor import Predictor, Use, picture_of
from tagmask.inference.views import MapConfig, map_kinds
from tagmask.methods.base import Method, SegmentationViews
from tagmask.metrics.confusion import ConfusionMatrix, Scores
from tagmask.ops.labels import labels_from_maps

__all__ = ["validate_method"]


def validate_method(
    method: Method,
    dataset: TagDataset,
    runtime: Runtime,
    display: Display,
    config: MapConfig,
    background: float,
    views: SegmentationViews | None = None,
) -> dict[str, Scores]:
    """Scores of every kind of map (true tags, fixed threshold) and of the segmentation.

    Processes share the images; one confusion matrix per kind is summed over them.

    Args:
        method: In eval mode.
        dataset: Opened with masks.
        runtime: Device and processes.
        display: Progress.
        config: Which maps, from which views.
        background: Map values up to this are background.
        views: How images are segmented; at the size of the maps if None.

    Returns:
        {kind or "segmentation": scores}; the mean leaves out classes absent from the truth, which
        `Scores.doubts` names.
    """
    names = [
        *(map_kinds(method, config.kinds) if method.map_kinds else ()),
        *(["segmentation"] * method.segments),
    ]
    matrices = {
        name: ConfusionMatrix(dataset.num_classes + 1, dataset.classes.ignore_index) for name in names
    }
    use = Use(config, views or SegmentationViews(size=config.size), background)
    predictor = Predictor(method, runtime, use)
    with display.task("evaluate", len(dataset)) as task:
        for index, batch in eval_images(dataset, runtime.rank, runtime.world, prefetch=1):
            batch = batch.to(runtime.device)
            truth, picture = torch.from_numpy(dataset.mask(index))[None], picture_of(batch.images)
            if method.map_kinds:
                for kind, maps in predictor.maps(picture, batch.tags).items():
                    labels = labels_from_maps(maps, batch.tags, background)
                    matrices[kind].update(preds=labels.cpu(), target=truth)
            if method.segments:
                mask = torch.from_numpy(predictor.predict(picture).mask)[None]
                matrices["segmentation"].update(preds=mask, target=truth)
            task.advance(runtime.world)
    for matrix in matrices.values():
        matrix.counts = runtime.reduce(matrix.counts).cpu()
    return {name: matrix.compute() for name, matrix in matrices.items()}

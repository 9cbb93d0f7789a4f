"""Examples and class tokens for the report, read from what the stages left on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tagmask.data import TagDataset
from tagmask.data.readers.images import rgb_tensor
from tagmask.errors import DataError
from tagmask.inference.views import MapConfig
from tagmask.metrics.confusion import ConfusionMatrix
from tagmask.models.trained import Trained
from tagmask.ops.resize import resize_bilinear
from tagmask.report.figures import points, principal_plane
from tagmask.report.page import Chip, Example, Figure
from tagmask.report.panels import class_colours, label_picture, map_picture, picture_uri
from tagmask.steps.base import Context
from tagmask.steps.scoring import read_maps
from tagmask.store.files import file_for
from tagmask.store.labels import read_mask

__all__ = ["examples", "kind_title", "token_plane"]

_TITLES = {"label": "pseudo label", "walk": "random walk", "segmentation": "prediction", "truth": "truth"}
_FOLDERS = {"segmentation": "masks", "walk": "walks", "label": "labels"}
_SIDE, _MAP_SIDE = 560, 400
"""Pixels of the longer side of masks and of maps on the page."""


def kind_title(what: str) -> str:
    """A kind of maps or pictures in words."""
    words = {
        "cam": "CAM",
        "lam": "LAM",
        "aux_cam": "auxiliary CAM",
        "attention_cam": "attention CAM",
        "label": "pseudo labels",
        "walk": "random walk",
    }
    return words.get(what, what.replace("_", " "))


def examples(folder: Path, dataset: TagDataset, count: int) -> list[Example]:
    """Images with everything that was made of them: typical ones, then the worst and the best.

    Where no truth is known, they are spread over the data set.

    Args:
        folder: The run folder.
        dataset: The images, with masks if there are any.
        count: How many.

    Returns:
        At most `count` panels; fewer where fewer images have anything on disk.
    """
    kinds = [p.name for p in sorted((folder / "maps").glob("*")) if p.is_dir()]
    kinds.sort(key=lambda kind: ("cam", "lam").index(kind) if kind in ("cam", "lam") else 9)
    made = [what for what, name in _FOLDERS.items() if (folder / name).is_dir()]
    there = [i for i, name in enumerate(dataset.names) if _exists(folder, name, kinds, made)]
    if not there:
        return []
    quality = {i: _quality(folder, dataset, i, made) for i in there} if dataset.masks and made else {}
    there.sort(key=lambda i: quality.get(i, 0.0))
    groups = _groups(len(there), count) if quality else {"": _spread(0, len(there), count)}
    return [
        _example(folder, dataset, there[place], kinds, made, quality.get(there[place]), group)
        for group, places in groups.items()
        for place in places
    ]


def _groups(images: int, count: int) -> dict[str, list[int]]:
    """Places of typical, bad and good ones in a list from the worst to the best, none of them twice."""
    count = min(count, images)
    worst, best = (3 * count) // 8, count // 4
    typical = _spread(
        worst + (images - count) // 4, images - best - (images - count) // 4, count - worst - best
    )
    return {
        "Typical": typical,
        "Worst": list(range(worst)),
        "Best": list(range(images - 1, images - 1 - best, -1)),
    }


def _spread(first: int, end: int, count: int) -> list[int]:
    """At most so many places of a range, evenly drawn."""
    count = min(count, end - first)
    return [int(place) for place in np.linspace(first, end - 1, count).round()] if count > 0 else []


def _exists(folder: Path, name: str, kinds: Sequence[str], made: Sequence[str]) -> bool:
    paths = [file_for(folder / "maps" / kind, name, ".npz") for kind in kinds]
    paths += [file_for(folder / _FOLDERS[what], name, ".png") for what in made]
    return bool(paths) and all(path.exists() for path in paths)


def _quality(folder: Path, dataset: TagDataset, index: int, made: Sequence[str]) -> float:
    """Mean IoU of one image, of the prediction or else the pseudo label."""
    what = "segmentation" if "segmentation" in made else "label"
    predicted = read_mask(file_for(folder / _FOLDERS[what], dataset.names[index], ".png"))
    predicted[predicted == dataset.classes.ignore_index] = 0
    matrix = ConfusionMatrix(dataset.num_classes + 1, dataset.classes.ignore_index)
    matrix.update(preds=predicted, target=dataset.mask(index))
    return matrix.compute("nan").miou


def _example(
    folder: Path,
    dataset: TagDataset,
    index: int,
    kinds: Sequence[str],
    made: Sequence[str],
    quality: float | None,
    group: str,
) -> Example:
    name, image = dataset.names[index], dataset.picture(index)
    names = dataset.classes.names
    labels = {what: read_mask(file_for(folder / _FOLDERS[what], name, ".png")) for what in made}
    if dataset.masks:
        truth = dataset.mask(index)
        # What the network says, then what it should say, then what it learned from.
        first = {what: labels.pop(what) for what in ("segmentation",) if what in labels}
        labels = {**first, "truth": truth, **labels}
    pictures = [Figure(picture_uri(image, _SIDE), "image", f"Image {name}")]
    present: dict[str, list[int]] = {}
    for what, label in labels.items():
        present[what] = [int(v) - 1 for v in np.unique(label) if 0 < v < dataset.classes.ignore_index]
        words = ", ".join(names[key] for key in present[what]) or "background only"
        picture = picture_uri(label_picture(image, label), _SIDE)
        pictures.append(Figure(picture, _TITLES[what], f"{_TITLES[what]} of {name}: {words}"))
    maps = []
    for kind in kinds:
        loaded = read_maps(folder / "maps", kind, name, dataset.num_classes)
        keys = [int(key) for key in loaded.keys]
        words = ", ".join(names[key] for key in keys) or "no class"
        picture = picture_uri(map_picture(image, loaded.maps, keys), _MAP_SIDE)
        maps.append(Figure(picture, kind_title(kind), f"{kind_title(kind)} maps of {name}: {words}"))
    note = "" if quality is None else f"mean IoU of this image {100 * quality:.0f}"
    shown = present.get("segmentation", present.get("walk", present.get("label", [])))
    tags = dataset.items[index].tags
    return Example(name, note, *_chips(names, tags, shown, bool(made)), pictures, maps, group)


def _chips(
    names: Sequence[str], tags: Sequence[int] | None, shown: Sequence[int], made: bool
) -> tuple[list[Chip] | None, list[Chip]]:
    """Chips of the tags, and of what the mask shows, each with what the other does not have."""
    colours = class_colours(len(names))
    found = [
        Chip(names[k], colours[k], "" if tags is None or k in tags else "not tagged") for k in sorted(shown)
    ]
    if tags is None:
        return None, found
    return [
        Chip(names[k], colours[k], "" if k in shown or not made else "not in the mask") for k in sorted(tags)
    ], found


def token_plane(
    context: Context, dataset: TagDataset, trained: Trained, config: MapConfig, limit: int
) -> Figure | None:
    """Class tokens of tagged classes, seen along their two widest directions.

    Args:
        context: The run.
        dataset: The images.
        trained: A method with class tokens.
        config: The size images are brought to, as for maps.
        limit: At most so many images, spread over the data set.

    Returns:
        A figure; None if there are fewer than two tokens.
    """
    vectors, groups = _tokens(context, dataset, trained, config, limit)
    if len(groups) < 2:
        return None
    plane, share = principal_plane(vectors)
    count = min(limit, len(dataset))
    title = f"{len(groups)} class tokens of {count} images, {100 * share:.0f} % of the variance"
    found = ", ".join(dataset.classes.names[g] for g in sorted(set(groups)))
    alt = f"Class tokens in the plane of their two principal components, coloured by class: {found}"
    return Figure(points(plane, groups, dataset.classes.names), title, alt)


def _tokens(
    context: Context, dataset: TagDataset, trained: Trained, config: MapConfig, limit: int
) -> tuple[NDArray[np.float32], list[int]]:
    runtime, method = context.runtime, trained.method.to(context.runtime.device)
    rows, groups = [], []
    places = np.unique(np.linspace(0, len(dataset) - 1, min(limit, len(dataset))).round().astype(int))
    with context.display.task("class tokens", len(places)) as task, torch.inference_mode():
        for index in places.tolist():
            task.advance()
            if not dataset.has_tags(index):
                continue
            pixels = rgb_tensor(dataset.image(index))[None]
            side = config.size
            images = pixels if side is None else resize_bilinear(pixels, (side, side))
            with runtime.autocast():
                tokens = method.class_tokens(images.to(runtime.device))[0].float().cpu()
            if tokens.shape[0] != dataset.num_classes:
                raise DataError(
                    f"{trained.name} gave {tokens.shape[0]} tokens for {dataset.num_classes} classes"
                )
            for key in dataset.tags(index).nonzero().flatten().tolist():
                rows.append(torch.nn.functional.normalize(tokens[key], dim=0).numpy())
                groups.append(key)
    return np.stack(rows) if rows else np.zeros((0, 1), np.float32), groups

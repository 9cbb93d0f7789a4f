"""From the words of Python to results: options as people write them, tags by name, one picture at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tagmask.config import validate
from tagmask.data import ClassTable
from tagmask.data.readers.stack import AnyPicture, people_picture
from tagmask.engine.compute import Compute
from tagmask.errors import ConfigError, DataError, nearest
from tagmask.inference.predictor import Predictor
from tagmask.inference.views import map_kinds
from tagmask.inference.writer import PredictConfig, predictor_for
from tagmask.models.result import Result
from tagmask.models.trained import Trained

__all__ = ["Looker", "is_list", "looker", "shown_tags"]

_OPTIONS = ("crf", "scales", "flip", "tile", "max_side", "batch_size")
_OVERLAP = 128


@dataclass(frozen=True)
class Looker:
    """One way of looking at pictures, for as many as come.

    Attributes:
        predictor: The way from a picture to a mask.
        classes: What the labels mean.
        kinds: Maps that results hold.
    """

    predictor: Predictor
    classes: ClassTable
    kinds: tuple[str, ...]

    def __call__(self, picture: AnyPicture, path: Path | None, shown: Tensor | None) -> Result:
        """The result of one picture.

        Args:
            picture: RGB.
            path: Its file, if it has one.
            shown: Classes it shows, 0 or 1, (1, K); None if nobody knows.
        """
        found = self.predictor.predict(picture, shown, self.kinds)
        keys: tuple[int, ...] = ()
        if found.tags is not None and found.maps:
            keys = tuple(found.tags[0].nonzero()[:, 0].tolist())
        scores = self.predictor.chances(picture)
        return Result(
            np.array(people_picture(picture)),
            found.mask,
            {kind: maps[0, list(keys)].cpu().numpy() for kind, maps in found.maps.items()},
            keys,
            self.classes,
            (found.confidence / np.float32(255)).astype(np.float32),
            dict(zip(self.classes.names, scores, strict=True)) if scores else {},
            path,
        )


def looker(trained: Trained, compute: Compute, options: Mapping[str, Any]) -> Looker:
    """What options ask for; see `tagmask.Model.predict`.

    Raises:
        ConfigError: An option is unknown or impossible.
    """
    known = ("tags", "maps", "background", *_OPTIONS)
    for name in options:
        if name not in known[1:]:
            raise ConfigError(f"predict has no option '{name}'. {nearest(name, known)}")
    given = {name: options[name] for name in _OPTIONS if options.get(name) is not None}
    if isinstance(given.get("tile"), int):
        given["overlap"] = min(_OVERLAP, given["tile"] // 2)
    predictor = predictor_for(validate(PredictConfig, given, "predict"), trained, compute)
    level = options.get("background")
    if level is not None:
        if isinstance(level, bool) or not isinstance(level, int | float) or not 0 <= level <= 1:
            raise ConfigError(f"background is a number from 0 to 1, got {level!r}")
        predictor = replace(predictor, use=replace(predictor.use, background=float(level)))
    maps = options.get("maps")
    kinds = predictor.kinds if maps is None or maps is True else () if maps is False else maps
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    map_kinds(trained.method, kinds)
    return Looker(predictor, trained.classes, kinds)


def shown_tags(tags: Any, classes: ClassTable, device: torch.device) -> Tensor | None:
    """Names of classes as 0 or 1, (1, K) on a device; None for None.

    Raises:
        DataError: It is no list of names, or a name is no class.
    """
    if tags is None:
        return None
    if not is_list(tags):
        raise DataError(f"tags must be a list of class names, got {tags!r}")
    for name in tags:
        if not isinstance(name, str):
            raise DataError(
                f"tags are names of classes, got {name!r}; this model's are {', '.join(classes.names)}"
            )
    shown = torch.zeros(1, classes.num_classes, device=device)
    shown[0, [classes.index(name) for name in tags]] = 1
    return shown


def is_list(tags: Any) -> bool:
    """Whether something is a list of names rather than one name."""
    return isinstance(tags, Sequence | set | frozenset) and not isinstance(tags, str | bytes)

"""What the masks that a person checked in a run say of the pictures that its model is shown later."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tagmask.data import TagDataset
from tagmask.data.parts import Parts
from tagmask.engine.compute import Compute
from tagmask.engine.log import Display
from tagmask.inference.expected import add_expected
from tagmask.inference.place import Place
from tagmask.inference.predict import PredictConfig, predict
from tagmask.inference.summary import each_row
from tagmask.models.trained import Trained
from tagmask.pipeline.config import read_config
from tagmask.review.calibration import FEWEST, calibrate, random_order
from tagmask.review.class_trust import Overlap
from tagmask.review.queue import Row
from tagmask.steps.trust import CHECKED, overlap
from tagmask.store.files import file_for
from tagmask.store.labels import read_mask

__all__ = ["expect"]

_MOST = 100
"""Checked images that are predicted again, at most."""
_CHECKED = "checked/"


def expect(run: Path, config: PredictConfig, trained: Trained, compute: Compute, out: Path) -> str:
    """Add a predicted IoU with its interval to every line of a prediction's summary.

    The checked images are predicted as the new pictures were, and a regression goes from what the summary
    says of both to the IoU of the checked ones, see `tagmask.review.calibration`. It holds as far as the new
    pictures are of the same kind as those of the run.

    Args:
        run: What the model was loaded from.
        config: How the new pictures were predicted.
        trained: The model.
        compute: Device and precision.
        out: The prediction, complete.

    Returns:
        The outcome as a line; "" where nothing can be said: it is no run, fewer than `FEWEST` of its masks
        were checked, or tags restricted the masks.

    Raises:
        DataError: A checked mask or its image cannot be read.
    """
    new = list(each_row(Place(out)))
    if config.tags is not None or not new or not (run / CHECKED).is_dir():
        return ""
    if not (run / "settings.yaml").is_file():
        return ""
    dataset = Parts(read_config(run).data, trained.reading).open("both")
    names = [n for n in random_order(dataset.names) if file_for(run / CHECKED, n, ".png").is_file()]
    if len(names) < FEWEST:
        return ""
    plain = config.model_copy(update={"overlays": False, "confidence": False, "polygons": False})
    rows, checked = _checked(run, dataset, names[:_MOST], plain, trained, compute)
    if len(checked) < FEWEST:
        return ""
    rows += [_row(row["name"], row, trained.classes.names) for row in new]
    rows.sort(key=lambda row: -row.score)
    trust = calibrate(rows, checked, trained.classes.num_classes)
    found = {row["name"]: trust.images[row["name"]] for row in new}
    add_expected(out, trained.classes, {name: (one.iou, one.low, one.high) for name, one in found.items()})
    mean = sum(one.iou for one in found.values()) / len(found)
    line = f"{len(checked)} checked masks of {run.name}: the masks of these pictures have a predicted IoU of "
    line += f"{100 * mean:.0f} % on average, if they are of the same kind (columns iou of summary.csv)"
    return f"{line}. {trust.doubt}" if trust.doubt else line


def _checked(
    run: Path,
    dataset: TagDataset,
    names: Sequence[str],
    config: PredictConfig,
    trained: Trained,
    compute: Compute,
) -> tuple[list[Row], dict[str, Overlap]]:
    """The checked images as the model sees them now, and how far it agrees with the person."""
    rows, found = [], {}
    with tempfile.TemporaryDirectory(prefix="tagmask-") as place:
        for number, name in enumerate(names):
            out = Path(place) / str(number)
            image = dataset.items[dataset.position(name)].image
            predict(config, trained, compute, Display(quiet=True), [str(image)], out)
            for row in each_row(Place(out)):
                mask = read_mask(file_for(out / "masks", row["name"], ".png"))
                seen = overlap(mask, read_mask(file_for(run / CHECKED, name, ".png")))
                if seen is not None:
                    rows.append(_row(_CHECKED + name, row, trained.classes.names))
                    found[_CHECKED + name] = seen
    return rows, found


def _row(name: str, row: Mapping[str, Any], classes: Sequence[str]) -> Row:
    """What the summary says of a picture, as a line of a review's queue."""
    doubt = 1 - float(row["confidence"])
    areas = {classes.index(one): float(share) for one, share in row["classes"].items()}
    return Row(name, {"doubt": doubt, "unsure": float(row["unsure"])}, areas, None, score=doubt)

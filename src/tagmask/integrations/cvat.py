"""CVAT's auto-annotation function: masks for the frames of a task, by its SDK or its command line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tagmask.errors import ConfigError
from tagmask.model import Model, load
from tagmask.models.result import Result

__all__ = ["Function", "create"]


class Function:
    """A model as CVAT's SDK calls detection functions: `spec` says its labels, `detect` gives shapes.

    Args:
        model: The model.
        separate: A shape for every connected region instead of one for every class.
        options: Of `tagmask.Model.predict`.

    Raises:
        ConfigError: The SDK is not installed.
    """

    def __init__(self, model: Model, separate: bool = False, **options: Any) -> None:
        self._sdk, self._masks = _sdk()
        self._model, self._separate = model, separate
        self._options = {"maps": False, **options}

    @property
    def spec(self) -> Any:
        """The labels: one of type mask for every class, numbered from 1 as in the masks."""
        sdk = self._sdk
        names = enumerate(self._model.classes, start=1)
        return sdk.DetectionFunctionSpec(labels=[sdk.label_spec(name, n, type="mask") for n, name in names])

    def detect(self, context: Any, image: Image.Image) -> list[Any]:
        """Shapes of one frame: masks, or polygons if the caller converts masks to them.

        Args:
            context: The SDK's; shapes less sure on average than its threshold are left out.
            image: The frame.
        """
        result = self._model.predict(image.convert("RGB"), **self._options)
        least = getattr(context, "conf_threshold", None) or 0.0
        as_polygons = bool(getattr(context, "conv_mask_to_poly", False))
        shapes = []
        for label, pixels in self._regions(result):
            if result.confidence is not None and float(result.confidence[pixels].mean()) < least:
                continue
            if as_polygons:
                rings = _outer_rings(result, pixels)
                shapes += [self._sdk.polygon(label, ring) for ring in rings]
            else:
                shapes.append(self._sdk.mask(label, self._masks.encode_mask(pixels)))
        return shapes

    def _regions(self, result: Result) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        for name in result.present:
            label = result.classes.index(name) + 1
            pixels = np.asarray(result.mask == label)
            if not self._separate:
                yield label, pixels
                continue
            from scipy import ndimage

            numbers, count = ndimage.label(pixels, structure=np.ones((3, 3), int))
            for number in range(1, count + 1):
                yield label, np.asarray(numbers == number)


def create(
    model: str,
    device: str = "auto",
    separate: bool = False,
    crf: str | None = None,
    max_side: int | None = None,
) -> Function:
    """The function for a run or a model folder; what ``cvat-cli`` calls with its ``-p`` parameters.

    Args:
        model: Run folder or model folder.
        device: Where to compute.
        separate: A shape for every connected region instead of one for every class.
        crf: Clean the masks by a dense CRF with these parameters.
        max_side: Shrink larger frames to this longer side.

    Raises:
        UserError: There is no model, the SDK is not installed, or an option is impossible.
    """
    options = {"crf": crf, "max_side": max_side}
    return Function(load(model, device), separate, **{k: v for k, v in options.items() if v is not None})


def _sdk() -> tuple[Any, Any]:
    try:
        from cvat_sdk import auto_annotation, masks
    except ImportError:
        raise ConfigError("this needs CVAT's SDK: pip install 'tagmask[cvat]'") from None
    return auto_annotation, masks


def _outer_rings(result: Result, pixels: NDArray[np.bool_]) -> list[list[float]]:
    """Outlines as CVAT has polygons, x and y in turn; it knows no holes, so those are filled."""
    alone = Result(result.image, pixels.astype(np.uint8), {}, (), result.table)
    regions = [region for each in alone.polygons().values() for region in each]
    return [region[0][:-1].ravel().tolist() for region in regions if len(region[0]) > 3]

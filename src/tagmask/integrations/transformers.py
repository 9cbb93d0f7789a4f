"""Models of tagmask for `transformers`: after importing this, ``pipeline("image-segmentation", model=...)``.

Importing registers the model type "tagmask", so nothing is executed that came with a model, and
``trust_remote_code`` stays off. Folders written by `tagmask.Model.save_pretrained` and models of the hub that
were pushed from such load.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForSemanticSegmentation,
    BaseImageProcessor,
    BatchFeature,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES

from tagmask.data import ClassTable
from tagmask.errors import CheckpointError
from tagmask.model import Model, load
from tagmask.models.hub import fetch_folder

__all__ = ["TagmaskConfig", "TagmaskForSemanticSegmentation", "TagmaskImageProcessor"]


class TagmaskConfig(PretrainedConfig):  # type: ignore[misc]
    """What ``config.json`` says: method, settings and class names; label 0 is the background."""

    model_type = "tagmask"

    def __init__(self, classes: Any = None, **kwargs: Any) -> None:
        names = list((classes or {}).get("names", ()))
        if names and "id2label" not in kwargs:
            labels = ClassTable(tuple(names)).labels[: len(names) + 1]
            kwargs["id2label"] = dict(enumerate(labels))
            kwargs["label2id"] = {name: number for number, name in enumerate(labels)}
        super().__init__(**kwargs)
        self.classes = classes


class TagmaskImageProcessor(BaseImageProcessor):  # type: ignore[misc]
    """Pictures as they are: models of tagmask resize, pad and normalise by themselves."""

    model_input_names: ClassVar[list[str]] = ["pixel_values"]

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> TagmaskImageProcessor:
        """There is nothing to load."""
        return cls()

    def __call__(self, images: Any, **kwargs: Any) -> BatchFeature:
        """RGB pixels of pictures of one size, (B, 3, H, W) uint8."""
        many = images if isinstance(images, list | tuple) else [images]
        pixels = [np.array(image.convert("RGB")) for image in many]
        stacked = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
        return BatchFeature({"pixel_values": stacked})

    preprocess = __call__

    def post_process_semantic_segmentation(
        self, outputs: Any, target_sizes: Sequence[Sequence[int]] | None = None
    ) -> list[Tensor]:
        """Labels of every picture, (H, W) int64; pictures were never resized, so the sizes are theirs."""
        return list(outputs["logits"].argmax(1))


class TagmaskForSemanticSegmentation(PreTrainedModel):  # type: ignore[misc]
    """A model as transformers has them: pixels in, logits of background and classes out.

    Args:
        config: See `TagmaskConfig`.
        model: The model; what `from_pretrained` loads.
    """

    config_class = TagmaskConfig
    main_input_name = "pixel_values"

    def __init__(self, config: TagmaskConfig, model: Model | None = None) -> None:
        super().__init__(config)
        if model is None:
            raise CheckpointError("models of tagmask are trained by tagmask; use from_pretrained")
        self.method = model.method
        self._model = model

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *args: Any, config: Any = None, **kwargs: Any
    ) -> TagmaskForSemanticSegmentation:
        """A model from a folder or the hub.

        Raises:
            CheckpointError: There is none, or it is damaged.
        """
        place = Path(str(pretrained_model_name_or_path)).expanduser()
        if not place.is_dir():
            known = {"revision": kwargs.get("revision"), "token": kwargs.get("token")}
            cache = kwargs.get("cache_dir")
            place = fetch_folder(
                str(pretrained_model_name_or_path),
                endpoint=None,
                cache=None if cache is None else Path(cache),
                **known,
            )
        model = load(place, "cpu")
        named = TagmaskConfig(classes={"names": list(model.classes)})
        found = cls(named if config is None else config, model)
        found.eval()
        return found

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.method.parameters()).device

    def to(self, *args: Any, **kwargs: Any) -> TagmaskForSemanticSegmentation:
        """Move it to another device."""
        device = torch._C._nn._parse_to(*args, **kwargs)[0]
        if device is not None:
            self._model.to(device)
        return self

    @torch.no_grad()
    def forward(self, pixel_values: Tensor, **kwargs: Any) -> SemanticSegmenterOutput:
        """Segment pictures.

        Args:
            pixel_values: RGB, (B, 3, H, W) uint8, or float in [0, 1].
            **kwargs: Passed over.

        Returns:
            Logits (B, K + 1, H, W), the logarithm of every label's probability; its largest one is the mask.
        """
        results = [self._model.predict(picture.cpu(), maps=False) for picture in pixel_values]
        channels = len(self._model.classes) + 1
        logits = [_logits(result.mask, result.confidence, channels) for result in results]
        return SemanticSegmenterOutput(logits=torch.stack(logits))


def _logits(mask: Any, confidence: Any, channels: int) -> Tensor:
    """The winner's probability where it wins; the others share what is left of it."""
    sure = torch.from_numpy(np.asarray(confidence)).clamp(1 / channels + 1e-3, 1 - 1e-3)
    logits = ((1 - sure) / (channels - 1)).log().expand(channels, *sure.shape).clone()
    return logits.scatter_(0, torch.from_numpy(mask.astype(np.int64))[None], sure.log()[None])


def _register() -> None:
    AutoConfig.register("tagmask", TagmaskConfig, exist_ok=True)
    AutoModelForSemanticSegmentation.register(TagmaskConfig, TagmaskForSemanticSegmentation, exist_ok=True)
    AutoImageProcessor.register(TagmaskConfig, TagmaskImageProcessor, exist_ok=True)
    # The pipeline looks here for classes that it may use.
    MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES["tagmask"] = TagmaskForSemanticSegmentation.__name__


_register()

"""A trained model to predict with, and what it says about an image."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from tagmask.config import validate
from tagmask.data import ClassTable
from tagmask.data.readers.images import read_image
from tagmask.engine.runtime import Runtime
from tagmask.errors import CheckpointError, DataError
from tagmask.export.write import ExportConfig, export_model
from tagmask.inference.predictor import Predictor, remembered_use
from tagmask.methods.base import Method
from tagmask.models.card import model_card, run_facts
from tagmask.models.checkpoint import save_model
from tagmask.models.hub import fetch_folder, push_folder, save_pretrained
from tagmask.models.result import Result
from tagmask.models.trained import Trained, from_module, load_trained, save_method
from tagmask.names import deprecated

__all__ = ["Model", "Result", "load"]

Picture = str | Path | Image.Image | NDArray[np.uint8]


def load(path: str | Path, device: str = "auto", precision: str = "fp32") -> Model:
    """A trained model, ready to predict.

    Args:
        path: Run folder, model folder or its weight file.
        device: "auto", "cpu", "mps", "cuda" or "cuda:N".
        precision: fp32, tf32, bf16 or fp16.

    Raises:
        CheckpointError: There is no model, or it is damaged.
        ConfigError: The device is not here.
    """
    return Model(load_trained(Path(path)), Runtime.create(device, precision, seed=None), Path(path))


class Model:
    """A trained method with its classes.

    Args:
        trained: The method and what its outputs mean.
        runtime: Device and precision.
        source: Where it came from; a run folder beside it tells the model card about training and scores.
    """

    def __init__(self, trained: Trained, runtime: Runtime, source: Path | None = None) -> None:
        self._trained, self._runtime, self._source = trained, runtime, source
        self.method = trained.method.to(runtime.device).eval()

    @cached_property
    def _predictor(self) -> Predictor:
        return Predictor.of(self._trained, self._runtime)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the foreground classes; label k + 1 of a mask is ``classes[k]``."""
        return self._trained.classes.names

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of maps that results hold."""
        return tuple(remembered_use(self._trained.meta).maps.kinds or self.method.map_kinds)

    def predict(self, image: Picture, tags: Sequence[str] | None = None) -> Result:
        """Mask and class maps of one image.

        Args:
            image: A file, a Pillow image, or RGB pixels (H, W, 3) uint8.
            tags: Names of the classes in the image; only these appear in mask and maps. If None, the
                classifier says which maps are made, and the mask may hold any class.

        Returns:
            The result, at the image's own size.

        Raises:
            DataError: The image cannot be read, or a tag is not a class.
        """
        pixels = _pixels(image)
        shown = None if tags is None else self._shown(tags)
        found = self._predictor.predict(Image.fromarray(pixels), shown, self.kinds)
        keys = () if found.tags is None else tuple(found.tags[0].nonzero()[:, 0].tolist())
        arrays = {kind: maps[0, list(keys)].cpu().numpy() for kind, maps in found.maps.items()}
        return Result(pixels, found.mask, arrays, keys, self._trained.classes)

    @classmethod
    def from_method(
        cls, method: Method, classes: ClassTable | Sequence[str], *, precision: str = "fp32"
    ) -> Model:
        """A method that a loop of one's own trained, ready to predict and to be saved.

        Args:
            method: The module, where it is; it is switched to evaluation.
            classes: Names of its foreground classes.
            precision: See `load`.

        Raises:
            ConfigError: It is no method, keeps no settings, or has another number of classes.
        """
        trained = from_module(method, classes)
        device = str(next(method.parameters()).device)
        return cls(trained, Runtime.create(device, precision, seed=None))

    def save(self, folder: str | Path) -> Path:
        """Write a model folder, which `load` and every command read.

        Args:
            folder: Made if missing.

        Returns:
            The folder.

        Raises:
            CheckpointError: It cannot be written; an earlier model there still loads.
        """
        target, trained = Path(folder).expanduser(), self._trained
        if trained.meta:
            save_model(target, self.method.state_dict(), trained.meta)
        else:
            save_method(target, self.method, trained.name, trained.classes, {}, {})
        return target

    def export(self, path: str | Path, **settings: Any) -> dict[str, Any]:
        """Write the model to one file that needs no tagmask, after checking it against PyTorch.

        Args:
            path: Ends in ``.onnx``, or in ``.pt2`` for torch.export.
            **settings: Fields of `tagmask.export.write.ExportConfig`.

        Returns:
            What the file says about itself, with the largest difference of every output in "check".

        Raises:
            ConfigError: A setting is unknown, or the extra ``onnx`` is not installed.
            CheckpointError: The model cannot be exported or the file differs.
        """
        target = Path(path)
        kind = "torch" if target.suffix == ".pt2" else "onnx"
        config = validate(ExportConfig, {"format": kind, **settings}, "export")
        # The exporters trace on the CPU; the model goes back to its device whatever happens.
        try:
            self.method.cpu()
            return export_model(config, self._trained, target)
        finally:
            self.method.to(self._runtime.device)

    @deprecated("0.2", arguments={"licence": "license"})
    def save_pretrained(
        self, folder: str | Path, *, name: str | None = None, data: str = "", license: str = "other"
    ) -> Path:
        """Write the model in the layout of the Hugging Face hub.

        Args:
            folder: Gets ``model.safetensors``, ``config.json`` and the model card ``README.md``.
            name: What the card calls the model; the folder's name if None.
            data: What it was trained on, in words, for the card.
            license: License identifier of the hub, for example "apache-2.0".

        Returns:
            The folder.

        Raises:
            CheckpointError: It cannot be written.
        """
        target, meta = Path(folder), self._trained.meta
        if not meta:
            raise CheckpointError("a published checkpoint has no header of ours; save it from a run folder")
        facts = run_facts(self._source) if self._source is not None else run_facts(target)
        card = model_card(meta, facts, name or target.name, data, license)
        return save_pretrained(target, self.method.state_dict(), meta, card)

    @deprecated("0.2", arguments={"licence": "license"})
    def push_to_hub(
        self,
        repo: str,
        *,
        data: str = "",
        license: str = "other",
        private: bool = False,
        message: str = "Upload a tagmask model",
        token: str | None = None,
        endpoint: str | None = None,
    ) -> str:
        """Upload the model; see `save_pretrained` for what is written.

        Args:
            repo: "owner/name"; made if missing.
            data: For the card.
            license: For the card.
            private: Visibility of a new repository.
            message: Of the commit.
            token: Access token; what huggingface_hub finds by itself if None.
            endpoint: Address of another hub.

        Returns:
            Address of the commit.

        Raises:
            CheckpointError: The hub refuses or cannot be reached.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, name=repo, data=data, license=license)
            return push_folder(
                Path(folder), repo, private=private, message=message, token=token, endpoint=endpoint
            )

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        endpoint: str | None = None,
        cache: str | Path | None = None,
        device: str = "auto",
        precision: str = "fp32",
    ) -> Model:
        """A model from a folder or from the Hugging Face hub; nothing in it is executed.

        Args:
            name: A folder (of `save_pretrained` or of a run), or "owner/name" on the hub.
            revision: Branch, tag or commit on the hub.
            token: Access token.
            endpoint: Address of another hub.
            cache: Where downloads lie; huggingface_hub's usual place if None.
            device: See `load`.
            precision: See `load`.

        Raises:
            CheckpointError: There is no such model, or it is damaged.
        """
        folder = Path(name)
        if not folder.exists():
            place = None if cache is None else Path(cache)
            folder = fetch_folder(str(name), revision=revision, token=token, endpoint=endpoint, cache=place)
        return load(folder, device, precision)

    def _shown(self, tags: Sequence[str]) -> Tensor:
        table = self._trained.classes
        if isinstance(tags, str):
            raise DataError(f"tags must be a list of class names, got the text '{tags}'")
        shown = torch.zeros(1, table.num_classes, device=self._runtime.device)
        shown[0, [table.index(name) for name in tags]] = 1
        return shown


def _pixels(image: Picture) -> NDArray[np.uint8]:
    if isinstance(image, (str, Path)):
        return read_image(image)
    if isinstance(image, Image.Image):
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise DataError(f"an image is RGB (H, W, 3) uint8, got {image.shape} {image.dtype}")
    return np.ascontiguousarray(image)

"""A trained model to predict with, and what it says about an image."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor

from tagmask.config import validate
from tagmask.data import ClassTable
from tagmask.engine.compute import Compute
from tagmask.errors import ConfigError, DataError
from tagmask.inference.predictor import remembered_use
from tagmask.inference.results import Looker, is_list, looker, shown_tags
from tagmask.inference.sources import Source, each_source, read_source
from tagmask.methods.base import Method
from tagmask.models.checkpoint import save_model
from tagmask.models.hub import fetch_folder
from tagmask.models.publishing import Publishing
from tagmask.models.result import Result
from tagmask.models.trained import Trained, from_module, load_trained, save_method

__all__ = ["Model", "Result", "load"]

Tags = Sequence[str] | None


def load(path: str | Path, device: str | int | torch.device = "auto", precision: str = "fp32") -> Model:
    """A trained model, ready to predict; nothing else in the program changes by it.

    Args:
        path: Run folder, model folder or its weight file.
        device: "auto", "cpu", "mps", "cuda", "cuda:N" or its number N, or a `torch.device`.
        precision: fp32, tf32, bf16 or fp16.

    Raises:
        CheckpointError: There is no model, or it is damaged.
        ConfigError: The device is not here.
    """
    place = Path(path).expanduser()
    return Model(load_trained(place), Compute.choose(device, precision), place)


class Model(Publishing):
    """A trained method with its classes; several threads may predict with one.

    Args:
        trained: The method and what its outputs mean.
        compute: Device and precision.
        source: Where it came from; a run folder beside it tells the model card about training and scores.
    """

    def __init__(self, trained: Trained, compute: Compute, source: Path | None = None) -> None:
        self._trained, self._compute, self._source = trained, compute, source
        self.method = trained.method.to(compute.device).eval()
        self.reading = trained.reading

    def __repr__(self) -> str:
        """What it is, on one line."""
        source = "" if self._source is None else f"{str(self._source)!r}, "
        return f"Model({source}{self._trained.name}, {len(self.classes)} classes, {self.device})"

    def _repr_html_(self) -> str:
        """What it is and what it can say, for notebooks."""
        count = sum(parameter.numel() for parameter in self.method.parameters())
        facts = {
            "method": self._trained.name,
            "classes": ", ".join(self.classes),
            "maps": ", ".join(self.kinds) or "none",
            "masks": "yes" if self.method.segments else "no: it makes maps only",
            "parameters": f"{count / 1e6:.1f} million",
            "device": f"{self.device}, {self._compute.precision}",
            "from": "" if self._source is None else str(self._source),
        }
        rows = "".join(
            f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in facts.items() if value
        )
        return f"<table><caption>tagmask model</caption>{rows}</table>"

    @property
    def device(self) -> torch.device:
        """Where it predicts."""
        return self._compute.device

    def to(self, device: str | int | torch.device) -> Model:
        """Move the model to another device, see `load`; gives the model itself.

        Raises:
            ConfigError: The device is not here, or cannot do the model's precision.
        """
        self._compute = Compute.choose(device, self._compute.precision)
        self.method.to(self._compute.device)
        return self

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the foreground classes; label k + 1 of a mask is ``classes[k]``."""
        return self._trained.classes.names

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of maps that results hold."""
        return tuple(remembered_use(self._trained.meta).maps.kinds or self.method.map_kinds)

    @overload
    def predict(self, image: Source, tags: Tags = None, **options: Any) -> Result: ...
    @overload
    def predict(
        self, image: Sequence[Source], tags: Tags | Sequence[Tags] = None, **options: Any
    ) -> list[Result]: ...
    def predict(
        self, image: Source | Sequence[Source], tags: Tags | Sequence[Tags] = None, **options: Any
    ) -> Result | list[Result]:
        """Mask and class maps of one image, or of each of a list.

        Args:
            image: A path, a Pillow image, RGB pixels (H, W, 3) uint8, a tensor (3, H, W) uint8 or in [0, 1],
                the bytes of a picture file, an open file; or a list of such.
            tags: Names of the classes in the image; only these appear in mask and maps. If None, the
                classifier says which maps are made, and the mask may hold any class. For a list of images
                the tags of all, or a list with the tags (or None) of each.
            **options: As in ``tagmask predict``, all of them optional: ``maps`` (False for none, or kinds;
                True), ``background`` (score of the background beside maps, 0 to 1), ``crf`` (name of its
                parameters), ``scales`` and ``flip`` of the views, ``tile`` and ``max_side`` (pixels),
                ``batch_size`` (tiles that go through the network together).

        Returns:
            The result, at the image's own size; a list for a list.

        Raises:
            DataError: An image cannot be read, or a tag is not a class.
            ConfigError: An option is unknown or impossible.
        """
        look = self._looker(options)
        if not isinstance(image, list | tuple):
            picture, path = read_source(image, self.reading)  # type: ignore[arg-type]
            return look(picture, path, self._shown(tags))
        each: Sequence[Any] = [tags] * len(image)
        if tags and not isinstance(tags, str) and any(one is None or is_list(one) for one in tags):
            each = tags
        if len(each) != len(image):
            raise DataError(f"{len(image)} images need as many lists of tags, got {len(each)}")
        rows = [self._shown(row) for row in each]
        return [look(*read_source(one, self.reading), row) for one, row in zip(image, rows, strict=True)]

    __call__ = predict

    def predict_iter(
        self,
        images: Source | Iterable[Source],
        tags: Tags = None,
        *,
        errors: Literal["raise", "skip"] = "raise",
        **options: Any,
    ) -> Iterator[Result]:
        """Results one after the other, of as many images as there are; only one is held in memory.

        Args:
            images: A folder, a zip archive, a video, a pattern such as ``"in/*.jpg"``, or anything that gives
                images as `predict` takes them.
            tags: Names of the classes in every image, see `predict`.
            errors: "raise" ends at an image that cannot be read; "skip" leaves it out and warns through the
                logger "tagmask".
            **options: See `predict`.

        Raises:
            DataError: An image cannot be read, or a tag is not a class.
            ConfigError: An option is unknown or impossible.
        """
        if errors not in ("raise", "skip"):
            raise ConfigError(f"errors is 'raise' or 'skip', got {errors!r}")
        look, shown = self._looker(options), self._shown(tags)

        def results() -> Iterator[Result]:
            for name, picture, path, reason in each_source(images, self.reading):
                if picture is not None:
                    yield look(picture, path, shown)
                elif errors == "raise":
                    reason = reason or "cannot be read"
                    raise DataError(reason if name in reason else f"{name}: {reason}")
                else:
                    logging.getLogger("tagmask").warning("left out: %s: %s", name, reason)

        return results()

    def _looker(self, options: dict[str, Any]) -> Looker:
        return looker(self._trained, self._compute, options)

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
        return cls(trained, Compute.choose(next(method.parameters()).device, precision))

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
        from tagmask.export.write import ExportConfig, export_model

        target = Path(path).expanduser()
        kind = "torch" if target.suffix == ".pt2" else "onnx"
        config = validate(ExportConfig, {"format": kind, **settings}, "export")
        # The exporters trace on the CPU; the model goes back to its device whatever happens.
        try:
            self.method.cpu()
            return export_model(config, self._trained, target)
        finally:
            self.method.to(self._compute.device)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        endpoint: str | None = None,
        cache: str | Path | None = None,
        device: str | int | torch.device = "auto",
        precision: str = "fp32",
    ) -> Model:
        """A model from a folder or from the Hugging Face hub; nothing in it is executed.

        Args:
            name: A folder (of `save_pretrained` or of a run), or "owner/name" on the hub.
            revision: Branch, tag or commit on the hub.
            token: Access token.
            endpoint: Address of another hub.
            cache: Where downloads are; huggingface_hub's usual place if None.
            device: See `load`.
            precision: See `load`.

        Raises:
            CheckpointError: There is no such model, or it is damaged.
        """
        folder = Path(name).expanduser()
        if not folder.exists():
            place = None if cache is None else Path(cache)
            folder = fetch_folder(str(name), revision=revision, token=token, endpoint=endpoint, cache=place)
        return load(folder, device, precision)

    def _shown(self, tags: Any) -> Tensor | None:
        return shown_tags(tags, self._trained.classes, self._compute.device)

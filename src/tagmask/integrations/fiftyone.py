"""FiftyOne: masks as a Segmentation field, tags from Classifications, and a source for its model zoo."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from tagmask.errors import ConfigError, DataError
from tagmask.model import Model, load
from tagmask.store.files import atomic_write

__all__ = ["predict", "tags_of", "write_zoo", "zoo_model"]

_SOURCE = '''"""A model of tagmask for FiftyOne's zoo; written by tagmask.integrations.fiftyone.write_zoo."""

from pathlib import Path

from tagmask.integrations.fiftyone import zoo_model

FOLDER = {folder!r}


def download_model(model_name, model_path):
    """Note where the model is; nothing has to be fetched."""
    Path(model_path).write_text(FOLDER, encoding="utf-8")


def load_model(model_name, model_path, **kwargs):
    """The model, as FiftyOne applies it."""
    return zoo_model(Path(model_path).read_text(encoding="utf-8"), **kwargs)
'''


def predict(
    samples: Any, model: Model, field: str = "tagmask", tags: str | None = None, **options: Any
) -> int:
    """Give every sample its mask.

    Args:
        samples: A data set or a view of one.
        model: The model.
        field: Gets `fiftyone.Segmentation`, and ``<field>_tags`` the classifier's `fiftyone.Classifications`
            where the method has one. Names of the labels go to the data set's mask targets.
        tags: Field of the tags that are known; only these classes appear then.
        **options: Of `tagmask.Model.predict`.

    Returns:
        How many samples.

    Raises:
        ConfigError: The package is not installed.
        DataError: A picture cannot be read, or a tag is no class.
    """
    labels = _fiftyone()
    count = 0
    for sample in samples.iter_samples(autosave=True):
        known = None if tags is None else _labels(sample[tags])
        result = model.predict(sample.filepath, tags=known, **{"maps": False, **options})
        sample[field] = labels.Segmentation(mask=result.mask)
        if result.tag_scores:
            each = [
                labels.Classification(label=name, confidence=score)
                for name, score in result.tag_scores.items()
            ]
            sample[f"{field}_tags"] = labels.Classifications(classifications=each)
        count += 1
    dataset = getattr(samples, "_root_dataset", samples)
    dataset.mask_targets = {**dataset.mask_targets, field: _targets(model)}
    dataset.save()
    return count


def tags_of(samples: Any, field: str, root: str | Path) -> Mapping[str, list[str]]:
    """Tags as `tagmask.train` takes them: {picture below a folder: class names}.

    Args:
        samples: A data set or a view of one.
        field: Holds Classifications, or a Classification; samples without are left out.
        root: Folder of the images.

    Raises:
        DataError: A picture is elsewhere.
    """
    found: dict[str, list[str]] = {}
    home = Path(root).resolve()
    for sample in samples.iter_samples():
        if sample[field] is None:
            continue
        place = Path(sample.filepath).resolve()
        if not place.is_relative_to(home):
            raise DataError(f"{place} is not below {home}; name the folder that holds all pictures")
        found[PurePath(place.relative_to(home)).as_posix()] = _labels(sample[field])
    return found


def zoo_model(folder: str | Path, device: str = "auto", **options: Any) -> Any:
    """A model as ``samples.apply_model(model, label_field=...)`` takes it.

    Raises:
        ConfigError: The package is not installed.
        CheckpointError: There is no model.
    """
    labels = _fiftyone()
    base: Any = importlib.import_module("fiftyone.core.models").Model
    model = load(folder, device)

    class Applied(base):  # type: ignore[misc]
        """Masks of pictures that FiftyOne has read."""

        media_type = "image"
        transforms = preprocess = None
        ragged_batches = has_logits = has_embeddings = can_embed_prompts = False
        mask_targets = _targets(model)

        def predict(self, arg: Any) -> Any:
            """The mask of one picture, RGB (H, W, 3) uint8."""
            return labels.Segmentation(mask=model.predict(arg, **{"maps": False, **options}).mask)

    return Applied()


def write_zoo(folder: str | Path, model: str | Path, name: str = "tagmask") -> Path:
    """Write a source of FiftyOne's model zoo with one model: ``manifest.json`` and the module behind it.

    Args:
        folder: Made if missing; publish it, or put it below FiftyOne's ``model_zoo_dir``.
        model: Run folder or model folder.
        name: What the zoo calls it.

    Returns:
        The folder.

    Raises:
        CheckpointError: There is no model.
    """
    place, target = Path(model).expanduser().resolve(), Path(folder).expanduser()
    classes = load(place, "cpu").classes
    entry = {
        "base_name": name,
        "base_filename": f"{name}.txt",
        "author": "tagmask",
        "description": f"Masks of {', '.join(classes)}, learned from image tags",
        "tags": ["segmentation", "tagmask"],
        "requirements": {"packages": ["tagmask"], "cpu": {"support": True}, "gpu": {"support": True}},
    }
    manifest = {"name": "tagmask", "models": [entry]}
    for path, text in (
        (target / "manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False)),
        (target / "__init__.py", _SOURCE.format(folder=str(place))),
    ):
        with atomic_write(path) as file:
            file.write_text(text + "\n", encoding="utf-8")
    return target


def _targets(model: Model) -> dict[int, str]:
    return {0: "background", **dict(enumerate(model.classes, start=1))}


def _labels(value: Any) -> list[str]:
    if value is None:
        return []
    return [one.label for one in getattr(value, "classifications", [value])]


def _fiftyone() -> Any:
    try:
        return importlib.import_module("fiftyone")
    except ImportError:
        raise ConfigError("this needs FiftyOne: pip install 'tagmask[fiftyone]'") from None

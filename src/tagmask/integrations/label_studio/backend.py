"""What Label Studio asks of a machine learning backend, and its answers as plain values."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tagmask.annotations.formats.label_studio import mask_of
from tagmask.data.readers.images import read_picture
from tagmask.engine.compute import Compute
from tagmask.errors import DataError, UserError, one_line, printable
from tagmask.integrations.label_studio.images import Images
from tagmask.integrations.label_studio.interface import (
    Interface,
    chosen_tags,
    prediction,
    read_interface,
    task_keys,
    task_tags,
)
from tagmask.integrations.label_studio.shelf import Shelf
from tagmask.integrations.label_studio.teaching import Beside, Teacher
from tagmask.model import Model
from tagmask.models.trained import Trained

__all__ = ["Backend", "Unknown"]

_LOG = logging.getLogger("tagmask")
_SAVED = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_CREATED")
_DELETED = ("ANNOTATIONS_DELETED",)
_MOST_TASKS = 1000


class Unknown(Exception):
    """A project that was never set up here."""


@dataclass(frozen=True)
class _Served:
    trained: Trained
    model: Model

    @property
    def version(self) -> str:
        return f"{self.trained.name}-{self.trained.checksum[:10]}"


class Backend:
    """A model behind the protocol of Label Studio's machine learning backends.

    Args:
        trained: The model to begin with; a newer version on the shelf is served instead.
        compute: Where to predict and to train.
        shelf: Keeps corrections and versions.
        images: Fetches pictures.
        seconds: Time of one training.
        after: New corrections after which one begins by itself; 0 for never.
        say: Told what a person at the terminal should read.
    """

    def __init__(
        self,
        trained: Trained,
        compute: Compute,
        shelf: Shelf,
        images: Images,
        seconds: float = 50,
        after: int = 10,
        say: Callable[[str], None] = _LOG.info,
    ) -> None:
        self._compute, self._shelf, self._images = compute, shelf, images
        self.classes = trained.classes
        self._served = self._ready(shelf.newest(trained.checksum) or trained)
        self._beside = Beside()
        served, base, known = (lambda: self._served.trained), trained.checksum, self._beside
        self.teacher = Teacher(shelf, served, self._serve, base, compute, seconds, after, say, known)

    @property
    def version(self) -> str:
        """What predictions are marked with."""
        return self._served.version

    def _ready(self, trained: Trained) -> _Served:
        return _Served(trained, Model(trained, self._compute))

    def _serve(self, trained: Trained) -> None:
        self._served = self._ready(trained)

    def health(self) -> dict[str, Any]:
        """Answer to ``/health``."""
        return {
            "status": "UP",
            "model_class": "tagmask",
            "model_version": self.version,
            "corrections": len(self._shelf.corrections()),
            "new_corrections": self._shelf.pending(),
            "training": self.teacher.state,
        }

    def versions(self) -> dict[str, Any]:
        """Answer to ``/versions``."""
        return {"versions": [self.version], "trainings": self._shelf.versions}

    def setup(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Answer to ``/setup``: take a project on.

        Raises:
            DataError: Its labelling interface does not fit the model.
        """
        self._project_set_up(asked.get("project"), asked.get("schema"))
        self._images.hand(asked.get("hostname"), asked.get("access_token"))
        return {"model_version": self.version}

    def predict(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Answer to ``/predict``: one list of regions a task.

        A task whose picture cannot be had gets none, and its reason under "errors".

        Raises:
            DataError: The request cannot be read, or no task of it can be predicted.
        """
        interface = self._project_set_up(asked.get("project"), asked.get("label_config"))
        tasks = asked.get("tasks")
        if not isinstance(tasks, list) or not 0 < len(tasks) <= _MOST_TASKS:
            raise DataError(f"'tasks' is a list of 1 to {_MOST_TASKS} tasks")
        served = self._served
        results: list[Any] = []
        errors: dict[str, str] = {}
        for number, task in enumerate(tasks):
            try:
                results.append(self._predicted(served, task, interface, asked["project"]))
            except UserError as error:
                name = task.get("id", number) if isinstance(task, Mapping) else number
                errors[printable(str(name))] = printable(one_line(error))
                results.append([])  # the task stays without prediction and is asked for again
        for name, reason in errors.items():
            _LOG.warning("no prediction for task %s: %s", name, reason)
        if len(errors) == len(tasks):
            raise DataError("; ".join(f"task {name}: {reason}" for name, reason in list(errors.items())[:3]))
        return {"results": results, "model_version": served.version, **({"errors": errors} if errors else {})}

    def _predicted(self, served: _Served, task: Any, interface: Interface, project: Any) -> dict[str, Any]:
        data = _data(task)
        tags = task_tags(data, self.classes)
        picture = read_picture("the picture", content=self._images.read(data.get(interface.key)))
        result = served.model.predict(picture, tags=tags, maps=False)
        if tags:  # named as its correction will be
            name, keys = f"{_project(project)}-{task.get('id')}", task_keys(data, self.classes) or ()
            self._beside.put(name, np.array(picture), result.mask, keys)
        return prediction(result, interface, served.version)

    def hook(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Answer to ``/webhook``: annotations that were saved or deleted, or a training that is wanted.

        Raises:
            Unknown: The project was never set up here.
            DataError: The annotation cannot be used.
            Busy: A training is wanted while one runs.
        """
        action = asked.get("action")
        if action == "START_TRAINING":
            return self.fit(asked)
        if action in _DELETED:
            gone = self._shelf.drop({_number(one.get("id")) for one in _listed(asked, "annotation")})
            return {"status": "deleted", "corrections": gone}
        if action not in _SAVED:
            return {"status": "ignored"}
        project = self._known(asked)
        annotations, tasks = _listed(asked, "annotation"), _listed(asked, "task")
        if len(annotations) != len(tasks):
            raise DataError("a saved annotation comes with its task; let the webhook send its payload")
        saved = [self._learned(project, t, a) for t, a in zip(tasks, annotations, strict=True)]
        status = "saved" if any(saved) else "nothing to learn"
        return {
            "status": status,
            "corrections": len(self._shelf.corrections()),
            "training": self.teacher.consider(),
        }

    def fit(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Answer to ``/fit`` and ``/train``: learn from everything that was corrected so far.

        Raises:
            Unknown: The project was never set up here.
            DataError: There are too few corrections.
            Busy: A training runs.
        """
        project = self._known(asked)
        missed = None if self.teacher.state["running"] else self._catch_up(project)
        count = self.teacher.begin()
        return {
            "status": "training",
            "job": "fit",
            "corrections": count,
            **({"note": missed} if missed else {}),
        }

    def _catch_up(self, project: str) -> str | None:
        """Take what was annotated while nobody listened; gives why not."""
        try:
            for task in self._images.tasks(int(project)):
                done = [one for one in task.get("annotations") or () if not one.get("was_cancelled")]
                if done:
                    self._learned(project, task, max(done, key=lambda one: str(one.get("updated_at") or "")))
        except (UserError, TypeError, ValueError, AttributeError) as error:
            _LOG.warning("annotations of project %s could not be asked for: %s", project, error)
            return f"only what was sent here counts: {one_line(error)}"
        return None

    def _learned(self, project: str, task: Any, annotation: Any) -> bool:
        """Keep one annotation; whether it is news."""
        data = _data(task)
        if not isinstance(annotation, Mapping) or not isinstance(annotation.get("result"), list):
            raise DataError("an annotation is an object with a list 'result'")
        if annotation.get("was_cancelled"):
            return False
        interface = read_interface(self._shelf.projects[project], self.classes)
        place = self._images.check(data.get(interface.key))
        picture = read_picture("the picture", content=self._images.read(place))
        mask = mask_of(annotation, (picture.height, picture.width), self.classes)
        try:
            tags = chosen_tags(annotation, interface)
        except (LookupError, TypeError, AttributeError) as error:
            raise DataError(f"the choices of the annotation cannot be read ({error})") from None
        if mask is None or (tags and not mask.any()):
            return False  # tags alone say nothing about pixels
        number = _number(task.get("id"))
        about = {"project": project, "task": number, "annotation": _number(annotation.get("id"))}
        about |= {"tags": tags, "shown": task_keys(data, self.classes)}
        return self._shelf.put(f"{project}-{number}", _png(picture), _labels(mask), about)

    def _known(self, asked: Mapping[str, Any]) -> str:
        project = _project(asked.get("project"))
        if project not in self._shelf.projects:
            raise Unknown(
                f"project {project} was never set up here; add this backend to it first (Settings, Model)"
            )
        return project

    def _project_set_up(self, project: Any, text: Any) -> Interface:
        number = _project(project)
        interface = read_interface(text, self.classes)
        self._shelf.note_project(number, str(text))
        return interface


def _project(value: Any) -> str:
    """Number of a project, of what Label Studio calls it: an object, "7.1700000000" or a number.

    Raises:
        DataError: It is none of these.
    """
    found = value.get("id") if isinstance(value, Mapping) else value
    text = str(found).split(".")[0] if isinstance(found, str | int) else ""
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise DataError("the request does not say which project it is about")
    return text


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise DataError("tasks and annotations have a number 'id'")
    return value


def _data(task: Any) -> Mapping[str, Any]:
    if not isinstance(task, Mapping) or not isinstance(task.get("data"), Mapping):
        raise DataError("a task is an object with 'data'")
    return dict(task["data"])


def _listed(asked: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    found = asked.get(key, asked.get(f"{key}s"))
    rows = found if isinstance(found, list) else [found]
    if not all(isinstance(row, Mapping) for row in rows):
        raise DataError(f"'{key}' is an object; let the webhook send its payload")
    return rows


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _labels(mask: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(mask, np.uint8)

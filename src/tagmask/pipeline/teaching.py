"""Teach the model of a run from corrected masks: what is learned from, and where the result goes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tagmask.annotations.read import Subjects, Tally, read_annotations
from tagmask.data import TagDataset
from tagmask.data.parts import Parts
from tagmask.errors import DataError
from tagmask.models.versions import save_version
from tagmask.pipeline.config import RunConfig
from tagmask.steps.models import Models
from tagmask.store.files import file_for
from tagmask.store.labels import write_mask
from tagmask.training.corrections import may_teach
from tagmask.training.lessons import Lesson, Taught, TeachConfig
from tagmask.training.teach import teach

__all__ = ["CORRECTED", "TaughtRun", "teach_run"]

CORRECTED = Path("reviewed") / "masks"
"""Where the app keeps the masks of a run that a person accepted or mended."""


@dataclass(frozen=True)
class TaughtRun:
    """What teaching gave.

    Attributes:
        taught: The figures, and the new model if it is better.
        folder: Where that was saved; None if nothing was.
        use: The setting that makes the run use it.
        left: What was left out of the corrections, in words.
    """

    taught: Taught
    folder: Path | None
    use: str
    left: str


def teach_run(
    config: RunConfig,
    run: Path,
    corrections: Path | None = None,
    *,
    seconds: float = 60,
    out: Path | None = None,
    progress: Callable[[str, float], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> TaughtRun:
    """Teach the network that makes a run's masks, and save it as a new version if it is better.

    Images without a correction come along with the run's own labels, else with its masks.

    Args:
        config: Settings of the run.
        run: The run folder.
        corrections: Folder, .zip or .json of corrected masks; what was accepted in the app if None.
        seconds: Time that teaching may take.
        out: Folder of the versions; ``RUN/taught`` if None.
        progress: See `tagmask.training.teach.teach`.
        stop: See there.

    Raises:
        ConfigError: The method does not segment, or these are the true masks.
        DataError: There are too few corrections, or something cannot be read.
    """
    source = corrections or run / CORRECTED
    if not source.exists():
        given = "the app (tagmask app RUN) keeps accepted masks there, or name others with --corrections"
        raise DataError(f"there are no corrections in {source}; {given}")
    data = Parts(config.data)
    models = Models(config, run, data)
    trained = models.segmenter()
    may_teach(source, config.data.masks or (config.data.root or Path()) / "masks", type(trained.method))
    # Images are read as the model reads them.
    dataset, tally = Parts(config.data, trained.reading).open("both"), Tally()
    with tempfile.TemporaryDirectory(prefix="tagmask-") as place:
        lessons = _lessons(source, dataset, Path(place), tally)
        known = {lesson.name for lesson in lessons}
        others = [lesson for lesson in _others(run, dataset) if lesson.name not in known]
        taught = teach(
            trained,
            lessons,
            others=others,
            seconds=seconds,
            compute=config.runtime.create(),
            config=TeachConfig(seed=config.runtime.seed),
            progress=progress,
            stop=stop,
        )
    learner = f"{models.segmenter_name}." if models.segmenter_name else ""
    if taught.trained is None:
        return TaughtRun(taught, None, "", tally.text())
    folder = save_version(out or run / "taught", taught.trained)
    return TaughtRun(taught, folder, f"{learner}checkpoint={folder}", tally.text())


def _lessons(source: Path, dataset: TagDataset, place: Path, tally: Tally) -> list[Lesson]:
    """The corrections, written to a folder so that many of them need no memory."""
    found: dict[str, Lesson] = {}
    for name, mask in read_annotations(source, Subjects.of_dataset(dataset), tally=tally):
        if name in found:
            raise DataError(f"{source}: there are two corrections of '{name}'")
        path = file_for(place, name, ".png")
        write_mask(path, mask)
        found[name] = Lesson(name, partial(dataset.image, dataset.position(name)), path)
    return list(found.values())


def _others(run: Path, dataset: TagDataset) -> list[Lesson]:
    found = []
    for index, item in enumerate(dataset.items):
        places = (file_for(run / part, item.name, ".png") for part in ("labels", "masks"))
        path = next((path for path in places if path.is_file()), None)
        if path is not None:
            found.append(Lesson(item.name, partial(dataset.image, index), path))
    return found

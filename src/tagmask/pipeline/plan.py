"""What a run is going to do, and about how long every step of it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagmask.data.parts import Part
from tagmask.errors import UserError
from tagmask.pipeline.asked import asked_of, section
from tagmask.pipeline.speed import FITTING, Meter, network_of, reading
from tagmask.steps.base import Context, Step
from tagmask.training.checkpoints import Checkpoints
from tagmask.training.config import TrainConfig

__all__ = ["Plan", "PlannedStep", "make_plan", "minutes"]

_OPENING = 6.0
"""Seconds to load a model and write what a step leaves beside its images."""
_SCORED = 3
"""Pictures that are read for every image scored: its mask, and what is compared with it."""
_REPORT = 15.0


@dataclass(frozen=True)
class PlannedStep:
    """One step of a run.

    Attributes:
        name: Its name.
        done: Whether it was done before, with the same settings and inputs.
        what: How much there is to do: "300 updates of 16 images".
        seconds: About how long it takes; None if nobody knows.
    """

    name: str
    done: bool
    what: str = ""
    seconds: float | None = None

    @property
    def length(self) -> str:
        """How long, in words."""
        if self.done:
            return "done"
        return "time not known" if self.seconds is None else f"about {minutes(self.seconds)}"


@dataclass(frozen=True)
class Plan:
    """The steps of a run before it begins.

    Attributes:
        folder: Where it goes.
        steps: In order.
        left_out: Name of a step that makes no sense here to the reason.
    """

    folder: Path
    steps: Sequence[PlannedStep]
    left_out: Mapping[str, str]

    @property
    def seconds(self) -> float:
        """What is known of the whole time."""
        return sum(step.seconds or 0.0 for step in self.steps if not step.done)

    @property
    def vague(self) -> bool:
        """Whether a step's time is not known."""
        return any(step.seconds is None for step in self.steps if not step.done)

    def after(self, name: str) -> tuple[float, bool]:
        """Seconds of the steps after one, and whether that leaves out some whose time is not known."""
        place = [step.name for step in self.steps].index(name)
        rest = Plan(self.folder, self.steps[place + 1 :], {})
        return rest.seconds, rest.vague

    def line(self, name: str) -> str:
        """What is said when a step comes: "step 2 of 6: localize, about 40 s, then about 3 min more".

        A step that is done says so itself.
        """
        names = [step.name for step in self.steps]
        place = names.index(name)
        later, vague = self.after(name)
        told = f"step {place + 1} of {len(names)}: {name}"
        if self.steps[place].done:
            return ""
        rest = f", then {'at least' if vague else 'about'} {minutes(later)} more" if later else ""
        return f"{told}, {self.steps[place].length}{rest}"

    def lines(self) -> list[str]:
        """For the terminal."""
        left = [step for step in self.steps if not step.done]
        total = "nothing left to do"
        if left:
            least = "at least" if self.vague else "about"
            total = f"{least} {minutes(self.seconds)}, tried on this machine just now"
        found = [f"plan: {len(self.steps)} steps in {self.folder}: {total}"]
        names = max((len(step.name) for step in self.steps), default=0)
        whats = max((len(step.what) for step in self.steps), default=0)
        for number, step in enumerate(self.steps, start=1):
            found.append(f"  {number} {step.name:<{names}}  {step.what:<{whats}}  {step.length}")
        return [*found, *(f"  {name}: left out, {reason}" for name, reason in self.left_out.items())]

    def values(self) -> dict[str, Any]:
        """For a program."""
        return {
            "folder": str(self.folder),
            "seconds": round(self.seconds, 1),
            "complete": not self.vague,
            "steps": [
                {
                    "name": step.name,
                    "done": step.done,
                    "what": step.what,
                    "seconds": None if step.seconds is None else round(step.seconds, 1),
                }
                for step in self.steps
            ],
            "left_out": dict(self.left_out),
        }


def minutes(seconds: float) -> str:
    """A rough length of time in words."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.0f} days"


def make_plan(
    context: Context, chosen: Sequence[Step], left_out: Mapping[str, str], overwrite: bool = False
) -> Plan:
    """Which of the steps are to be done, and about how long each takes; nothing is written.

    Args:
        context: The run.
        chosen: Its steps.
        left_out: Why others are not among them.
        overwrite: A training in the folder is replaced.

    Raises:
        UserError: The data cannot be read.
    """
    new: set[str] = set()
    planned = []
    guess = _Guess(context)
    for step in chosen:
        if not new and len(chosen) == 1 and step.anew:
            done = False
        else:
            done = not (overwrite and step.private) and _done(step, context, new)
        if done:
            planned.append(PlannedStep(step.name, True))
            continue
        new |= {step.name, *(output.split("/")[0] for output in step.writes)}
        # What a walk leaves is labels to those who learn from them; what a training leaves is a model.
        new |= {"labels"} if step.name == "walk" else {"model"} if step.private else set()
        planned.append(PlannedStep(step.name, False, *guess.of(step, overwrite)))
    guess.meter.forget()
    return Plan(context.folder, planned, left_out)


def _done(step: Step, context: Context, new: set[str]) -> bool:
    """Whether a step was done before and nothing that it reads is made again."""
    try:
        asked = asked_of(step, context)
    except UserError:  # an earlier step has yet to make what it reads
        return False
    return not new & set(asked.inputs) and asked.done(context.manifest)


class _Guess:
    """Amount and time of single steps."""

    def __init__(self, context: Context) -> None:
        self.context, self.config = context, context.settings
        dataset = context.data.open("train")
        self.read, side = reading(dataset) if len(dataset) else (0.01, 256)
        self.meter = Meter(self.config, dataset.num_classes, side)  # type: ignore[arg-type]

    def of(self, step: Step, overwrite: bool) -> tuple[str, float | None]:
        """How much there is to do in words, and the seconds it takes."""
        own = section(self.config, step)
        if step.private:
            return self._training(step, own if step.name == "train" else own.train, overwrite)
        ways: Mapping[str, Callable[[], float | None]] = {
            "localize": self.meter.maps,
            "refine": self.meter.label,
            "segment": self.meter.mask,
            "evaluate": lambda: _SCORED * self.read,
            "verdict": lambda: _SCORED * self.read,
            "walk": lambda: None,
        }
        if step.name not in ways:
            return "", _REPORT if step.name == "report" else None
        count = self._images(own)
        each = ways[step.name]()
        if each is None:
            return f"{count} images", None
        fit = self.meter.fit() if step.name == "refine" else 0.0
        # Every image is read, and what comes of it written, which takes about as long.
        return f"{count} images", _OPENING + fit + count * (each + 2 * self.read)

    def _images(self, own: Any) -> int:
        part: Part = own.split
        limits = [getattr(own, name, None) for name in ("limit", "images")]
        counts: list[int] = [len(self.context.data.open(part)), *(n for n in limits if n is not None)]
        return min(counts)

    def _training(self, step: Step, train: TrainConfig, overwrite: bool) -> tuple[str, float | None]:
        left = train.iterations
        if not overwrite:
            saved = Checkpoints(self.context.folder / step.private[0] / "checkpoints", train.keep).step()
            left = max(left - (saved or 0), 0)
        name, model = self.config.method, dict(self.config.model)
        if step.name != "train":
            name = getattr(self.config, step.name).method
            model = network_of(self.config, step.name)  # type: ignore[arg-type]
        each = self.meter.update(name, model, train)
        what = f"{left} updates of {train.batch_size} images"
        if each is None:
            return what, None
        each += train.batch_size * self.read / max(train.workers or 1, 1)
        fitting = FITTING if left and train.heads is not None else 0.0
        return what, _OPENING + fitting + left * each / self.context.runtime.world + self._scoring(train)

    def _scoring(self, train: TrainConfig) -> float:
        """Seconds of the scoring on the way."""
        if not train.eval_every or not self.context.data.has_masks("auto"):
            return 0.0
        count = len(self.context.data.open("auto"))
        images = count if train.eval_images is None else min(count, train.eval_images)
        each = (self.meter.maps() or 0.0) + 2 * self.read
        return max(train.iterations // train.eval_every, 1) * images * each

"""Run `tagmask` and send it a signal at a moment of its work, whatever the machine's speed.

    python strike.py KILL noted localize 2 run small --out runs/a

kills the program right after the second file of "localize" was noted. A test that watches a run's files and
then kills it comes too late on a fast machine; the program that strikes itself never does. ``KILL@1`` strikes
process 1 of several only, ``parent:USR1`` the launcher, and then waits for its signal. At
the moment "worker" it is one Ray worker that strikes itself; KEY is a file that notes it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["struck"]


@dataclass(frozen=True)
class Moment:
    """Attributes: where a function is found, whether its work is done by then, what tells its calls apart."""

    module: str
    name: str
    after: bool
    key: Callable[..., str] = lambda *_: ""


_STAGING = "tagmask.store.staging"
MOMENTS = {
    # One update of the weights.
    "updated": Moment("tagmask.training.loop", "_update", True),
    # A state of a training; told by the end of its folder.
    "saved": Moment("tagmask.training.checkpoints", "Checkpoints.write", True, lambda s, *_: str(s.folder)),
    # Steps of a run; told by their names.
    "working": Moment("tagmask.pipeline.run", "_work", False, lambda context, step, plan: step.name),
    "noted": Moment("tagmask.store.ledger", "Ledger.note", True, lambda ledger, *_: ledger.folder.name),
    "complete": Moment(_STAGING, "Staging.complete", False, lambda staging, *_: staging.step),
    "placing": Moment(_STAGING, "Staging.place", False, lambda staging, *_: staging.step),
    "swapped": Moment(_STAGING, "Staging._swap", True, lambda staging, *_: staging.step),
    # Pictures of `predict`; told by their names.
    "predicted": Moment("tagmask.inference.summary", "Summary.add", True, lambda _, row: str(row["name"])),
    # A file about to take its place; told by its path.
    "renaming": Moment("tagmask.store.files", "os.replace", False, lambda source, target: str(target)),
}


def struck(signum: int, moment: str, arguments: Sequence[object]) -> tuple[int, str]:
    """Exit code and stderr of ``tagmask ARGUMENTS``, struck at "MOMENT KEY COUNT".

    Its process is forked from one that has loaded everything and computed nothing: loading PyTorch takes
    longer than all that such a command does.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.cli.loaded"])
    name = signal.Signals(signum).name.removeprefix("SIG")
    words = [name, *moment.split(), *map(str, arguments)]
    with tempfile.NamedTemporaryFile("r", suffix=".txt") as said:
        process = context.Process(target=_in_child, args=(words, said.name))
        process.start()
        process.join(600)
        if process.is_alive():
            process.kill()
            raise TimeoutError(f"{moment}: {arguments} did not end; it said {said.read()}")
        return int(process.exitcode or 0), said.read()


def _in_child(words: list[str], said: str) -> None:
    """Be the program of the head of this file; what it says goes to a file."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for stream in (1, 2):
        os.dup2(os.open(said, os.O_WRONLY | os.O_APPEND), stream)
    sys.argv = [__file__, *words]
    main()


def strike(how: str) -> None:
    """Send the signal; returns if the program goes on after it."""
    how, _, rank = how.partition("@")
    if rank and os.environ.get("RANK") != rank:
        return
    whom, _, name = how.rpartition(":")
    number = signal.Signals[f"SIG{name}"]
    if whom != "parent":
        os.kill(os.getpid(), number)
        return
    # The launcher passes it on when it likes; until then this process stays where it is.
    came: list[int] = []
    before = signal.getsignal(number)
    signal.signal(number, lambda *_: came.append(number))
    os.kill(os.getppid(), number)
    while not came:
        time.sleep(0.01)
    signal.signal(number, before)
    os.kill(os.getpid(), number)


def arm(how: str, moment: Moment, key: str, count: int) -> None:
    """Wrap the function of a moment so that its call number `count` with that key strikes."""
    place: Any = importlib.import_module(moment.module)
    *path, name = moment.name.split(".")
    for part in path:
        place = getattr(place, part)
    real, calls = getattr(place, name), 0

    @functools.wraps(real)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        mine = moment.key(*args).endswith(key)
        calls += mine
        if mine and calls == count and not moment.after:
            strike(how)
        result = real(*args, **kwargs)
        if mine and calls == count and moment.after:
            strike(how)
        return result

    setattr(place, name, wrapped)


def arm_worker(note: str, count: int) -> None:
    """Let the Ray worker that is the first to finish picture number `count` of its own strike itself."""
    from tagmask.inference import ray

    # A class of the main program travels to the workers as it is; a changed module would not.
    class Dying(ray.Worker):
        def __init__(self, job: Any) -> None:
            super().__init__(job)
            real, calls = self._work.done, itertools.count(1)

            def done(row: Any) -> None:
                real(row)
                if next(calls) != count:
                    return
                with contextlib.suppress(FileExistsError):
                    os.close(os.open(note, os.O_CREAT | os.O_EXCL))
                    os.kill(os.getpid(), signal.SIGKILL)

            self._work.done = done

    ray.Worker = Dying  # type: ignore[misc]


def main() -> None:
    """The program of the head of this file."""
    from tagmask.cli.main import main as tagmask

    how, moment, key, count, *sys.argv[1:] = sys.argv[1:]
    if moment == "worker":
        arm_worker(key, int(count))
    else:
        arm(how, MOMENTS[moment], "" if key == "-" else key, int(count))
    tagmask()


if __name__ == "__main__":
    main()

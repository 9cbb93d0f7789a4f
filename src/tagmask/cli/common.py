"""What the commands share: their flags, how they fail, how they print."""

from __future__ import annotations

import errno
import functools
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from tagmask.cli.complete import backbones, known_methods, known_recipes
from tagmask.cli.manner import manner, new_display, show_line, verbose_log
from tagmask.engine.memory import address_space, near_limit, room_kept
from tagmask.errors import ProcessError, UserError, in_commands, printable

__all__ = [
    "PARTLY",
    "USER_ERROR",
    "as_text",
    "compute_flags",
    "data_flags",
    "guarded",
    "holdout_flags",
    "new_display",
    "show_line",
    "split_flags",
]

OK, INTERNAL, USER_ERROR, PARTLY, STOPPED = 0, 1, 2, 3, 130
"""Exit codes: done; a fault of tagmask; something given cannot be used; some inputs failed; Ctrl-C."""
_BROKEN_PIPE = 141
_NO_MEMORY = (
    "failed to map segment", "annot allocate memory", "can't allocate memory", "not enough memory",
    "can't start new thread", "out of memory",
)  # fmt: skip
"""What systems and libraries say when no memory, or no address space, is left."""
_ADVICE = "close other programs, make pictures or batches smaller, or raise the limit of this shell"
_NO_WORDS = f"error: memory ran out; {_ADVICE} (ulimit -v) or container\n".encode()
"""Said when nothing else can be."""

_F = TypeVar("_F", bound=Callable[..., Any])

Data = Annotated[Path | None, typer.Option("--data", help="Folder of the images, or hf:NAME (data.root).")]
Kind = Annotated[
    str | None, typer.Option("--kind", help="folder, voc, coco, hugging_face or auto (data.kind).")
]
Split = Annotated[str | None, typer.Option("--split", help="Part of the data to use.")]
Tags = Annotated[str | None, typer.Option("--tags", help="Tag file, if not in the usual place (data.tags).")]
Classes = Annotated[Path | None, typer.Option("--classes", help="File with class names (data.classes).")]
Masks = Annotated[Path | None, typer.Option("--masks", help="Folder of true masks, for scoring.")]
MethodName = Annotated[
    str | None,
    typer.Option("--method", help="Method, see 'tagmask list'.", autocompletion=known_methods),
]
Backbone = Annotated[
    str | None,
    typer.Option("--backbone", help="Network of the method (model.backbone).", autocompletion=backbones),
]
Weights = Annotated[str | None, typer.Option("--weights", help="Pretrained weights: hub, none or a file.")]
Size = Annotated[int | None, typer.Option("--size", help="Side of the training views in pixels.")]
Resize = Annotated[int | None, typer.Option("--resize", help="Resize images to squares of this side first.")]
MapKind = Annotated[str | None, typer.Option("--map-kind", help="Kind of maps to start from.")]
Iterations = Annotated[int | None, typer.Option("--iterations", help="Updates of the weights.")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", help="Images per update.")]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, mps, cuda or cuda:N.")]
Precision = Annotated[str | None, typer.Option("--precision", help="fp32, tf32, bf16 or fp16.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Random seed.")]
Out = Annotated[Path | None, typer.Option("--out", help="Run folder.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite/--no-overwrite", help="Replace a training in the run folder.")
]
Holdout = Annotated[
    bool | None,
    typer.Option(
        "--holdout/--no-holdout",
        help="Hold out a tenth of the images for scoring tags where the data names no split (data.holdout).",
    ),
]
Recipe = Annotated[
    str | None,
    typer.Option("--recipe", help="Shipped recipe, or a YAML file.", autocompletion=known_recipes),
]
Tracker = Annotated[
    list[str] | None,
    typer.Option("--tracker", help="Also log to wandb, mlflow, tensorboard, ... May be repeated."),
]
Set = Annotated[list[str] | None, typer.Option("--set", help="Any setting: --set a.b=c. May be repeated.")]
Checkpoint = Annotated[
    Path | None,
    typer.Option("--checkpoint", help="Model folder or published checkpoint, instead of training."),
]


def guarded(command: _F) -> _F:
    """A command whose failures are one line and an exit code, see `OK` and those after it.

    Stop signals other than Ctrl-C exit 128 + their number. With TAGMASK_DEBUG=1 or -v the traceback is shown
    as well.
    """

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with in_commands(), verbose_log():
            try:
                with room_kept():
                    return _done(command, *args, **kwargs)
            except typer.Exit as left:
                manner().answer(left.exit_code)
                raise
            except BrokenPipeError:
                # The reader of our output has gone, as "| head" does.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise typer.Exit(_BROKEN_PIPE) from None
            except (Exception, KeyboardInterrupt) as error:
                _end(error)

    return wrapped  # type: ignore[return-value]


def _done(command: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    result = command(*args, **kwargs)
    if "LOCAL_RANK" in os.environ:
        from tagmask.engine.runtime import leave_processes

        leave_processes()
    manner().answer(OK)
    return result


def _end(error: BaseException) -> None:
    """Say what went wrong, if need be without memory, and leave."""
    if isinstance(error, MemoryError):
        traceback.clear_frames(error.__traceback__)  # whatever the command held
    try:
        line, code = _explain(error)
        _fail(line, code, everyone=isinstance(error, ProcessError))
    except typer.Exit:
        raise
    except Exception as again:
        if not isinstance(again, MemoryError) and address_space() is None:
            raise
        with suppress(OSError):
            os.write(2, _NO_WORDS)
        raise typer.Exit(USER_ERROR) from None


def _explain(error: BaseException) -> tuple[str, int]:
    """What to print about a failure, and the exit code."""
    if isinstance(error, UserError):
        return "\n".join(printable(line) for line in f"error: {error}".split("\n")), USER_ERROR
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; repeat the command to continue", STOPPED
    if isinstance(error, OSError) and error.errno != errno.ENOMEM:
        place = f" ({error.filename})" if error.filename else ""
        return f"error: the system refused: {error.strerror or error}{place}", USER_ERROR
    code = getattr(error, "exit_code", None)
    if code is not None:
        return f"{error}; {_how_to_go_on()}", code
    reason = " ".join(str(error).split()) or type(error).__name__
    # A SystemError is a library that failed and does not know how: where there is a limit, by the limit.
    limited = near_limit(0 if isinstance(error, SystemError) else 0.75)
    if limited or isinstance(error, (MemoryError, OSError)) or any(words in reason for words in _NO_MEMORY):
        return f"error: memory ran out ({reason[:200]}); {_ADVICE} (ulimit -v) or container", USER_ERROR
    return f"internal error: {type(error).__name__}: {reason} (TAGMASK_DEBUG=1 shows where)", INTERNAL


def _how_to_go_on() -> str:
    train = len(sys.argv) > 1 and sys.argv[1] == "train" and "--resume" not in sys.argv
    return "repeat the command with --resume to continue" if train else "repeat the command to continue"


def _fail(line: str, code: int, everyone: bool = False) -> None:
    if os.environ.get("TAGMASK_DEBUG") == "1" or manner().verbose:
        traceback.print_exc()
    if everyone:
        typer.echo(line, err=True)
    else:
        show_line(line, error=True)
    manner().answer(code, line)
    raise typer.Exit(code)


def data_flags(
    data: Path | None, tags: str | None, classes: Path | None, masks: Path | None, kind: str | None
) -> dict[str, Any]:
    """Settings behind the flags about data."""
    return {
        "data.root": as_text(data),
        "data.tags": tags,
        "data.classes": as_text(classes),
        "data.masks": as_text(masks),
        "data.kind": kind,
    }


def holdout_flags(holdout: bool | None) -> dict[str, Any]:
    """The setting behind --holdout and --no-holdout."""
    from tagmask.data.holdout import SHARE

    return {} if holdout is None else {"data.holdout": SHARE if holdout else 0.0}


def compute_flags(device: str | None, precision: str | None, seed: int | None) -> dict[str, Any]:
    """Settings behind the flags about computing."""
    return {"runtime.device": device, "runtime.precision": precision, "runtime.seed": seed}


def split_flags(split: str | None, stage: str) -> dict[str, Any]:
    """Train and val mean the run's own parts; any other name is a split of the data set."""
    if split is None or split in ("auto", "train", "val"):
        return {f"{stage}.split": split}
    return {f"{stage}.split": "val", "data.val_split": split}


def as_text(path: Path | None) -> str | None:
    """A path as settings hold it."""
    return None if path is None else str(path)

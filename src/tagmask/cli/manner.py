"""How a command speaks: quietly, in detail, or to another program; and flags that were renamed."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from tagmask.names import renamed_text

if TYPE_CHECKING:
    from tagmask.engine.log import Display

__all__ = ["App", "Manner", "considerate", "manner", "new_display", "show_line", "verbose_log"]

_F = TypeVar("_F", bound=Callable[..., Any])

GROUPS: Mapping[str, Sequence[str]] = {
    "Start here": ("run", "demo", "predict"),
    "Look, correct, teach": ("review", "app", "annotate", "teach", "serve"),
    "Single steps of a run": (
        "train", "localize", "refine", "affinity", "walk", "student", "segment", "evaluate", "report",
        "entropy",
    ),
    "Data and models": ("data", "export", "animate"),
    "Settings and help": ("set", "check", "list", "show", "version"),
}  # fmt: skip
"""Help lists the commands like this."""
HELP = "All commands also take -q (no progress), -v (details, tracebacks) and --json (one JSON object)."
ALSO = "Also: -q, --quiet (no progress), -v, --verbose (details, tracebacks), --json (one JSON object)."
RENAMED: Mapping[str, Mapping[str, str]] = {
    "localize": {"--size": "--resize"},
    "segment": {"--size": "--resize"},
    "refine": {"--method": "--refinement", "--maps": "--map-kind"},
    "walk": {"--maps": "--map-kind"},
    "animate": {"--rate": "--fps", "--classes": "--only"},
}
"""Old flags by command: one that meant something else in another command has a name of its own."""


@dataclass
class Manner:
    """How this call of the command line speaks.

    Attributes:
        quiet: No progress and no remarks, only results and errors.
        verbose: Also log records and tracebacks.
        json: One JSON object on standard output instead of lines.
        lines: What would have been printed.
        facts: What the lines say, by name.
    """

    quiet: bool = False
    verbose: bool = False
    json: bool = False
    lines: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def take(self, args: list[str]) -> list[str]:
        """The arguments without those about the manner."""
        end = args.index("--") if "--" in args else len(args)
        known = {"-q": "quiet", "--quiet": "quiet", "-v": "verbose", "--verbose": "verbose", "--json": "json"}
        for flag in known.keys() & set(args[:end]):
            setattr(self, known[flag], True)
        return [arg for arg in args[:end] if arg not in known] + args[end:]

    def answer(self, code: int, error: str | None = None) -> None:
        """Print the JSON object, if that is what was asked for."""
        if self.json and os.environ.get("RANK", "0") == "0":
            said = {"exit_code": code, "error": error, **self.facts, "lines": self.lines}
            typer.echo(json.dumps(said, ensure_ascii=False, default=str))


_CALLS: list[Manner] = []


def manner() -> Manner:
    """The manner of the call that is running; the usual one outside of a call."""
    return _CALLS[-1] if _CALLS else Manner()


class Command(TyperCommand):
    """A command that knows its old flags, and those about the manner wherever they stand."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments."""
        return super().parse_args(ctx, _renamed(self.name or "", manner().take(args)))


class Group(TyperGroup):
    """Commands, in the order of `GROUPS`; each call has a manner of its own."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for panel, names in GROUPS.items():
            for name in names:
                if name in self.commands:
                    self.commands[name].rich_help_panel = panel  # type: ignore[attr-defined]

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the commands as help shows them."""
        order = [name for names in GROUPS.values() for name in names if name in self.commands]
        return order + [name for name in self.commands if name not in order]

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run one call of the command line."""
        _CALLS.append(Manner())
        try:
            return super().main(*args, **kwargs)
        finally:
            _CALLS.pop()

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments before the command."""
        first = next((i for i, arg in enumerate(args) if not arg.startswith("-")), len(args))
        return super().parse_args(ctx, manner().take(args[:first]) + args[first:])


class App(typer.Typer):
    """A Typer whose commands are of the kinds above."""

    def __init__(self, **settings: Any) -> None:
        names = {"help_option_names": ["-h", "--help"]}
        super().__init__(cls=Group, context_settings=names, no_args_is_help=True, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[_F], _F]:
        """Register a command."""
        settings.setdefault("epilog", ALSO)
        return super().command(name, cls=Command, **settings)


def _renamed(command: str, args: list[str]) -> list[str]:
    known, result = RENAMED.get(command, {}), []
    for arg in args:
        flag, mark, value = arg.partition("=")
        if flag in known:
            line = renamed_text(f"{flag} of 'tagmask {command}'", known[flag], "0.2")
            typer.echo(f"warning: {line}", err=True)
            arg = f"{known[flag]}{mark}{value}"
        result.append(arg)
    return result


@contextmanager
def verbose_log() -> Iterator[None]:
    """With -v, what the package logs goes to standard error while the context lasts."""
    if not manner().verbose:
        yield
        return
    log = logging.getLogger("tagmask")
    handler, before = logging.StreamHandler(), log.level
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    # What the display shows is logged as well; once is enough.
    handler.addFilter(lambda record: not getattr(record, "shown", False))
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


def new_display() -> Display:
    """A display of progress, unless nothing shall be seen."""
    from tagmask.engine.log import Display

    return Display(quiet=manner().quiet or manner().json)


def show_line(text: str, error: bool = False, **facts: Any) -> None:
    """Print one line of plain text; of several processes only the first speaks.

    Args:
        text: The line; nothing is printed if it is empty.
        error: To standard error.
        **facts: What it says, by name, for ``--json``.
    """
    said = manner()
    said.facts |= {name: str(v) if isinstance(v, Path) else v for name, v in facts.items()}
    if not text:
        return
    if said.json and not error:
        said.lines.append(text)
    elif os.environ.get("RANK", "0") == "0":
        typer.echo(text, err=error)


def considerate() -> None:
    """Let threads that wait for others sleep after about ten microseconds; call it before PyTorch is loaded.

    By default they spin, and where another program wants a core, they spin for a thread that does not run
    (`benchmarks/waiting.py`). What the user set in the environment is kept. GNU's OpenMP reads it, which
    PyTorch has on Linux.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")

"""Public names: loaded when first used, and kept for a while after they were renamed."""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ParamSpec, TypeVar, cast

__all__ = ["deprecated", "lazy", "moved", "points", "renamed_text", "warn_renamed"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_KEPT = 2
"""Minor versions for which an old name works."""


def lazy(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's ``__getattr__`` that imports the home of a name when the name is first used.

    Args:
        package: ``__name__`` of the package.
        homes: Public name to the module it lives in, below the package (".maps") or absolute; a
            name after a colon is what it is called there (".check:check").
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        home, _, inner = homes[name].partition(":")
        module = importlib.import_module(home, package)
        return getattr(module, inner or name)

    return load


def points(group: str) -> tuple[EntryPoint, ...]:
    """Entry points of installed packages; looked up again when the places to look in change.

    Args:
        group: For example "tagmask.methods".
    """
    return _points_on(group, tuple(sys.path))


@functools.lru_cache(maxsize=8)
def _points_on(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=group))


def deprecated(
    since: str,
    instead: str | None = None,
    arguments: Mapping[str, str] | None = None,
    positional: Sequence[str] = (),
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """The decorator behind every old name: it works for two minor versions and warns.

    Args:
        since: Version that renamed it, "0.2".
        instead: What to call, if the function itself is old.
        arguments: Old keyword to new keyword, if only these are old.
        positional: Keywords of today that could be given by position, in that order.
    """

    def decorate(fn: Callable[_P, _R]) -> Callable[_P, _R]:
        called = fn.__qualname__.removesuffix(".__init__")
        # Not by inspect, which takes as long to import as all of this.
        places = fn.__code__.co_argcount

        @functools.wraps(fn)
        def wrapped(*args: Any, **kwargs: Any) -> _R:
            if instead is not None:
                warn_renamed(called, instead, since)
            if positional and len(args) > places:
                given = args[places:]
                if len(given) > len(positional):
                    raise TypeError(f"{called}() takes {', '.join(positional)}, got {len(given)} values")
                names = positional[: len(given)]
                warn_renamed(f"{called}() without names", ", ".join(f"{name}=..." for name in names), since)
                args, kwargs = args[:places], {**dict(zip(names, given, strict=True)), **kwargs}
            for old, new in (arguments or {}).items():
                if old in kwargs:
                    # A new argument that joins an old flag and an old value: the value says more.
                    if kwargs.get(new, True) is not True:
                        raise TypeError(f"{called}() got both '{new}' and its old name '{old}'")
                    warn_renamed(f"{old}= of {called}()", f"{new}=", since)
                    kwargs[new] = kwargs.pop(old)
            return fn(*args, **kwargs)

        return cast(Callable[_P, _R], wrapped)

    return decorate


def moved(old: str, new: str, since: str) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module that has moved: its names still work from there, with a warning.

    Args:
        old: Dotted name of the module that is left.
        new: Dotted name of the module that has its names now.
        since: Version that moved it.
    """

    def load(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module '{old}' has no attribute '{name}'")
        value = getattr(importlib.import_module(new), name)
        warn_renamed(f"{old}.{name}", f"{new}.{name}", since)
        return value

    return load


def warn_renamed(old: str, new: str, since: str, level: int = 3) -> None:
    """Tell that a name is old, what replaces it, and until when it works.

    Args:
        old: What was used.
        new: What to use.
        since: Version that renamed it.
        level: Frames from here to the caller who used it.
    """
    warnings.warn(renamed_text(old, new, since), FutureWarning, level)


def renamed_text(old: str, new: str, since: str) -> str:
    """What a name is called now, and until when the old one works."""
    major, minor = since.split(".")[:2]
    gone = f"{major}.{int(minor) + _KEPT}"
    return f"{old} is now {new}; the old name works until tagmask {gone}"

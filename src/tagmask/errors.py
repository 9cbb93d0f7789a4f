"""Errors a user can act on. Every message says what came, what is allowed and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "ProcessError",
    "UserError",
    "nearest",
    "one_line",
    "printable",
]


class UserError(Exception):
    """Something the user gave cannot be used as it is; the command line prints it without a traceback."""


class ConfigError(UserError):
    """A setting, recipe or command-line value is unknown or out of range."""


class DataError(UserError):
    """An image, mask, tag list or folder cannot be used."""


class CheckpointError(UserError):
    """A weight file or saved model does not fit, is damaged or cannot be written."""


class ProcessError(UserError):
    """One of several processes cannot go on; it speaks for itself, whichever it is."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Sentence that lists the allowed names and, if one is close, suggests it.

    Args:
        name: What the user wrote.
        known: The names that would have been accepted.

    Returns:
        For example ``"Did you mean 'more'? Known: afa, more."``.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    return f"{hint}Known: {', '.join(names) if names else 'none'}."


def one_line(error: BaseException) -> str:
    """What an error says, on one line of at most 300 characters; its type if it says nothing."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def printable(text: str) -> str:
    """Text without line breaks, control characters and bytes that are no text, each shown by its code.

    Names of files can hold them; a terminal would obey them, and printing the last kind fails.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text
    )

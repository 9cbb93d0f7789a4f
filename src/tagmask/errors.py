"""Errors a user can act on. Every message says what came, what is allowed and what to do.

Messages are written in the words of the command line; to a Python program they speak of its arguments.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "ProcessError",
    "UserError",
    "in_commands",
    "in_python",
    "nearest",
    "one_line",
    "printable",
]


class UserError(Exception):
    """Something the user gave cannot be used as it is; the command line prints it without a traceback."""

    def __str__(self) -> str:
        text = super().__str__()
        return text if _COMMANDS else in_python(text)


class ConfigError(UserError):
    """A setting, recipe or command-line value is unknown or out of range."""


class DataError(UserError):
    """An image, mask, tag list or folder cannot be used."""


class CheckpointError(UserError):
    """A weight file or saved model does not fit, is damaged or cannot be written."""


class ProcessError(UserError):
    """One of several processes cannot continue; it speaks for itself, whichever it is."""


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


# Of the whole process, not of a context: threads of a command speak like the command.
_COMMANDS: list[None] = []
_SWITCHES = {"resume", "overwrite", "flip", "force"}
_PLACEHOLDERS = (
    r"[A-Z]{2,}|none|auto|cpu|cuda|bf16|fp32|tf32|fp16|hub|ray|[\w-]+\.(?:safetensors|yaml|csv|json)"
)
_COMMAND_NAMES = {"data check": "tagmask.check_data", "list": "tagmask.methods.list_methods"}


@contextmanager
def in_commands() -> Iterator[None]:
    """While it lasts, messages speak of flags and commands instead of Python's arguments and functions."""
    _COMMANDS.append(None)
    try:
        yield
    finally:
        _COMMANDS.pop()


def in_python(text: str) -> str:
    """A message in the words of the command line, in Python's: ``--out DIR`` becomes ``out=DIR``."""

    def literal(word: str) -> str:
        plain = word.isupper() or word in ("...", "true", "false", "null") or word[0] in "[{'\""
        python = {"true": "True", "false": "False", "null": "None"}.get(word, word)
        return python if plain or re.fullmatch(r"-?[\d.e-]+", word) else f'"{word}"'

    def setting(match: re.Match[str]) -> str:
        return f'settings={{"{match[1]}": {literal(match[2])}}}'

    def flag(match: re.Match[str]) -> str:
        name = match[1].replace("-", "_")
        if name in _SWITCHES:
            return f"{name}=True{' ' + match[2] if match[2] else ''}"
        return f"{name}={literal(match[2]) if match[2] else ''}"

    text = re.sub(r"--set '?([a-z_][\w.]*)=([^\s,;)']+)'?", setting, text)
    text = re.sub(rf"(?<![\w-])--([a-z][a-z-]*)(?:[ =]({_PLACEHOLDERS})(?![\w-]))?", flag, text)
    return re.sub(
        r"'tagmask ([a-z]+(?: [a-z]+)?)'", lambda m: _COMMAND_NAMES.get(m[1], f"tagmask.{m[1]}"), text
    )

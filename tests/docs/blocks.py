"""The code blocks of the README and the documentation."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^```([a-z]*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INCLUDE = re.compile(r'^--8<-- "(.+)"$', re.MULTILINE)


def site_pages() -> ModuleType:
    """The module that makes the generated pages."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        return importlib.import_module("pages")
    finally:
        sys.path.pop(0)


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: str
    number: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.number}"


def blocks(language: str) -> list[Block]:
    """All blocks of a language; "" means fences without one."""
    found = []
    for page in PAGES:
        matches = _FENCE.findall(page.read_text(encoding="utf-8"))
        name = page.relative_to(ROOT).as_posix()
        found += [Block(name, i, kind, text) for i, (kind, text) in enumerate(matches) if kind == language]
    return found


def included(block: Block) -> list[str]:
    """Files a block takes its text from."""
    return _INCLUDE.findall(block.text)


def commands(block: Block) -> list[list[str]]:
    """The commands of a shell block as words, comments left out; of an unmarked one those of tagmask."""
    lines = block.text.replace("\\\n", " ").splitlines()
    lines = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    found = [shlex.split(line, comments=True) for line in lines if block.language or _OURS.search(line)]
    return [words for words in found if words]


_OURS = re.compile(r"(^|\s)tagmask \w")


def command_blocks() -> list[Block]:
    """Shell blocks, and unmarked ones that hold a command."""
    return [*blocks("bash"), *(b for b in blocks("") if _OURS.search(b.text))]

"""What the tutorial says a command prints is what it prints."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from tests.cli import tagmask
from tests.docs.blocks import blocks

PAGE = "docs/start/tutorial.md"
TIMES = re.compile(r"about [\d.]+ (s|min)")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """160 photographs of cats, dogs, sofas and none of them, as far as the tutorial is concerned."""
    images = tmp_path / "mydata" / "images"
    images.mkdir(parents=True)
    tags = {f"cat_{k:03}.jpg": "cat;sofa" if k % 3 else "cat" for k in range(1, 61)}
    tags |= {f"dog_{k:03}.jpg": "dog" for k in range(1, 61)}
    tags |= {f"empty_{k:03}.jpg": "" for k in range(1, 41)}
    for name in tags:
        Image.new("RGB", (640, 480)).save(images / name)
    rows = ["image,tags", *(f"{name},{text}" for name, text in tags.items())]
    (tmp_path / "mydata" / "tags.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shown(first: str) -> list[str]:
    """The lines of the block that begins so."""
    found = (block.text for block in blocks("") if block.page == PAGE and block.text.startswith(first))
    return next(found).splitlines()


def test_what_the_check_prints(folder):
    printed = tagmask("data", "check", "mydata", "--limit", "2").stdout.splitlines()
    assert printed == shown("mydata: folder")


@pytest.mark.slow
def test_what_the_plan_prints(folder):
    printed = tagmask("run", "mydata", "--out", "runs/first", "--dry-run", "--weights", "none")
    lines = [line for line in (printed.stdout + printed.stderr).splitlines() if line.strip()]
    assert told(lines) == told(shown("auto: "))


def told(lines: list[str]) -> list[str]:
    """Without times and the precision, which are this machine's."""
    return [TIMES.sub("about T", line) for line in lines if "runtime.precision" not in line]

"""Five first-time readers find what they need within one click of the first page.

A plant pathologist with a spreadsheet, an inspection engineer with grey images and no GPU, a student who
repeats a paper and adds a loss, a reviewer who wants proof, and a maintainer to be.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, site_pages
from tests.docs.test_links import LINK, plain

HOME = "index.md"
DOCS = ROOT / "docs"
NEEDS = [  # who, what, words of the answer, the page that has it
    ("plant", "install on Windows", r".venv\\Scripts\\activate", "start/install.md"),
    ("plant", "from a spreadsheet to a tag list", "spreadsheet with the two columns", "start/tutorial.md"),
    ("plant", "class names with spaces", "`leaf rust` is two classes", "start/tutorial.md"),
    ("plant", "a real photograph with its mask", "photographs.jpg", "start/will-it-work.md"),
    ("plant", "how long it takes", "## How long it takes", "start/will-it-work.md"),
    ("steel", "16-bit grey images", "TIFF of 16 or 32 bits", "guide/other-pixels.md"),
    ("steel", "whether it runs without a GPU", "runs on a CPU", HOME),
    ("steel", "whether hairline cracks can be found", "hairline cracks", "start/will-it-work.md"),
    ("steel", "results on steel", "steel plates", "start/will-it-work.md"),
    ("student", "the commands for MoRe", "tagmask run voc/more", "guide/reproduce-a-paper.md"),
    ("student", "memory", "## Memory and time", "guide/reproduce-a-paper.md"),
    ("student", "the curve to expect", "What to expect during training", "guide/reproduce-a-paper.md"),
    ("student", "several GPUs", "torchrun", "guide/several-gpus.md"),
    ("student", "one more loss for MoRe", "MoRe", "guide/add-a-loss.md"),
    ("reviewer", "differences from the original code", "| tolerance |", "evidence/parity.md"),
    ("reviewer", "all methods on the same images", "methods.svg", "evidence/benchmarks.md"),
    ("reviewer", "what is unproven", "Not shown yet", HOME),
    ("reviewer", "command and seed of every number", "| seed |", "evidence/results.md"),
    ("maintainer", "a map of the code", "architecture.svg", "project/architecture.md"),
    ("maintainer", "what must stay true", "## What must stay true", "project/architecture.md"),
    ("maintainer", "which test guards a change", "the test that guards it", "project/architecture.md"),
]


def text(page: str) -> str:
    """A page of the site, written or generated."""
    made = site_pages().generated()
    return made[page] if page in made else (DOCS / page).read_text(encoding="utf-8")


def one_click(page: str) -> set[str]:
    """Pages that a page links to in its text; the menu is not counted."""
    targets = (link.partition("#")[0] for link in LINK.findall(plain(text(page))))
    return {Path(target).as_posix() for target in targets if "://" not in target}


@pytest.mark.parametrize(("reader", "need", "words", "page"), NEEDS, ids=[f"{n[0]}: {n[1]}" for n in NEEDS])
def test_what_a_reader_needs_is_one_click_away(reader, need, words, page):
    assert page == HOME or page in one_click(HOME)
    assert re.sub(r"\\\\", r"\\", words) in text(page)


def test_the_readme_leads_to_the_same_pages_in_two_clicks():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    near = {link.removeprefix("docs/").partition("#")[0] for link in LINK.findall(plain(readme))}
    assert HOME in near  # from where everything is one click away
    first = readme.partition("\n## ")[0]
    shown = {link.removeprefix("docs/").partition("#")[0] for link in LINK.findall(plain(first))}
    assert {"start/install.md", "start/tutorial.md", "start/will-it-work.md", "methods/index.md"} <= shown
    assert {"evidence/benchmarks.md", "project/architecture.md"} <= shown

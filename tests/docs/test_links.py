"""Links between pages lead to a page and a heading that are there; pictures exist and say what they show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT, site_pages

DOCS = ROOT / "docs"
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")


def plain(text: str) -> str:
    """Without code, whose brackets are no links."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE))


def anchor(heading: str) -> str:
    """The id that Python-Markdown gives a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", heading)
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text).strip().lower())


def anchors(text: str) -> set[str]:
    return {anchor(found) for found in re.findall(r"^#+ (.+?)(?: \{.*\})?$", text, re.MULTILINE)}


@pytest.fixture(scope="module")
def texts() -> dict[Path, str]:
    """Every page of the site, and the README, by its place."""
    made = {DOCS / place: text for place, text in site_pages().generated().items()}
    written = {page: site_pages().filled(page.read_text(encoding="utf-8")) for page in PAGES}
    return made | written


def test_links_lead_to_pages_and_headings(texts):
    dead = []
    for page, text in texts.items():
        for target in LINK.findall(plain(text)):
            if "://" in target or target.startswith("mailto:"):
                continue
            place, _, name = target.partition("#")
            aim = (page.parent / place).resolve() if place else page
            if aim not in texts and not aim.exists():
                dead.append(f"{page.relative_to(ROOT)}: {target}")
            elif name and aim in texts and name not in anchors(texts[aim]):
                dead.append(f"{page.relative_to(ROOT)}: no heading {target}")
    assert dead == []


def test_pictures_exist_and_say_what_they_show(texts):
    seen = 0
    for page, text in texts.items():
        for words, place in PICTURE.findall(plain(text)):
            assert (page.parent / place).is_file(), f"{page.relative_to(ROOT)}: {place}"
            assert len(words.split()) >= 4, f"{page.relative_to(ROOT)}: {place} needs a text"
            seen += 1
    assert seen > 8


def test_an_anchor_is_found_as_the_site_makes_it():
    assert anchor("What differs from the authors' code") == "what-differs-from-the-authors-code"
    assert (
        anchor("Few images, small backbone: the recipe `small`")
        == "few-images-small-backbone-the-recipe-small"
    )

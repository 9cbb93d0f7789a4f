"""The page about a run: one HTML file that needs nothing from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["Cell", "Example", "Figure", "Page", "Table", "render"]


@dataclass(frozen=True)
class Figure:
    """A picture with words.

    Attributes:
        uri: ``data:`` address.
        title: Above it.
        alt: What it shows, for those who cannot see it.
    """

    uri: str
    title: str
    alt: str


@dataclass(frozen=True)
class Cell:
    """One figure of a table.

    Attributes:
        text: As shown.
        share: 0 to 1, drawn as a bar behind the text; None draws none.
    """

    text: str
    share: float | None = None


@dataclass(frozen=True)
class Table:
    """Rows of figures.

    Attributes:
        title: Above it.
        head: Names of the columns, the first of which names the rows.
        rows: Name and cells.
        notes: Sentences below it.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Example:
    """One image with everything that was made of it.

    Attributes:
        name: Of the image.
        note: A line below the name.
        chips: (class name, colour) of what occurs.
        pictures: Side by side, in the order of the journey.
    """

    name: str
    note: str
    chips: Sequence[tuple[str, str]]
    pictures: Sequence[Figure]


@dataclass(frozen=True)
class Page:
    """Everything on the page.

    Attributes:
        title: Of the run.
        lead: One or two sentences.
        headline: (what, figure) shown large.
        settings: (name, value).
        verdict: What a colleague would say of the masks: "usable", "doubtful" or "bad", and why.
        losses: Curves of the training.
        scores: Curves of the scores.
        tables: Per class, artifacts.
        examples: Panels.
        embedding: Class tokens in the plane, if the method has them.
        footer: Versions.
    """

    title: str
    lead: str
    headline: Sequence[tuple[str, str]]
    settings: Sequence[tuple[str, str]]
    verdict: tuple[str, Sequence[str]] | None = None
    losses: Sequence[Figure] = ()
    scores: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    examples: Sequence[Example] = ()
    embedding: Figure | None = None
    embedding_note: str = ""
    footer: str = ""
    details: Mapping[str, str] = field(default_factory=dict)


def render(page: Page) -> str:
    """The page as HTML text; names of images and classes are escaped."""
    environment = Environment(
        loader=PackageLoader("tagmask.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("page.html").render(page=page)

"""The page about a run: one HTML file that needs nothing from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["Cell", "Chip", "Example", "Figure", "Page", "Table", "render"]


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
        rows: Name and cells; the first row, the mean, stays on top however the others are sorted.
        notes: Sentences below it.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Chip:
    """A class beside an image.

    Attributes:
        name: Of the class.
        colour: As ``#rrggbb``.
        note: What is odd about it, in words: "not in the mask".
    """

    name: str
    colour: str
    note: str = ""


@dataclass(frozen=True)
class Example:
    """One image with everything that was made of it.

    Attributes:
        name: Of the image.
        note: A line below the name.
        tags: What somebody tagged; None if nobody did.
        shown: What the mask, or else the label, shows.
        pictures: The image and its masks, the prediction first.
        maps: What they were made from.
        group: Which kind of example it is: "Typical", "Worst", "Best"; "" where nobody knows.
    """

    name: str
    note: str
    tags: Sequence[Chip] | None
    shown: Sequence[Chip]
    pictures: Sequence[Figure]
    maps: Sequence[Figure] = ()
    group: str = ""


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

    @property
    def groups(self) -> dict[str, list[Example]]:
        """The examples by their kind, in order."""
        found: dict[str, list[Example]] = {}
        for example in self.examples:
            found.setdefault(example.group, []).append(example)
        return found


def render(page: Page) -> str:
    """The page as HTML text; names of images and classes are escaped."""
    environment = Environment(
        loader=PackageLoader("tagmask.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("page.html").render(page=page)

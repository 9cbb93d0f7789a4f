"""The page of the review queue: one HTML file that sorts and filters without anything from outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["Entry", "ReviewPage", "TagLine", "render_review"]


@dataclass(frozen=True)
class Entry:
    """One image of the queue.

    Attributes:
        place: 1 for the most doubtful.
        name: Of the image.
        score: Overall doubt, 0 to 1.
        words: Which signals fired.
        tags: Its tags, with blanks; None if nobody tagged it.
        pictures: ``data:`` addresses of the image and its mask; none for those further down.
    """

    place: int
    name: str
    score: float
    words: Sequence[str]
    tags: str | None
    pictures: Sequence[str]


@dataclass(frozen=True)
class TagLine:
    """One tag that is doubted.

    Attributes:
        name: Of the image.
        tag: Name of the class.
        kind: "wrong" or "missing".
        doubt: 0 to 1.
        grade: "strong" or "weak".
        area: Share of the mask.
    """

    name: str
    tag: str
    kind: str
    doubt: float
    grade: str
    area: float


@dataclass(frozen=True)
class ReviewPage:
    """Everything on the page.

    Attributes:
        title: Of the run.
        images: How many were reviewed.
        split: Of which part.
        entries: Worst first.
        doubts: Most doubtful first.
        chips: (class name, colour).
        footer: Versions.
    """

    title: str
    images: int
    split: str
    entries: Sequence[Entry]
    doubts: Sequence[TagLine]
    chips: Sequence[tuple[str, str]]
    footer: str


def render_review(page: ReviewPage) -> str:
    """The page as HTML text; names of images and classes are escaped."""
    environment = Environment(
        loader=PackageLoader("tagmask.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("review.html").render(page=page)

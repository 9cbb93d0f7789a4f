from __future__ import annotations

import re

from tagmask.report.review_page import Entry, ReviewPage, render_review


def test_an_image_without_tags_says_so_and_no_line_breaks_before_a_percent_sign():
    words = ("35 % of the object pixels are dots, not tagged",)
    entries = [
        Entry(place, f"image{place}", 0.5, words, tags, ())
        for place, tags in enumerate(("stripes dots", "", None), 1)
    ]
    page = render_review(ReviewPage("Review of run", 3, "val", entries, (), (("dots", "#56b4e9"),), "end"))
    cells = [re.sub("<[^>]+>", "", cell) for cell in re.findall(r"<td>((?:(?!<td>).)*)</td></tr>", page)]
    assert cells == ["stripes dots", "none of the classes", "nobody tagged it"]
    assert "35\u00a0% of the object pixels" in page

"""What the site makes of itself when it is built: generated pages and the navigation."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
# Letters of a cell, for docs/assets/extra.css
LONG = {"longest": 150, "longer": 60, "wide": 32, "long": 18}
TALL = 500
FIGURE = re.compile(r"[-+~]?\d[^<]{0,12}")
FLAG = re.compile(r"<code>(?=[^<]{2,30}<)(--?[a-z][\w-]*(?:[ =][\w.=/-]+)?)</code>")
sys.path.insert(0, str(ROOT / "docs"))

import pages  # noqa: E402


def on_config(config: Any) -> Any:
    """No page of a folder is forgotten: an entry that ends in "/" stands for all pages in it."""
    docs = Path(config["docs_dir"])
    config["nav"] = [{title: _entry(docs, place)} for item in config["nav"] for title, place in item.items()]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Pages that are made from the code, from result files, and from files at the top of the project."""
    for place, text in pages.generated().items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Tables from result files in pages that somebody writes."""
    return pages.filled(markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Cells with much text are marked, so that a narrow window does not squeeze them to one word a line.

    Nor does a line end behind the hyphens of a flag.
    """
    html = re.sub(r"<td>(.*?)</td>", _cell, html, flags=re.DOTALL)
    html = re.sub(r"<th>([^<]{20,})</th>", r'<th class="wide">\1</th>', html)
    return FLAG.sub(r'<code class="whole">\1</code>', html)


def _cell(cell: re.Match[str]) -> str:
    letters = len(re.sub(r"<[^>]+>", "", cell[1]))
    if letters >= TALL:
        return f'<td class="longest"><div class="tall">{cell[1]}</div></td>'
    if FIGURE.fullmatch(cell[1]):
        return f'<td class="whole">{cell[1]}</td>'
    if (
        letters >= LONG["longer"] and "<" not in cell[1]
    ):  # lists without blanks, such as the sizes of a network
        return _marked(re.sub(r",(?=\S)", ",<wbr>", cell[1]), letters)
    return _marked(cell[1], letters)


def _marked(text: str, letters: int) -> str:
    kind = next((name for name, least in LONG.items() if letters >= least), "")
    return f'<td class="{kind}">{text}</td>' if kind else f"<td>{text}</td>"


def _entry(docs: Path, place: Any) -> Any:
    if not isinstance(place, str) or not place.endswith("/"):
        return place
    written = {page.relative_to(docs).as_posix() for page in (docs / place).glob("*.md")}
    made = {name for name in pages.generated() if name.startswith(place)}
    return sorted((written | made) - pages.HIDDEN, key=lambda name: (not name.endswith("index.md"), name))

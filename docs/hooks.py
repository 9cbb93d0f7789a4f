"""What the site makes of itself when it is built: the page of results and the navigation."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent


def on_config(config: Any) -> Any:
    """No page is forgotten: an entry that ends in "/" stands for a folder, other pages follow at the end."""
    docs = Path(config["docs_dir"])
    named = [(title, place) for item in config["nav"] for title, place in item.items()]
    known = {place for _, place in named}
    rest = [page.name for page in sorted(docs.glob("*.md")) if page.name not in known]
    config["nav"] = [*({title: _pages(docs, place)} for title, place in named), *rest]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Tables of the committed result files."""
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    files.append(File.generated(config, "results.md", content=tables.page()))
    return files


def _pages(docs: Path, place: str) -> Any:
    if not place.endswith("/"):
        return place
    return [page.relative_to(docs).as_posix() for page in sorted((docs / place).glob("*.md"))]

"""What a run left behind, for programs and notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from tagmask.review.verdict import lines_of

__all__ = ["Run"]


@dataclass(frozen=True, repr=False)
class Run:
    """What a run left behind.

    Attributes:
        folder: The run folder.
        results: Figures of every step that ran or was done before.
    """

    folder: Path
    results: Mapping[str, Mapping[str, Any]]

    @property
    def scores(self) -> dict[str, float]:
        """Mean IoU by what was scored."""
        return dict(self.results.get("evaluate", {}))

    def __repr__(self) -> str:
        """Folder, steps and scores on one line."""
        scored = "".join(f", {what} {100 * value:.1f} mIoU" for what, value in self.scores.items())
        return f"Run({str(self.folder)!r}, {', '.join(self.results) or 'no steps'}{scored})"

    def _repr_html_(self) -> str:
        """What was done, the scores and the verdict, for notebooks."""
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{escape(_said(figures))}</td></tr>"
            for name, figures in self.results.items()
        )
        told = self.results.get("verdict")
        verdict = "".join(f"<br>{escape(line)}" for line in (lines_of(told) if told else ()))
        report = self.folder / "report.html"
        page = f"<br>Report: <code>{escape(str(report))}</code>" if report.is_file() else ""
        head = f"<b>Run</b> <code>{escape(str(self.folder))}</code>"
        return f"<div>{head}<table>{rows}</table>{verdict.removeprefix('<br>')}{page}</div>"


def _said(figures: Mapping[str, Any]) -> str:
    """The plain figures of a step, a few of them."""
    plain = {k: v for k, v in figures.items() if isinstance(v, int | float | str) and v != ""}
    shown = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in plain.items()]
    return ", ".join(shown[:6]) or "done"

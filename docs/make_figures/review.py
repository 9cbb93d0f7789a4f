"""Draw docs/images/review.svg: doubt against true IoU, and precision against recall of the doubted tags.

    python docs/make_figures/review.py

Reads benchmarks/results/review_ranking.json and review_tags.json.
"""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Write the picture."""
    results = ROOT / "benchmarks" / "results"
    ranking = json.loads((results / "review_ranking.json").read_text(encoding="utf-8"))
    tags = json.loads((results / "review_tags.json").read_text(encoding="utf-8"))
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    FigureCanvasSVG(figure)
    left, right = figure.subplots(1, 2)
    left.scatter(*zip(*ranking["points"], strict=True), s=14, color="#0072B2", alpha=0.7)
    left.set_xlabel("doubt, without ground truth")
    left.set_ylabel("true IoU of the mask")
    left.set_title(
        f"rank correlation {ranking['rank_correlation']:.2f}, {ranking['images']} images", fontsize=10
    )
    x, y = ([point[key] for point in tags["curve"]] for key in ("recall", "precision"))
    right.plot(x, y, "o-", color="#D55E00", label="doubted tags")
    right.axhline(tags["precision_of_chance"], color="#777777", linestyle="--", label="chance")
    for point in tags["curve"][::2]:
        right.annotate(f" first {point['listed']}", (point["recall"], point["precision"]), fontsize=8)
    right.set_xlabel("share of the corrupted tags found")
    right.set_ylabel("share of the list that is right")
    right.set_ylim(0, 1)
    right.set_title(f"{tags['corrupted_tags']} corrupted tags in {tags['images']} images", fontsize=10)
    right.legend(frameon=False, fontsize=9)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#dddddd", linewidth=0.6)
    figure.savefig(ROOT / "docs" / "images" / "review.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()

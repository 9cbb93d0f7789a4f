"""Draw docs/images/methods.svg, all methods on the same scenes, from benchmarks/results/methods_scenes.json.

python docs/make_figures/methods.py
"""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Write the picture: a dot per seed, a bar at the mean; hollow without pretrained weights."""
    record = json.loads((ROOT / "benchmarks/results/methods_scenes.json").read_text(encoding="utf-8"))
    rows = sorted(record["rows"], key=lambda row: row["mean"])
    figure = Figure(figsize=(7.6, 3.2), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    for place, row in enumerate(rows):
        shared = "random" not in row["network"]
        axes.plot([row["mean"]] * 2, [place - 0.3, place + 0.3], color="#555555", linewidth=2)
        fill = "#0072B2" if shared else "white"
        axes.scatter(
            row["miou"], [place] * len(row["miou"]), s=36, color=fill, edgecolors="#0072B2", zorder=3
        )
    names = [row["method"] if "random" not in row["network"] else f"{row['method']} *" for row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.set_xlim(0, 100)
    axes.set_xlabel("mIoU of the class maps, percent;  * own network, random weights")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    figure.savefig(ROOT / "docs" / "images" / "methods.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()

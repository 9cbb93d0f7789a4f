"""Draw docs/images/methods.svg, methods on the same scenes and backbone, from results/methods_scenes.json.

python docs/make_figures/methods.py
"""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Write the picture: a dot per seed, a bar at the mean."""
    record = json.loads((ROOT / "benchmarks/results/methods_scenes.json").read_text(encoding="utf-8"))
    shared = [row for row in record["rows"] if row["network"] == "tagmask_demo"]
    rows = sorted(shared, key=lambda row: row["mean"])
    figure = Figure(figsize=(5.2, 2.8), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    for place, row in enumerate(rows):
        axes.plot([row["mean"]] * 2, [place - 0.3, place + 0.3], color="#555555", linewidth=2)
        axes.scatter(row["miou"], [place] * len(row["miou"]), s=36, color="#0072B2", zorder=3)
    axes.set_yticks(range(len(rows)), [row["method"] for row in rows])
    axes.set_xlim(0, 100)
    axes.set_xlabel("mIoU of the class maps, percent")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    figure.savefig(ROOT / "docs" / "images" / "methods.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()

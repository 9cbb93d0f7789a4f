"""Draw docs/images/pipeline.svg: ``python docs/make_figures/pipeline.py``."""

from __future__ import annotations

from pathlib import Path

OUT = Path(__file__).parent.parent / "images" / "pipeline.svg"
WIDTH, HEIGHT = 980, 380
STEP, FILE, GIVEN = ("#dbeafe", "#1d4ed8"), ("#fef3c7", "#b45309"), ("#e5e7eb", "#374151")
# name: (left, top, width, text, kind)
BOXES = {
    "data": (10, 20, 110, "images, tags", GIVEN),
    "train": (160, 20, 110, "train", STEP),
    "model": (310, 20, 110, "model/", FILE),
    "localize": (460, 20, 110, "localize", STEP),
    "maps": (610, 20, 110, "maps/", FILE),
    "refine": (760, 20, 110, "refine", STEP),
    "labels": (760, 100, 110, "labels/", FILE),
    "affinity": (610, 100, 110, "affinity", STEP),
    "affinity model": (440, 100, 130, "affinity/model/", FILE),
    "walk": (290, 100, 110, "walk", STEP),
    "walks": (140, 100, 110, "walks/", FILE),
    "student": (140, 180, 110, "student", STEP),
    "student model": (290, 180, 130, "student/model/", FILE),
    "segment": (460, 180, 110, "segment", STEP),
    "masks": (610, 180, 110, "masks/", FILE),
    "truth": (460, 260, 110, "true masks", GIVEN),
    "evaluate": (610, 260, 110, "evaluate", STEP),
    "scores": (760, 260, 110, "scores/", FILE),
    "report": (610, 330, 110, "report", STEP),
    "page": (760, 330, 110, "report.html", FILE),
}
# (from side, to side) of straight arrows
ARROWS = [
    ("data", "train"), ("train", "model"), ("model", "localize"), ("localize", "maps"), ("maps", "refine"),
    ("refine", "labels"), ("labels", "affinity"), ("affinity", "affinity model"), ("affinity model", "walk"),
    ("walk", "walks"), ("walks", "student"), ("student", "student model"), ("student model", "segment"),
    ("segment", "masks"), ("masks", "evaluate"), ("truth", "evaluate"), ("evaluate", "scores"),
    ("report", "page"),
]  # fmt: skip
# What arrives from farther away.
BENDS = [
    [(665, 54), (665, 78), (345, 78), (345, 100)],  # maps to walk
    [(815, 294), (815, 312), (665, 312), (665, 330)],  # scores to report
]
NOTE = (140, 283, "evaluate also scores maps/, labels/ and walks/")


def box(name: str) -> str:
    """A step (round), a folder or something given."""
    left, top, width, text, (fill, line) = BOXES[name]
    radius = 17 if BOXES[name][4] is STEP else 3
    return (
        f'<rect x="{left}" y="{top}" width="{width}" height="34" rx="{radius}" fill="{fill}" '
        f'stroke="{line}"/>'
        f'<text x="{left + width / 2}" y="{top + 22}" text-anchor="middle" fill="#111827">{text}</text>'
    )


def arrow(start: str, end: str) -> str:
    """A straight arrow between neighbours."""
    (x0, y0, w0, *_), (x1, y1, w1, *_) = BOXES[start], BOXES[end]
    if y0 == y1:
        ends = (x0 + w0, y0 + 17, x1, y1 + 17) if x0 < x1 else (x0, y0 + 17, x1 + w1, y1 + 17)
    else:
        ends = (x0 + w0 / 2, y0 + 34, x1 + w1 / 2, y1) if y0 < y1 else (x0 + w0 / 2, y0, x1 + w1 / 2, y1 + 34)
    return line([(ends[0], ends[1]), (ends[2], ends[3])])


def line(points: list[tuple[float, float]]) -> str:
    """An arrow along points."""
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="#4b5563" marker-end="url(#tip)"/>'


def main() -> None:
    """Write the drawing."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="14" role="img" aria-label="The steps of a multi-stage run and the folders between them">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
        'orient="auto"><path d="M0 0 8 4 0 8z" fill="#4b5563"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        *map(line, BENDS),
        *(arrow(*ends) for ends in ARROWS),
        *(box(name) for name in BOXES),
        f'<text x="{NOTE[0]}" y="{NOTE[1]}" fill="#4b5563" font-size="13">{NOTE[2]}</text>',
    ]
    OUT.write_text("\n".join([*parts, "</svg>"]) + "\n")


if __name__ == "__main__":
    main()

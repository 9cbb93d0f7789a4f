"""Draw docs/images/weaktr.svg: ``python docs/make_figures/weaktr.py``."""

from __future__ import annotations

from pathlib import Path

OUT = Path(__file__).parent.parent / "images" / "weaktr.svg"
WIDTH, HEIGHT = 960, 400
STEP, DATA, GIVEN = ("#dbeafe", "#1d4ed8"), ("#fef3c7", "#b45309"), ("#e5e7eb", "#374151")
# name: (left, top, width, lines, kind)
BOXES = {
    "image": (20, 60, 120, ("image", "tags"), GIVEN),
    "vit": (185, 60, 150, ("DeiT", "a token per class"), STEP),
    "coarse": (385, 20, 150, ("coarse map", "3 x 3 convolution"), DATA),
    "attention": (385, 90, 150, ("72 attention maps", "12 blocks x 6 heads"), DATA),
    "weights": (590, 130, 150, ("weight of each map", "from its features"), STEP),
    "fused": (590, 60, 150, ("fused attention", "class and patch rows"), DATA),
    "fine": (790, 20, 150, ("fine map", "coarse x class rows,", "along patch rows"), DATA),
    "labels": (790, 130, 150, ("labels", "threshold, CRF"), GIVEN),
    "any": (790, 215, 150, ("labels of any", "other method"), GIVEN),
    "crop": (20, 285, 120, ("crops of 480", "image, label"), GIVEN),
    "encoder": (185, 285, 150, ("any ViT", "30 x 30 patches"), STEP),
    "decoder": (385, 285, 150, ("mask transformer", "a query per class"), STEP),
    "loss": (590, 285, 150, ("loss per pixel", "cut at max(patch, mean)"), STEP),
    "windows": (590, 345, 150, ("windows, scales", "two exits, CRF"), STEP),
    "mask": (790, 315, 150, ("mask", ""), DATA),
}
ARROWS = [
    [(140, 82), (185, 82)], [(335, 72), (360, 72), (360, 42), (385, 42)],
    [(335, 92), (360, 92), (360, 112), (385, 112)], [(535, 112), (562, 112), (562, 82), (590, 82)],
    [(535, 118), (562, 118), (562, 152), (590, 152)], [(665, 130), (665, 104)],
    [(535, 42), (790, 42)], [(740, 82), (765, 82), (765, 58), (790, 58)], [(865, 75), (865, 130)],
    [(140, 307), (185, 307)], [(335, 307), (385, 307)], [(535, 307), (590, 307)],
    [(535, 315), (562, 315), (562, 367), (590, 367)], [(740, 367), (765, 367), (765, 337), (790, 337)],
    [(790, 160), (770, 160), (770, 262), (80, 262), (80, 285)], [(790, 237), (770, 237)],
]  # fmt: skip
TITLES = [(20, 16, "Phase 1: class maps"), (20, 250, "Phase 2: retraining")]


def box(name: str) -> str:
    """A step (round), a tensor or something given."""
    left, top, width, lines, (fill, line) = BOXES[name]
    height = 55 if len(lines) == 3 else 44
    radius = 14 if BOXES[name][4] is STEP else 3
    used = [text for text in lines if text]
    first = top + height / 2 - 7 * (len(used) - 1) + 4
    words = "".join(
        f'<text x="{left + width / 2}" y="{first + 15 * i:.0f}" text-anchor="middle" fill="#111827" '
        f'font-size="{11 if i else 13}">{text}</text>'
        for i, text in enumerate(used)
    )
    return (
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="{radius}" fill="{fill}" '
        f'stroke="{line}"/>{words}'
    )


def arrow(points: list[tuple[int, int]]) -> str:
    """A line through points with a head at its end."""
    path = " ".join(f"{x},{y}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="#6b7280" marker-end="url(#head)"/>'


def main() -> None:
    """Write the drawing."""
    titles = [
        f'<text x="{x}" y="{y}" fill="#111827" font-weight="bold">{text}</text>' for x, y, text in TITLES
    ]
    parts = [*titles, *(arrow(points) for points in ARROWS), *(box(name) for name in BOXES)]
    head = (
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#6b7280"/></marker></defs>'
    )
    OUT.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="13"><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>{head}{"".join(parts)}</svg>\n'
    )


if __name__ == "__main__":
    main()

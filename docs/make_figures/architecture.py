"""Draw docs/images/architecture.svg from the imports: ``python docs/make_figures/architecture.py``.

A box is a room of the package, an arrow an import. Rooms stand above everything that they import; an arrow is
left out where a longer way says the same.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2] / "src" / "tagmask"
OUT = Path(__file__).parents[1] / "images" / "architecture.svg"
WIDTH, ROW, BOX, HIGH = 980, 84, 118, 34
SHADES = {"cli": "#dbeafe", "app": "#dbeafe", "integrations": "#dbeafe", "api": "#dbeafe"}


def room(path: Path) -> str:
    """Folder or root module that a file belongs to."""
    parts = path.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else path.stem


def imported(path: Path) -> set[str]:
    """Rooms that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "tagmask":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tagmask."):
            found.add((node.module or "").split(".")[1])
    return found


def graph() -> dict[str, set[str]]:
    """{room: rooms it imports}, without the version number and the names of the package itself."""
    files = [path for path in sorted(ROOT.rglob("*.py")) if room(path) not in ("__init__", "__main__")]
    rooms = {room(path) for path in files}
    edges: dict[str, set[str]] = {name: set() for name in sorted(rooms)}
    for path in files:
        edges[room(path)] |= (imported(path) & rooms) - {room(path)}
    return edges


def levels(edges: dict[str, set[str]]) -> dict[str, int]:
    """How many rooms stand below one, on the longest way down."""
    known: dict[str, int] = {}

    def level(name: str) -> int:
        if name not in known:
            known[name] = 1 + max((level(below) for below in edges[name]), default=-1)
        return known[name]

    for name in edges:
        level(name)
    return known


def reach(edges: dict[str, set[str]], name: str) -> set[str]:
    """Everything below a room."""
    return edges[name].union(*(reach(edges, below) for below in edges[name]))


def reduced(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """The arrows that no longer way replaces."""
    return {
        name: {to for to in targets if not any(to in reach(edges, other) for other in targets - {to})}
        for name, targets in edges.items()
    }


def ordered(rows: list[list[str]], edges: dict[str, set[str]]) -> list[list[str]]:
    """Rooms of each row near those that they import, so that few arrows cross."""
    place = {name: index / len(row) for row in rows for index, name in enumerate(row)}
    for _ in range(8):
        for row in rows:
            for name in row:
                near = [place[other] for other in edges if other in edges[name] or name in edges[other]]
                place[name] = sum(near) / len(near) if near else place[name]
            row.sort(key=lambda name: (place[name], name))
            place |= {name: (index + 0.5) / len(row) for index, name in enumerate(row)}
    return rows


def draw() -> str:
    """The picture as SVG."""
    edges = graph()
    height = levels(edges)
    rows = [[n for n in edges if height[n] == level] for level in range(max(height.values()), -1, -1)]
    arrows = reduced(edges)
    rows = ordered(rows, arrows)
    spot = {
        name: (round(WIDTH * (index + 0.5) / len(row)), 20 + ROW * line)
        for line, row in enumerate(rows)
        for index, name in enumerate(row)
    }
    tall = ROW * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {tall}" role="img" '
        'font-family="sans-serif" font-size="14">',
        "<title>Rooms of the package, from the command line down to pure functions</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0 8 4 0 8z" fill="#6b7280"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{tall}" fill="#ffffff"/>',
    ]
    for name, targets in arrows.items():
        for to in sorted(targets):
            (x, y), (u, v) = spot[name], spot[to]
            top, bottom = y + HIGH, v - 2
            bend = (bottom - top) / 2
            parts.append(
                f'<path d="M{x} {top} C{x} {top + bend:g} {u} {bottom - bend:g} {u} {bottom}" fill="none" '
                'stroke="#9ca3af" marker-end="url(#tip)"/>'
            )
    for name, (x, y) in spot.items():
        parts.append(
            f'<rect x="{x - BOX // 2}" y="{y}" width="{BOX}" height="{HIGH}" rx="4" '
            f'fill="{SHADES.get(name, "#f3f4f6")}" stroke="#374151"/>'
            f'<text x="{x}" y="{y + 22}" text-anchor="middle" fill="#111827">{name}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    OUT.write_text(draw(), encoding="utf-8")

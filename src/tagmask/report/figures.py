"""Curves and clouds of points as small SVG pictures; drawn off screen, no window system, no global state."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tagmask.report.panels import class_colours

if TYPE_CHECKING:  # loaded where something is drawn: every command knows this file
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["curves", "points", "principal_plane", "side_by_side"]

_STYLES = ("-", "--", "-.", ":")
_MARKERS = "osD^vP*X<>"
Curve = tuple[Sequence[float], Sequence[float]]


def curves(
    lines: Mapping[str, Curve],
    xlabel: str,
    ylabel: str,
    size: tuple[float, float] = (4.2, 3.3),
) -> str:
    """Lines over a common axis, told apart by colour and dash.

    Args:
        lines: Name to (x values, y values).
        xlabel: What runs across.
        ylabel: What runs up.
        size: (width, height) in inches; about 96 pixels each.

    Returns:
        A ``data:`` address of an SVG picture.
    """
    figure, axes = _empty(size)
    colours = class_colours(max(len(lines), 1))
    for number, (name, (x, y)) in enumerate(lines.items()):
        dots = "o" if len(x) < 12 else None
        style = _STYLES[number % len(_STYLES)]
        axes.plot(
            x,
            y,
            style,
            color=_darker(colours[number]),
            label=name,
            marker=dots,
            markersize=3.5,
            linewidth=1.6,
        )
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    if len(lines) > 1:
        figure.legend(loc="outside lower center", frameon=False, fontsize=9, ncols=3)
    return _uri(figure)


def points(xy: NDArray[np.floating], groups: Sequence[int], names: Sequence[str]) -> str:
    """A cloud of points, one colour and marker per group.

    Args:
        xy: (n, 2) positions.
        groups: Group of each point, an index into `names`.
        names: Names of the groups.

    Returns:
        A ``data:`` address of an SVG picture.
    """
    figure, axes = _empty((4.8, 4.2))
    colours, chosen = class_colours(len(names)), np.asarray(groups)
    for group in sorted(set(groups)):
        own = xy[chosen == group]
        marker = _MARKERS[group % len(_MARKERS)]
        colour = _darker(colours[group])
        axes.scatter(own[:, 0], own[:, 1], s=16, color=colour, marker=marker, alpha=0.75, label=names[group])
    axes.set_xlabel("first direction")
    axes.set_ylabel("second direction")
    figure.legend(loc="outside lower center", frameon=False, fontsize=9, ncols=4)
    return _uri(figure)


def side_by_side(
    panels: Sequence[tuple[str, NDArray[np.uint8]]], names: Sequence[str], shown: Sequence[int]
) -> Figure:
    """Pictures in a row with a legend of classes.

    Args:
        panels: (title, (H, W, 3) uint8).
        names: Class names.
        shown: 0-based classes the legend names.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    height, width = panels[0][1].shape[:2]
    figure = Figure(figsize=(2.8 * len(panels), 2.8 * height / width + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, picture) in zip(np.ravel(figure.subplots(1, len(panels))), panels, strict=True):
        axes.imshow(picture)
        axes.set_title(title.replace("_", " "), fontsize=10)
        axes.set_axis_off()
    colours = class_colours(len(names))
    patches = [Patch(color=colours[key], label=names[key]) for key in shown]
    if patches:
        figure.legend(handles=patches, loc="outside lower center", frameon=False, ncols=6)
    return figure


def principal_plane(vectors: NDArray[np.floating]) -> tuple[NDArray[np.float64], float]:
    """Vectors seen along their two widest directions (principal component analysis).

    Args:
        vectors: (n, D), n at least 2.

    Returns:
        (n, 2) positions, and the share of the variance that the plane shows (0 to 1).

    Raises:
        ValueError: There are fewer than two vectors.
    """
    if vectors.ndim != 2 or len(vectors) < 2:
        raise ValueError(f"vectors must be (n, D) with n at least 2, got {vectors.shape}")
    centred = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    plane = left[:, :2] * values[:2]
    if plane.shape[1] < 2:
        plane = np.pad(plane, ((0, 0), (0, 2 - plane.shape[1])))
    total = float((values**2).sum())
    return plane, float((values[:2] ** 2).sum() / total) if total else 1.0


def _empty(size: tuple[float, float]) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)
    return figure, axes


def _uri(figure: Figure) -> str:
    # Laid out here, once: `savefig` would do it twice, and the second time draws everything for it.
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine(None)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _darker(colour: str) -> str:
    """Lines on white need more contrast than areas over a picture."""
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    light = (0.299 * parts[0] + 0.587 * parts[1] + 0.114 * parts[2]) / 255
    factor = 1.0 if light < 0.5 else 0.5 / light
    return "#" + "".join(f"{int(part * factor):02x}" for part in parts)

"""One open image as HTML: its panels side by side, the legend, where it stands in the queue."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tagmask.app.lab import View, enlarged
from tagmask.data.classes import voc_palette
from tagmask.report.panels import class_colours, picture_uri
from tagmask.types import IGNORE

__all__ = ["PALETTES", "colours_of", "label_layer", "legend", "map_layer", "panels"]

PALETTES = ("colour-blind safe", "PASCAL VOC")
"""Names of the palettes; the first one uses Okabe and Ito's colours, then Tol's."""

Colours = NDArray[np.uint8]


def colours_of(palette: str, num_classes: int) -> Colours:
    """RGB of every class, (K, 3) uint8; the first palette for a name that is unknown."""
    if palette == PALETTES[1]:
        return voc_palette()[1 : num_classes + 1]
    texts = class_colours(num_classes)
    return np.asarray([[int(text[i : i + 2], 16) for i in (1, 3, 5)] for text in texts], np.uint8)


def map_layer(maps: NDArray[np.floating], keys: Sequence[int], colours: Colours) -> NDArray[np.uint8]:
    """The strongest class of every pixel in its colour, the more opaque the higher its map.

    Args:
        maps: (n, H, W) in [0, 1].
        keys: 0-based class of each map.
        colours: (K, 3).

    Returns:
        RGBA, (H, W, 4).
    """
    layer = np.zeros((*maps.shape[1:], 4), np.uint8)
    if len(keys):
        layer[..., :3] = colours[np.asarray(keys)][maps.argmax(0)]
        layer[..., 3] = np.clip(maps.max(0).astype(np.float32), 0, 1) * 255
    return layer


def label_layer(labels: NDArray[np.uint8], colours: Colours) -> NDArray[np.uint8]:
    """Labels in their colours, the background clear, undecided pixels striped black and white.

    Returns:
        RGBA, (H, W, 4).
    """
    table = np.zeros((256, 4), np.uint8)
    table[1 : len(colours) + 1, :3] = colours
    table[1 : len(colours) + 1, 3] = 255
    layer = table[labels]
    rows, columns = np.nonzero(labels == IGNORE)
    layer[rows, columns] = np.where(((rows + columns) % 8 < 4)[:, None], 255, [[0, 0, 0, 255]])
    return layer


def panels(view: View, colours: Colours, classes: Sequence[str]) -> str:
    """The panels as HTML; layers lie over one picture and take their opacity from a CSS variable."""
    height, width = view.pixels.shape[:2]
    words = ", ".join(classes[key] for key in view.keys) or "no class"
    found = []
    for kind, maps in view.maps.items():
        found.append((kind.replace("_", " ").upper(), words, map_layer(maps, view.keys, colours)))
    if view.label is not None:
        found.append(("pseudo label", _said(view.label, classes), label_layer(view.label, colours)))
    mask = enlarged(view.mask, (height, width))
    origin = "mask (run)" if view.stored else "mask (now)"
    found.append((origin, _said(mask, classes), label_layer(mask, colours)))
    figures = [_figure("image", view.name, None)]
    figures += [_figure(title, said, layer) for title, said, layer in found]
    base = picture_uri(view.pixels, max(height, width))
    style = f"--tm-base: url('{base}'); --tm-ratio: {width} / {height}"
    return f'<div class="tm-panels" style="{style}">{"".join(figures)}</div>'


def _figure(title: str, said: str, layer: NDArray[np.uint8] | None) -> str:
    alt = escape(f"{title}: {said}", quote=True)
    inner = f'<div class="tm-stage" role="img" aria-label="{alt}"></div>'
    if layer is not None:
        inner = f'<div class="tm-stage"><img src="{_png(layer)}" alt="{alt}"></div>'
    view = f'<div class="tm-view" tabindex="0" role="region" aria-label="{escape(title)}">{inner}</div>'
    return f'<figure class="tm-panel"><figcaption>{escape(title)}</figcaption>{view}</figure>'


def _said(labels: NDArray[np.uint8], classes: Sequence[str]) -> str:
    shares = _shares(labels)
    words = [f"{classes[k - 1]} {100 * share:.0f} %" for k, share in shares.items() if 0 < k <= len(classes)]
    return ", ".join(words) or "background only"


def _shares(labels: NDArray[np.uint8]) -> dict[int, float]:
    values, counts = np.unique(labels, return_counts=True)
    return dict(zip(values.tolist(), (counts / labels.size).tolist(), strict=True))


def _png(layer: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(layer).save(buffer, "PNG", compress_level=3)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def legend(view: View, colours: Colours, classes: Sequence[str]) -> str:
    """Colour, name and share of the mask and of the pseudo label for every class in sight."""
    mask, label = _shares(view.mask), {} if view.label is None else _shares(view.label)
    seen = sorted({*view.tags, *(k - 1 for k in (*mask, *label) if 0 < k <= len(classes))})
    rows = [_row(_hex(colours[k]), classes[k], mask.get(k + 1, 0), label.get(k + 1, 0)) for k in seen]
    if IGNORE in label or IGNORE in mask:
        rows.append(_row("", "undecided", mask.get(IGNORE, 0), label.get(IGNORE, 0)))
    head = "<tr><th scope='col'>class</th><th scope='col'>mask</th><th scope='col'>pseudo label</th></tr>"
    return f'<table class="tm-legend"><caption>Share of the pixels</caption>{head}{"".join(rows)}</table>'


def _row(colour: str, name: str, mask: float, label: float) -> str:
    kind, style = ("tm-chip", f' style="background:{colour}"') if colour else ("tm-chip tm-striped", "")
    chip = f'<span class="{kind}"{style} aria-hidden="true"></span>'
    return (
        f'<tr><th scope="row">{chip}{escape(name)}</th>'
        f"<td>{100 * mask:.1f} %</td><td>{100 * label:.1f} %</td></tr>"
    )


def _hex(colour: NDArray[np.uint8]) -> str:
    return "#" + "".join(f"{int(level):02x}" for level in colour)

"""Draw the photographs of the documentation with a class map and a mask each.

    python docs/make_figures/photographs.py MAPS MASKS FOLDER

MAPS is a run of the recipe ``small-weaktr`` on photographs of cat, cow, dog, horse, person and sheep, MASKS a
longer second phase on its labels (command and settings in benchmarks/results/weaktr_small_animals.json).
FOLDER holds chelsea.png, astronaut.png and coffee.png of scikit-image's test pictures (skimage/data), which
are in the public domain or CC0, see THIRD_PARTY.md. No training image is one of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

import tagmask

ROOT = Path(__file__).parents[2]
TAGS: dict[str, tuple[str, ...]] = {"chelsea": ("cat",), "astronaut": ("person",), "coffee": ()}
COLOURS = {"cat": "#E69F00", "dog": "#009E73", "person": "#0072B2", "cow": "#CC79A7"}
Pixels = NDArray[np.uint8]


def class_map(model: tagmask.Model, picture: Pixels, tags: tuple[str, ...]) -> NDArray[np.float32] | None:
    """The map of the first tag in [0, 1] at the size of the picture; None without tags."""
    if not tags:
        return None
    return np.asarray(model.predict(picture, tags=list(tags)).maps["cam"][0], np.float32)


def draw_map(axes: Axes, picture: Pixels, values: NDArray[np.float32] | None) -> None:
    """A class map over the grey picture."""
    axes.imshow(picture.mean(axis=2), cmap="gray", vmin=0, vmax=255)
    if values is None:
        box = {"facecolor": "black", "alpha": 0.75, "edgecolor": "none"}
        axes.text(0.5, 0.5, "no tag, no map", transform=axes.transAxes, ha="center", color="white", bbox=box)
        return
    height, width = picture.shape[:2]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes.imshow(values, cmap="magma", vmin=0, vmax=1, alpha=0.65, extent=extent, interpolation="bilinear")


def draw_mask(axes: Axes, picture: Pixels, mask: Pixels, names: tuple[str, ...]) -> None:
    """A mask in colour over the grey picture, and which classes it holds."""
    shown = np.repeat(picture.mean(axis=2)[..., None], 3, axis=2) / 255
    found = [name for k, name in enumerate(names) if (mask == k + 1).mean() > 0.005]
    for k, name in enumerate(names):
        colour = np.array([int(COLOURS.get(name, "#999999")[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        shown[mask == k + 1] = 0.35 * shown[mask == k + 1] + 0.65 * colour
    axes.imshow(shown)
    patches = [Patch(color=COLOURS.get(name, "#999999"), label=name) for name in found]
    axes.legend(handles=patches, loc="lower right", fontsize=9, framealpha=0.9)


def figure(rows: list[str], maps: tagmask.Model, masks: tagmask.Model, folder: Path) -> Figure:
    """One row a photograph: itself with its tag, the class map of the tag, the mask without tags."""
    made = Figure(figsize=(9.0, 2.35 * len(rows)), layout="constrained", dpi=110)
    FigureCanvasAgg(made)
    for row, name in zip(made.subplots(len(rows), 3, squeeze=False), rows, strict=True):
        picture = np.asarray(Image.open(folder / f"{name}.png").convert("RGB"))
        row[0].imshow(picture)
        row[0].set_title("tag: " + (", ".join(TAGS[name]) or "none"), fontsize=10)
        draw_map(row[1], picture, class_map(maps, picture, TAGS[name]))
        row[1].set_title("class map, tag given", fontsize=10)
        result = masks.predict(picture)
        draw_mask(row[2], picture, result.mask, tuple(result.classes))
        row[2].set_title("mask, tag not given", fontsize=10)
        for axes in row:
            axes.set_axis_off()
    return made


def main() -> None:
    """Write both pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("maps", type=Path)
    parser.add_argument("masks", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    maps, masks = tagmask.load(args.maps), tagmask.load(args.masks)
    for file, rows in (("cat.jpg", ["chelsea"]), ("photographs.jpg", list(TAGS))):
        made = figure(rows, maps, masks, args.folder)
        made.savefig(ROOT / "docs" / "images" / file, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    main()

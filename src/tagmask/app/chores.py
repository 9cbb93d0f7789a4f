"""What the page does beside single images: spread strokes, cut regions, export."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmask.annotations.exchange import export_masks
from tagmask.annotations.read import Subjects
from tagmask.app.desk import Desk
from tagmask.app.pack import pack
from tagmask.data.readers.regular import read_bytes
from tagmask.engine.log import Display
from tagmask.errors import ConfigError, DataError
from tagmask.ops.scribbles import UNMARKED, regions, spread_strokes

__all__ = ["Chores"]

Labels = NDArray[np.uint8]
_REGION_SIDE = 640


class Chores:
    """Work for the page that changes no decision.

    Args:
        desk: Its images and decisions.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def regions(self, visitor: str, name: str) -> bytes:
        """Regions of an image with its edges as borders: number as low and high byte, (h, w, 2), packed."""
        found = regions(self.desk.pixels(visitor, name, _REGION_SIDE))
        low, high = (found & 255).astype(np.uint8), (found >> 8).astype(np.uint8)
        return pack({"name": name}, {"regions": np.stack([low, high], -1)})

    def spread(self, visitor: str, name: str, strokes: Labels, prior: Labels | None) -> bytes:
        """Labels of all pixels from those that were marked, packed.

        Raises:
            DataError: Nothing is marked, or the sizes differ.
        """
        pixels = self.desk.pixels(visitor, name)
        if strokes.shape != pixels.shape[:2] or (prior is not None and prior.shape != strokes.shape):
            raise DataError(f"the strokes on '{name}' have another size than the image; open it again")
        if not (strokes != UNMARKED).any():
            raise DataError("nothing is marked yet; draw a stroke on each class, and one on the background")
        return pack({"name": name}, {"spread": spread_strokes(pixels, strokes, prior)})

    def export(self, format_: str) -> tuple[str, bytes]:
        """All kept masks as an annotation tool reads them: name and content of an archive.

        Raises:
            UserError: There are none yet, or the format is unknown.
        """
        dataset = self.desk.library.dataset
        if dataset is None:
            raise ConfigError("this app has no run to export; its uploads are kept in reviewed/uploads")
        folder = self.desk.decisions.folder / "masks"
        if not any(folder.rglob("*.png")):
            raise ConfigError("no mask is accepted or corrected yet, so there is nothing to export")
        with tempfile.TemporaryDirectory(prefix="tagmask-export-") as place:
            out = Path(place) / f"reviewed-{format_}.zip"
            export_masks(folder, Subjects.of_dataset(dataset), format_, out, None, Display(quiet=True))
            return out.name, read_bytes(out)

    def progress(self) -> dict[str, Any]:
        """How many images are decided, and how."""
        known = self.desk.decisions.known().values()
        return {
            "accepted": sum(one.verdict == "accepted" for one in known),
            "rejected": sum(one.verdict == "rejected" for one in known),
            "mended": sum(one.kept in ("mended", "scribbles") for one in known),
        }

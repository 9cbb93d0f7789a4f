"""A film of what a method sees: class maps on the left, its mask on the right, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from torch import Tensor

from tagmask.config import Config
from tagmask.engine.compute import Compute
from tagmask.engine.log import Display
from tagmask.engine.signals import StopSignal
from tagmask.errors import ConfigError, nearest
from tagmask.inference.given_views import GivenViews
from tagmask.inference.predictor import Predictor, Use, remembered_use
from tagmask.inference.video import Frame, Frames, open_frames, write_frames
from tagmask.inference.views import MapConfig
from tagmask.models.trained import Trained
from tagmask.report.draw import overlay_labels, overlay_maps, picture_grid

__all__ = ["AnimateConfig", "animate"]

Panel = Literal["image", "map", "mask"]


class AnimateConfig(Config):
    """What is drawn on every frame, and how fast."""

    panels: tuple[Panel, ...] | None = None
    """Pictures side by side; map and mask if not given, as far as the method makes them."""
    maps: MapConfig | None = None
    """How maps are made, as the model remembers if not given; the first kind is drawn."""
    segmentation: GivenViews | None = None
    """How masks are made; as the model remembers if not given."""
    tags: tuple[str, ...] | None = None
    """Classes whose maps are shown; those the classifier sees in each frame if not given."""
    background: float | None = Field(default=None, ge=0, le=1)
    """Map values up to this are background, where the mask comes from maps; as the model remembers if not
    given."""
    opacity: float = Field(default=0.5, ge=0, le=1)
    """Share of the colours over the frame."""
    max_side: int | None = Field(default=512, ge=32)
    """Frames are shrunk to this longer side."""
    rate: float | None = Field(default=None, gt=0, le=100)
    """Frames per second of the film; the source's, else 10."""
    every: int = Field(default=1, ge=1)
    """Take every n-th frame only."""
    limit: int | None = Field(default=None, ge=1)
    """Stop after this many frames."""


def animate(
    config: AnimateConfig, trained: Trained, compute: Compute, display: Display, source: Path, output: Path
) -> dict[str, Any]:
    """Draw maps and masks over the frames of a film; every frame on its own.

    Args:
        config: What, and how fast.
        trained: The method; anything that makes maps or masks.
        compute: Device and precision.
        display: Progress.
        source: Folder of frames, GIF or video.
        output: GIF, video, or a folder for one PNG per frame.

    Returns:
        Figures: frames, rate, panels.

    Raises:
        Stopped: A stop signal came; of a film nothing is left, of a folder the finished frames.
        UserError: The source cannot be read, the output not written, or the method cannot do what is asked.
    """
    panels = _panels(config, trained)
    predictor = _predictor(config, trained, compute)
    tags = _known_tags(config, trained)
    frames = open_frames(source, config.max_side)
    rate = config.rate or (frames.rate or 10) / config.every
    total = _count(config, frames)
    with StopSignal() as stop, display.task("animate", total) as task:

        def drawn() -> Iterator[Frame]:
            stopped = config.limit and config.limit * config.every
            for name, picture in islice(frames.pictures, 0, stopped, config.every):
                stop.check("the video was stopped")
                yield name, _draw(config, trained, predictor, panels, picture, tags)
                task.advance()

        count = write_frames(output, drawn(), rate)
    return {"frames": count, "rate": rate, "panels": list(panels)}


def _panels(config: AnimateConfig, trained: Trained) -> tuple[Panel, ...]:
    method = trained.method
    able: dict[Panel, bool] = {
        "image": True,
        "map": bool(method.map_kinds),
        "mask": method.segments or bool(method.map_kinds),
    }
    chosen = config.panels or tuple(panel for panel in ("map", "mask") if able[panel])
    refused = [panel for panel in chosen if not able[panel]]
    if refused or not chosen:
        raise ConfigError(
            f"{trained.name} makes no {refused[0] if refused else 'map or mask'}; choose panels it can fill"
        )
    return chosen


def _known_tags(config: AnimateConfig, trained: Trained) -> Tensor | None:
    if config.tags is None:
        return None
    names = trained.classes.names
    for name in config.tags:
        if name not in names:
            raise ConfigError(f"the model knows no class '{name}'. {nearest(name, names)}")
    return torch.tensor([[float(name in config.tags) for name in names]])


def _count(config: AnimateConfig, frames: Frames) -> int | None:
    count = None if frames.count is None else -(-frames.count // config.every)
    return min(count or config.limit, config.limit) if config.limit else count


def _predictor(config: AnimateConfig, trained: Trained, compute: Compute) -> Predictor:
    known = remembered_use(trained.meta)
    background = known.background if config.background is None else config.background
    given = config.segmentation
    views = known.views if given is None else given.of(type(trained.method), "segmentation")
    use = Use(config.maps or known.maps, views, background)
    return Predictor.of(trained, compute, use)


def _draw(
    config: AnimateConfig,
    trained: Trained,
    predictor: Predictor,
    panels: tuple[Panel, ...],
    pixels: NDArray[np.uint8],
    known: Tensor | None,
) -> NDArray[np.uint8]:
    drawn: dict[str, NDArray[np.uint8]] = {"image": pixels}
    picture, segments = Image.fromarray(pixels), trained.method.segments
    tags = None if known is None else known.to(predictor.compute.device)
    kinds = predictor.kinds[:1] if "map" in panels else ()
    found = None
    if "mask" in panels or not segments:
        # Given classes are those whose maps are shown; a method that segments names whatever it sees.
        found = predictor.predict(picture, None if segments else tags, () if segments else kinds)
        drawn["mask"] = overlay_labels(pixels, found.mask, trained.classes.palette, config.opacity)
    if kinds:
        if found is None or found.tags is None:
            shown = predictor.tags(picture) if tags is None else tags
            maps = predictor.maps(picture, shown)
        else:
            shown, maps = found.tags, dict(found.maps)
        present = shown[0].cpu().numpy() > 0
        drawn["map"] = overlay_maps(pixels, maps[kinds[0]][0].cpu().numpy()[present], config.opacity)
    return picture_grid([drawn[panel] for panel in panels], columns=len(panels))

"""Everybody who asks gets the same mask: Python, command, step, page, film, export, scores on the way.

The reference is worked out here, without the package's own way.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tagmask.app.lab import Controls, Lab
from tagmask.data import open_dataset
from tagmask.engine.compute import Compute
from tagmask.engine.log import Display
from tagmask.engine.runtime import Runtime
from tagmask.export.module import TakeAway
from tagmask.inference.animate import AnimateConfig, animate
from tagmask.inference.predict import PredictConfig, predict
from tagmask.inference.views import MapConfig
from tagmask.methods.base import SegmentationViews
from tagmask.model import Model
from tagmask.ops.tiles import tile_spans
from tagmask.report.draw import overlay_labels
from tagmask.steps.segment import SegmentConfig, segment
from tagmask.store.labels import read_mask
from tagmask.training.validate import validate_method
from tests.seams.pictures import CLASSES
from tests.seams.pixel import LEVEL, PixelMaps, PixelSegmenter, trained

SIZES = [(20, 24), (1, 300), (50, 61), (40, 1100), (1101, 33)]
QUIET = Display(quiet=True)
PATCH = 8


class BlockMaps(PixelMaps):
    """Colours of patches, the darker the brighter the whole image is: tiles see themselves only."""

    side_multiple = PATCH

    def view_maps(self, images, kinds):
        """(B, 3, h, w)."""
        assert not images.shape[2] % PATCH
        assert not images.shape[3] % PATCH
        colours = self.lens(images)
        return {kind: F.avg_pool2d(colours - colours.mean((2, 3), keepdim=True), PATCH) for kind in kinds}


class BlockSegmenter(PixelSegmenter, BlockMaps):
    """The same as masks."""

    def segment(self, images):
        """(B, 4, h, w)."""
        colours = self.view_maps(images, ("cam",))["cam"]
        return torch.cat([torch.full_like(colours[:, :1], LEVEL / 4), colours], 1) * 20


def picture(size):
    """Coloured blots; every part of it has another brightness."""
    rng = np.random.default_rng(sum(size))
    small = rng.integers(0, 256, (*(-(-side // 9) + 1 for side in size), 3)).astype(np.uint8)
    large = np.kron(small, np.ones((9, 9, 1), np.uint8))[: size[0], : size[1]]
    fall = np.linspace(0.3, 1, size[1])[None, :, None] * np.linspace(0.5, 1, size[0])[:, None, None]
    return (large * fall).round().astype(np.uint8)


def padded(pixels):
    """Borders repeated up to 32, the mean colour up to whole patches; (1, 3, H, W)."""
    below, right = (max(32 - side, 0) for side in pixels.shape[:2])
    pixels = np.pad(pixels, ((0, below), (0, right), (0, 0)), mode="edge")
    height, width = (-(-side // PATCH) * PATCH for side in pixels.shape[:2])
    canvas = np.empty((height, width, 3), np.float32)
    canvas[:] = (0.485, 0.456, 0.406)
    canvas[: pixels.shape[0], : pixels.shape[1]] = pixels / np.float32(255)
    return torch.from_numpy(canvas).permute(2, 0, 1)[None]


def whole(method, pixels, tags):
    """Probabilities (C, H, W) of one piece."""
    images = padded(pixels)
    scores = method.segment(images)
    scores = F.interpolate(scores, size=images.shape[2:], mode="bilinear")[0]
    scores = scores[:, : pixels.shape[0], : pixels.shape[1]]
    if tags is not None:
        scores[[k + 1 for k in range(3) if k not in tags]] = -torch.inf
    return scores.softmax(0)


def faded(start, length, starts, overlap):
    """Weights of the tile at `start`, which fades in and out where neighbours overlap it."""
    x = np.arange(start, start + length, dtype=np.float64)
    share = np.ones(length)
    if (before := [s for s in starts if s < start]) and overlap:
        assert before[-1] + length >= start + overlap
        share *= np.clip((x - start + 0.5) / overlap, 0, 1)
    if after := [s for s in starts if s > start]:
        share *= np.clip(1 - (x - after[0] + 0.5) / overlap, 0, 1) if overlap else x < after[0]
    return share


def expected(method, pixels, tags=None, tile=1024, overlap=128):
    """The mask, and where it is clear: elsewhere rounding may decide."""
    height, width = pixels.shape[:2]
    with torch.no_grad():
        if max(height, width) <= tile:
            total = whole(method, pixels, tags).double().numpy()
        else:
            rows, columns = tile_spans(height, tile, overlap), tile_spans(width, tile, overlap)
            total = np.zeros((4, height, width))
            for top in rows.starts:
                for left in columns.starts:
                    part = pixels[top : top + rows.length, left : left + columns.length]
                    weight = np.outer(
                        faded(top, rows.length, rows.starts, rows.overlap),
                        faded(left, columns.length, columns.starts, columns.overlap),
                    )
                    place = slice(top, top + rows.length), slice(left, left + columns.length)
                    total[:, place[0], place[1]] += whole(method, part, tags).double().numpy() * weight
    assert np.allclose(total.sum(0), 1, atol=1e-5)
    best = np.sort(total, axis=0)
    return total.argmax(0).astype(np.uint8), best[-1] - best[-2] > 1e-4


def shown(frame, drawn):
    """Whether a film's frame holds a drawing, whatever its margin."""
    height, width = drawn.shape[:2]
    parts = (frame[y : y + height, x : x + width] for y in range(9) for x in range(9))
    return any(np.array_equal(part, drawn) for part in parts)


def all_ways(root, own, pixels, tags=None):
    """{who was asked: mask}."""
    height, width = pixels.shape[:2]
    compute, runtime = Compute.choose("cpu"), Runtime.create("cpu", seed=None)
    names = None if tags is None else [CLASSES[k] for k in tags]
    (root / "in" / "images").mkdir(parents=True)
    path = root / "in" / "images" / "a.png"
    Image.fromarray(pixels).save(path)
    (root / "in" / "tags.csv").write_text(f"image,tags\na.png,{';'.join(names or CLASSES)}\n")
    (root / "in" / "classes.txt").write_text("\n".join(CLASSES))
    tag_file = None if tags is None else root / "in" / "tags.csv"
    model = Model(own, compute)
    found = {f"python {tags}": model.predict(pixels, names).mask}

    config = PredictConfig(tags=tag_file, overlays=False)
    predict(config, own, compute, QUIET, [str(path)], root / "out")
    found["command"] = read_mask(root / "out" / "masks" / "a.png")

    if own.method.segments:
        config = SegmentConfig(tags="none" if tags is None else "dataset")
        plan = SimpleNamespace(config=config, trained=own, dataset=open_dataset(root / "in", "folder"))
        segment(plan, SimpleNamespace(out=root / "run", runtime=runtime, display=QUIET))
        found["step"] = read_mask(root / "run" / "masks" / "a.png")
    if max(height, width) <= 768:
        lab = Lab(model).open("a", path, tags, None, Controls("cam"))
        found["page"] = lab.mask
    if tags is None:
        (root / "frames").mkdir()
        Image.fromarray(pixels).save(root / "frames" / "a.png")
        drawing = AnimateConfig(panels=("mask",), opacity=1.0, max_side=None)
        animate(drawing, own, compute, QUIET, root / "frames", root / "film")
        with Image.open(root / "film" / "a.png") as frame:
            found["film"] = np.asarray(frame.convert("RGB"))
    if tags is None and max(height, width) <= 1024 and own.method.segments:
        floats = torch.from_numpy(pixels / np.float32(255)).permute(2, 0, 1)[None]
        found["exported"] = TakeAway(own.method, (), 0.5)(floats)[-1][0].numpy()
    return found


@pytest.mark.parametrize("tags", [None, (2, 0)])
@pytest.mark.parametrize("size", SIZES)
def test_every_way_gives_the_same_mask(tmp_path, size, tags):
    own, pixels = trained(BlockSegmenter), picture(size)
    want, clear = expected(own.method, pixels, tags)
    assert clear.mean() > 0.99
    assert len(np.unique(want)) > 1
    ways = all_ways(tmp_path, own, pixels, tags)
    first = next(iter(ways.values()))
    assert np.array_equal(first[clear], want[clear])
    for way, mask in ways.items():
        if way == "film":
            assert shown(mask, overlay_labels(pixels, first, own.classes.palette, 1.0))
        else:
            assert np.array_equal(mask, first), way


@pytest.mark.parametrize("background", [0.2, 0.75])
@pytest.mark.parametrize("tags", [None, (1,)])
@pytest.mark.parametrize("size", SIZES)
def test_every_way_remembers_the_background(tmp_path, size, tags, background):
    own, pixels = trained(BlockMaps, background=background), picture(size)
    ways = all_ways(tmp_path, own, pixels, tags)
    first = next(iter(ways.values()))
    names = [CLASSES[k] for k in tags] if tags else None
    result = Model(own, Compute.choose("cpu")).predict(pixels, names)
    maps = np.zeros((3, *size), np.float32)
    maps[list(result.keys)] = result.maps["cam"]
    want = np.where(maps.max(0) > background, maps.argmax(0) + 1, 0)
    clear = np.abs(maps.max(0) - background) > 1e-4
    # Maps of larger pictures are those of a smaller one, and so are their labels.
    if max(size) <= 1024:
        assert np.array_equal(first[clear], want[clear])
    for way, mask in ways.items():
        if way == "film":
            assert shown(mask, overlay_labels(pixels, first, own.classes.palette, 1.0))
        else:
            assert np.array_equal(mask, first), way


@pytest.mark.parametrize("size", SIZES)
def test_scores_on_the_way_are_of_the_same_masks_and_maps(tmp_path, size):
    """Against its own answer as truth everything scores 1."""
    own, pixels = trained(BlockSegmenter), picture(size)
    all_ways(tmp_path, own, pixels)
    model = Model(own, Compute.choose("cpu"))
    names = list(CLASSES)
    (tmp_path / "in" / "masks").mkdir()
    runtime = Runtime.create("cpu", seed=None)
    result = model.predict(pixels)
    tagged = model.predict(pixels, names)
    from_maps = np.where(tagged.maps["cam"].max(0) > 0.5, tagged.maps["cam"].argmax(0) + 1, 0).astype(
        np.uint8
    )
    for kind, truth in (("segmentation", result.mask), ("cam", from_maps)):
        Image.fromarray(truth).save(tmp_path / "in" / "masks" / "a.png")
        dataset = open_dataset(tmp_path / "in", "folder", masks=tmp_path / "in" / "masks")
        scores = validate_method(own.method, dataset, runtime, QUIET, MapConfig(), 0.5, SegmentationViews())
        assert scores[kind].miou == 1, kind

"""Whole-slide scans: tiles with tissue are found, learned from and predicted; masks are pyramids."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

from tagmask.data.check import check
from tagmask.data.parts import DataConfig, Parts
from tagmask.data.readers import slide
from tagmask.data.readers.pixels import file_kind
from tagmask.engine.compute import Compute
from tagmask.engine.log import Display
from tagmask.errors import DataError
from tagmask.inference.predict import PredictConfig, predict
from tagmask.ops.tiles import join_tiles, skipping, tile_spans
from tests.seams.pixel import COLOURS, trained

openslide = pytest.importorskip("openslide")
tifffile = pytest.importorskip("tifffile")
rasterio = pytest.importorskip("rasterio")
HEIGHT, WIDTH, TILE = 1600, 2100, slide.TILE
GLASS, SHADOW = (243, 242, 244), (203, 204, 206)  # the seam model calls both blue


def scan(path, spots=((600, 700, 1), (700, 1500, 2)), levels=3):
    """A pyramid of tiles with squares in the seam model's colours, and its labels."""
    rgb, labels = np.full((HEIGHT, WIDTH, 3), GLASS, np.uint8), np.zeros((HEIGHT, WIDTH), np.uint8)
    rgb[1300:, :900] = SHADOW
    for top, left, label in spots:
        rgb[top : top + 300, left : left + 260] = COLOURS[label]
        labels[top : top + 300, left : left + 260] = label
    head = {"photometric": "rgb", "tile": (256, 256), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as file:
        for level in range(levels):
            step = 2**level
            resolution = (20_000 / step, 20_000 / step)
            file.write(rgb[::step, ::step], subfiletype=int(level > 0), resolution=resolution, **head)
    return path, labels


def run(inputs, out, **settings):
    config = PredictConfig(tile=512, overlap=64, **settings)
    given = [str(i) for i in inputs]
    return predict(config, trained(), Compute.choose("cpu"), Display(quiet=True), given, out)


def test_tiles_with_tissue_are_found(tmp_path):
    path, labels = scan(tmp_path / "a.tif")
    assert file_kind(path) == "slide"
    shown = {(int(y) // TILE, int(x) // TILE) for y, x in np.argwhere(labels > 0)}
    share = {(r, c): (labels[r * TILE :][:TILE, c * TILE :][:, :TILE] > 0).sum() / TILE**2 for r, c in shown}
    assert set(slide.tiles(path)) == {place for place in shown if share[place] >= 0.1}
    empty, _ = scan(tmp_path / "b.tif", spots=())
    assert slide.tiles(empty) == ()


def test_a_tile_is_what_the_scan_shows_there(tmp_path):
    path, labels = scan(tmp_path / "a.tif")
    pixels, info = slide.read(path, slide.part_of(path, 1, 2), 0)
    assert pixels.shape == (3, TILE, TILE)
    assert info.spacing == (0.0005, 0.0005)
    seen = labels[TILE : 2 * TILE, 2 * TILE : 3 * TILE]
    for label in np.unique(seen[seen > 0]):
        assert (pixels.transpose(1, 2, 0)[seen == label] == COLOURS[label]).all()
    corner, _ = slide.read(path, slide.part_of(path, 3, 4), 0)
    assert (corner[:, HEIGHT - 3 * TILE :] == 255).all()  # below the scan
    with pytest.raises(DataError, match="4 rows and 5 columns of tiles"):
        slide.part_of(path, 4, 0)
    with pytest.raises(DataError, match="takes it whole"):
        slide.read(path, None, 0)


def test_a_scan_is_learned_from_tile_by_tile(tmp_path):
    scan(tmp_path / "a.tif")
    scan(tmp_path / "b.tif")
    scan(tmp_path / "empty.tif", spots=())
    rows = ("a.tif,red green", "a.tif/1-1,red", "b.tif/0-3,blue")
    (tmp_path / "tags.csv").write_text("image,tags\n" + "\n".join(rows) + "\n")
    dataset = Parts(DataConfig(root=tmp_path, holdout=0)).open("train")
    expected = [f"a/{row:04d}-{column:04d}" for row, column in slide.tiles(tmp_path / "a.tif")]
    assert dataset.names == (*expected, "b/0000-0003")
    classes = dataset.classes.names
    named = {item.name: {classes[k] for k in item.tags} for item in dataset.items}
    assert named.pop("a/0001-0001") == {"red"}
    assert named.pop("b/0000-0003") == {"blue"}
    assert all(tags == {"red", "green"} for tags in named.values())
    assert dataset.image(0).shape == (*dataset.size(0), 3) == (TILE, TILE, 3)
    assert check(tmp_path).ok
    (tmp_path / "tags.csv").write_text("image,tags\na.tif,red\nempty.tif,red\nb.tif/9-9,red\n")
    told = check(tmp_path).text()
    assert "shows no tissue" in told
    assert "rows and 5 columns" in told


def test_the_mask_of_a_scan_is_a_pyramid_with_outlines_in_its_pixels(tmp_path):
    path, labels = scan(tmp_path / "a.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("error", rasterio.errors.NotGeoreferencedWarning)
        figures = run([path], tmp_path / "out")
    assert figures["failed"] == 0, (tmp_path / "out/failed.csv").read_text()
    with tifffile.TiffFile(tmp_path / "out/masks/a.tif") as mask:
        found = mask.pages[0].asarray()
        sizes = [page.shape for page in mask.pages]
        assert all(page.is_tiled for page in mask.pages)
    np.testing.assert_array_equal(np.where(found == 3, 0, found), labels)
    # Parts that touch no tile with tissue are background, though the seam model would call glass blue.
    assert (found[1500:, :500] == 0).all()
    assert (found == 3).any()
    assert sizes[:2] == [(HEIGHT, WIDTH), (HEIGHT // 2, WIDTH // 2)]
    with openslide.OpenSlide(tmp_path / "out/masks/a.tif") as mask:
        assert mask.dimensions == (WIDTH, HEIGHT)
        assert mask.level_count > 2
    features = json.loads((tmp_path / "out/polygons/a.geojson").read_text())["features"]
    names = trained().classes.names
    corners = {}
    for feature in features:
        assert feature["properties"]["objectType"] == "annotation"
        if feature["properties"]["classification"]["name"] == names[2]:
            continue
        kind, (ring,) = feature["properties"]["classification"], feature["geometry"]["coordinates"]
        corners[kind["name"]] = (np.min(ring, 0).tolist(), np.max(ring, 0).tolist())
        assert kind["color"] == trained().classes.palette[names.index(kind["name"]) + 1].tolist()
    assert corners == {
        names[0]: ([700, 600], [960, 900]),
        names[1]: ([1500, 700], [1760, 1000]),
    }
    row = json.loads((tmp_path / "out/summary.jsonl").read_text())
    every = [len(tile_spans(side, 512, 64).starts) for side in (HEIGHT, WIDTH)]
    assert 0 < row["tiles"] < every[0] * every[1]


def test_bad_scans_are_named_and_the_rest_is_done(tmp_path):
    scan(tmp_path / "good.tif")
    (tmp_path / "cut.svs").write_bytes((tmp_path / "good.tif").read_bytes()[:3000])
    (tmp_path / "text.ndpi").write_text("no scan")
    figures = run([tmp_path], tmp_path / "out", overlays=False, confidence=False)
    assert (figures["images"], figures["failed"]) == (1, 2)
    told = (tmp_path / "out/failed.csv").read_text()
    assert "cut.svs cannot be decoded" in told
    assert "text.ndpi cannot be decoded" in told


def test_without_openslide_a_pyramid_is_its_first_picture_and_a_scan_asks_for_it(tmp_path, monkeypatch):
    path, _ = scan(tmp_path / "a.tif")
    (tmp_path / "b.svs").write_bytes(path.read_bytes())
    monkeypatch.setattr(slide, "_installed", lambda: False)
    monkeypatch.setitem(__import__("sys").modules, "openslide", None)
    assert file_kind(path) == "tiff"
    with pytest.raises(DataError, match=r"needs openslide to be read: pip install 'tagmask\[slides\]'"):
        slide.tiles(tmp_path / "b.svs")


def test_tiles_that_nobody_wants_are_not_cut_out():
    import torch

    torch.manual_seed(0)
    picture, looked, found = torch.rand(3, 40, 48), [], torch.full((2, 40, 48), -1.0)

    def cut(top, left, height, width):
        looked.append((top, left))
        return picture[:, top : top + height, left : left + width]

    def emit(top, left, values):
        found[:, top : top + values.shape[1], left : left + values.shape[2]] = values

    rows, columns = tile_spans(40, 16, 0), tile_spans(48, 16, 0)
    blank = torch.tensor([1.0, 0.0])
    fn, part, count = skipping(lambda x: x[:, :2], cut, lambda top, left, *_: left == 16, blank)
    join_tiles(fn, part, emit, rows, columns, 2)
    assert count() == len(rows.starts)
    assert {left for _, left in looked[1:]} == {16}
    torch.testing.assert_close(found[:, :, 16:32], picture[:2, :, 16:32])
    assert (found[0, :, :16] == 1).all()
    assert (found[1, :, 32:] == 0).all()

"""Scenes of a map: what goes in with a place comes out with it, and what is wrong is named and left."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace

import numpy as np
import pytest

from tagmask.data.levels import Reading
from tagmask.data.readers.pixels import read_pixels
from tagmask.engine.compute import Compute
from tagmask.engine.log import Display
from tagmask.errors import DataError
from tagmask.inference.predict import PredictConfig, predict
from tests.seams.pixel import chart, trained

rasterio = pytest.importorskip("rasterio")
pytest.importorskip("pyogrio")
PLACE = rasterio.Affine(0.3, 0.02, 500_000.125, -0.01, -0.3, 5_400_000.5)
QUIET = Display(quiet=True)
SIXTEEN = Reading(None, ((100.0, 40_900.0),), True)


def raster(path, values, **options):
    place = {"crs": "EPSG:32632", "transform": PLACE, **options}
    head = {"driver": "GTiff", "count": len(values), "dtype": values.dtype}
    head |= {"height": values.shape[1], "width": values.shape[2]}
    with rasterio.open(path, "w", **head, **place) as file:
        file.write(values)
    return path


def scene(path, size=(96, 130), **options):
    """The seam tests' chart in 16 bits, and its labels."""
    pixels, labels = chart(size)
    deep = (pixels.astype(np.uint16) * 160 + 100).transpose(2, 0, 1)
    return raster(path, deep, photometric="rgb", **options), labels


def run(inputs, out, reading=SIXTEEN, **settings):
    config = PredictConfig(tile=64, overlap=16, **settings)
    model = replace(trained(), reading=reading)
    return predict(config, model, Compute.choose("cpu"), QUIET, [str(i) for i in inputs], out)


def test_the_mask_of_a_map_has_its_place(tmp_path):
    path, labels = scene(tmp_path / "a.tif", nodata=0)
    with rasterio.open(path, "r+") as file:
        file.write(np.zeros((3, 10, 20), np.uint16), window=((0, 10), (0, 20)))
    assert run([path], tmp_path / "out")["failed"] == 0
    with rasterio.open(tmp_path / "out/masks/a.tif") as mask, rasterio.open(path) as source:
        assert mask.transform == source.transform
        assert mask.crs == source.crs
        assert mask.nodata == 255
        found = mask.read(1)
    assert (found[:10, :20] == 255).all()
    found[:10, :20] = labels[:10, :20]
    np.testing.assert_array_equal(found, labels)
    row = json.loads((tmp_path / "out/summary.jsonl").read_text())
    assert row["tiles"] > 1
    assert (row["height"], row["width"]) == labels.shape


def _areas(features):
    areas = {}
    for feature in features:
        rings = [np.asarray(ring) for ring in feature["geometry"]["coordinates"]]
        sizes = [_area(ring) for ring in rings]
        name = feature["properties"]["class"]
        areas[name] = areas.get(name, 0) + sizes[0] - sum(sizes[1:])
    return areas


def _area(ring):
    x, y = (ring - ring[0]).T
    return abs((x[:-1] * y[1:] - x[1:] * y[:-1]).sum()) / 2


def test_outlines_are_in_map_units(tmp_path):
    path, labels = scene(tmp_path / "a.tif")
    run([path], tmp_path / "out", overlays=False, confidence=False)
    told = json.loads((tmp_path / "out/polygons/a.geojson").read_text())
    assert told["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32632"
    areas, pixel = _areas(told["features"]), abs(PLACE.determinant)
    names = trained().classes.names
    for k, name in enumerate(names, 1):
        assert areas[name] == pytest.approx((labels == k).sum() * pixel, rel=1e-6)
    x, y = np.concatenate([f["geometry"]["coordinates"][0] for f in told["features"]]).T
    assert x.min() >= 500_000
    assert abs(y.max() - 5_400_000) < 100
    with sqlite3.connect(tmp_path / "out/polygons/a.gpkg") as base:
        assert base.execute("select srs_id from gpkg_geometry_columns").fetchone() == (32632,)
        rows = base.execute("select class, count(*) from mask group by class").fetchall()
    counted = {name: sum(f["properties"]["class"] == name for f in told["features"]) for name in names}
    assert dict(rows) == {name: count for name, count in counted.items() if count}
    pyogrio = pytest.importorskip("pyogrio")
    assert pyogrio.read_info(tmp_path / "out/polygons/a.gpkg")["crs"] == "EPSG:32632"


def test_outlines_are_written_part_by_part(tmp_path, monkeypatch):
    path, _ = scene(tmp_path / "a.tif")
    run([path], tmp_path / "whole", overlays=False, confidence=False)
    monkeypatch.setattr("tagmask.inference.scene._ROWS", 2)
    run([path], tmp_path / "parts", overlays=False, confidence=False)
    found = []
    for folder in ("whole", "parts"):
        with sqlite3.connect(tmp_path / folder / "polygons/a.gpkg") as base:
            found.append(base.execute("select class, label, geom from mask order by fid").fetchall())
    assert found[0] == found[1]
    assert len(found[0]) > 4


def test_a_map_of_8_bits_is_predicted_like_the_picture_it_holds(tmp_path):
    pixels, labels = chart((50, 70))
    path = raster(tmp_path / "a.tif", pixels.transpose(2, 0, 1), photometric="rgb")
    run([path], tmp_path / "out", reading=None)
    with rasterio.open(tmp_path / "out/masks/a.tif") as mask:
        np.testing.assert_array_equal(mask.read(1), labels)
    run([path], tmp_path / "out", reading=None)
    assert len((tmp_path / "out/summary.jsonl").read_text().splitlines()) == 1


def _unknown_place(path):
    """A GeoTIFF whose keys name EPSG:12345, which is none."""
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 12345)
    tags = [(33550, "d", 3, (0.3, 0.3, 0.0), True), (33922, "d", 6, (0, 0, 0, 5e5, 5e6, 0), True)]
    tifffile = pytest.importorskip("tifffile")
    tags.append((34735, "H", len(keys), keys, True))
    tifffile.imwrite(path, np.ones((8, 8, 3), np.uint16), photometric="rgb", extratags=tags)


def test_bad_scenes_are_named_and_the_rest_is_done(tmp_path):
    scene(tmp_path / "good.tif")
    raster(tmp_path / "bands.tif", np.ones((5, 8, 8), np.uint16))
    raster(tmp_path / "nan.tif", np.full((1, 8, 8), np.nan, np.float32), nodata=np.nan)
    cut, _ = scene(tmp_path / "cut.tif")
    cut.write_bytes(cut.read_bytes()[:-20_000])
    colours = raster(tmp_path / "palette.tif", np.ones((1, 8, 8), np.uint8))
    with rasterio.open(colours, "r+") as file:
        file.write_colormap(1, {1: (255, 0, 0)})
    _unknown_place(tmp_path / "nowhere.tif")
    figures = run([tmp_path], tmp_path / "out")
    assert figures["images"] == 2  # one is all without data, which is an answer
    told = (tmp_path / "out/failed.csv").read_text().splitlines()[1:]
    assert len(told) == 4
    reasons = {line.split(",")[0].rsplit("/", 1)[1]: line for line in told}
    assert "5 bands" in reasons["bands.tif"]
    assert "palette" in reasons["palette.tif"]
    assert "cut.tif" in reasons
    assert "names a coordinate system that does not exist" in reasons["nowhere.tif"]
    with pytest.raises(DataError, match="does not exist, EPSG:12345; write the right one"):
        read_pixels(tmp_path / "nowhere.tif")
    with rasterio.open(tmp_path / "out/masks/nan.tif") as mask:
        assert (mask.read(1) == 255).all()

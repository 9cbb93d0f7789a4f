"""Bad files of every kind in one folder: each is named once, in one line, and the others are done."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tagmask.data.levels import Reading
from tagmask.engine.compute import Compute
from tagmask.engine.log import Display
from tagmask.inference.predict import PredictConfig, predict
from tagmask.store.labels import read_mask
from tests.seams.pixel import chart, trained

tifffile = pytest.importorskip("tifffile")
rasterio = pytest.importorskip("rasterio")
nibabel = pytest.importorskip("nibabel")
pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
SIZE = (40, 56)
WHITE = 4080
"""Sixteen times 255: 12 of 16 bits."""


def _tiff(path, **options):
    levels = chart(SIZE)[0].astype(np.uint16) * 16
    tifffile.imwrite(path, levels, photometric="rgb", **options)
    return levels


def _cut(folder):
    _tiff(folder / "cut.tif", rowsperstrip=4)
    content = (folder / "cut.tif").read_bytes()
    (folder / "cut.tif").write_bytes(content[: len(content) // 2])


def _crs(folder):
    """Keys that name EPSG:12345, which is none."""
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 12345)
    tags = [(33550, "d", 3, (0.3, 0.3, 0.0), True), (33922, "d", 6, (0, 0, 0, 5e5, 5e6, 0), True)]
    _tiff(folder / "crs.tif", extratags=[*tags, (34735, "H", len(keys), keys, True)])


def _palette(folder):
    colours = {"photometric": "palette", "colormap": np.zeros((3, 65536), np.uint16)}
    tifffile.imwrite(folder / "palette.tif", np.zeros(SIZE, np.uint16), **colours)


def _nan(folder):
    tifffile.imwrite(folder / "nan.tif", np.full(SIZE, np.nan, np.float32))


def _series(folder, places, spacings=(1.0,)):
    folder.mkdir()
    series = pydicom.uid.generate_uid()
    for number, place in enumerate(places):
        one = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        one.SeriesInstanceUID, one.ImageOrientationPatient = series, [1, 0, 0, 0, 1, 0]
        one.ImagePositionPatient = [0, 0, place]
        one.PixelSpacing = [spacings[number % len(spacings)]] * 2
        one.save_as(folder / f"{number}.dcm")


def _no_pixels(folder):
    _series(folder / "report", (0,))
    file = pydicom.dcmread(folder / "report/0.dcm")
    del file.PixelData
    file.save_as(folder / "report/0.dcm")


BAD = {
    "cut.tif": (_cut, "is cut off: part"),
    "crs.tif": (_crs, "names a coordinate system that does not exist, EPSG:12345"),
    "palette.tif": (_palette, "is a palette picture"),
    "nan.tif": (_nan, "holds no valid pixel"),
    "gap": (lambda folder: _series(folder / "gap", (0, 1, 2, 5, 6)), "misses slices: there are 3 mm"),
    "spacings": (lambda folder: _series(folder / "spacings", (0, 1, 2), (1.0, 2.0)), "slices of 2 spacings"),
    "report": (_no_pixels, "is a DICOM CT without pixels"),
}


def test_each_bad_file_is_named_once_and_the_others_are_done(tmp_path):
    folder, labels = tmp_path / "in", chart(SIZE)[1]
    folder.mkdir()
    for make, _ in BAD.values():
        make(folder)
    Image.fromarray(chart(SIZE)[0]).save(folder / "good.png")
    levels = _tiff(folder / "little.tif")
    _tiff(folder / "big.tif", byteorder=">")
    assert (folder / "big.tif").read_bytes()[:2] == b"MM"
    holes = levels.astype(np.float32)
    holes[:9, :9] = np.nan
    tifffile.imwrite(folder / "holes.tif", holes, photometric="rgb")
    volume = np.zeros((*SIZE[::-1], 2), ">i2")
    volume[8:30, 6:20] = WHITE
    header = nibabel.Nifti1Header(endianness=">")
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4), header), folder / "volume.nii")
    model = replace(trained(), reading=Reading(None, ((0.0, WHITE),)))
    given, out = [str(folder)], tmp_path / "out"
    figures = predict(PredictConfig(), model, Compute.choose("cpu"), Display(quiet=True), given, out)
    rows = list(csv.reader((out / "failed.csv").read_text().splitlines()))[1:]
    assert figures == {**figures, "images": 5, "failed": len(BAD)}, rows
    for name, (_, words) in BAD.items():
        told = [reason for source, reason in rows if name in source.split("/")]
        assert len(told) == 1, name
        assert words in told[0]
        assert "\n" not in told[0]
    for name in ("good", "little", "big"):
        np.testing.assert_array_equal(read_mask(out / f"masks/{name}.png"), labels)
    np.testing.assert_array_equal(read_mask(out / "masks/holes.png")[9:, 9:], labels[9:, 9:])
    found = np.asarray(nibabel.load(out / "masks/volume.nii.gz").dataobj)
    assert (found[volume > 0] == found[10, 10, 0]).all()
    assert found[10, 10, 0] > 0 == found[0, 0, 0]

"""Data sets of every kind of file, made by the libraries that usually make them, and read by others."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

rasterio = pytest.importorskip("rasterio")
tifffile = pytest.importorskip("tifffile")
nibabel = pytest.importorskip("nibabel")
pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")
pytest.importorskip("pyogrio")
HEIGHT, WIDTH, SLICES = 64, 72, 3
PLACE = rasterio.Affine(0.3, 0.02, 500_000.125, -0.01, -0.3, 5_400_000.5)
AFFINE = np.array([[0.7, 0.1, 0, -3], [0, -0.8, 0.05, 5], [0.02, 0, 2.5, 7], [0, 0, 0, 1]])
GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737)
"""Where a TIFF keeps its scale, tie points, transform and the keys of its coordinate system."""
FIX = (slice(40, 56), slice(8, 30))
"""Rows and columns of the first image that a person gives to the second class in another program."""


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes:
        make: Makes a data set in a folder; gives what its tag file names.
        first: Name of the first image.
        ending: Of its masks.
        same: Asserts that a mask has the grid of its file.
        numbers: The first image as the file holds it, (bands, H, W).
        correct: Gives `FIX` of a mask's first image to the second class.
        settings: Flags that the kind needs.
    """

    make: Callable[[Path], list[str]]
    first: str
    ending: str
    same: Callable[[Path, Path], None]
    numbers: Callable[[Path], np.ndarray[Any, Any]]
    correct: Callable[[Path, Path], None]
    settings: tuple[str, ...] = ()


def values(number, depth=1):
    """Squares or stripes in noise, (depth, H, W) of 12 bits."""
    rng = np.random.default_rng(number)
    noise = rng.integers(300, 900, (depth, HEIGHT, WIDTH))
    noise[..., 8:38, 30:62][..., :: 1 + 3 * (number % 2), :] += 3000
    return noise.astype(np.uint16)


def _scenes(root):
    for number in range(4):
        scene = values(number, 5)
        scene[:, :6, :9] = 0
        head = {"height": HEIGHT, "width": WIDTH, "count": 5, "dtype": "uint16", "nodata": 0}
        a, b, c, d, e, f = PLACE[:6]
        place = rasterio.Affine(a, b, c + a * WIDTH * number, d, e, f + d * WIDTH * number)
        with rasterio.open(
            root / f"{number}.tif", "w", driver="GTiff", crs="EPSG:32632", transform=place, **head
        ) as file:
            file.write(scene)
    return [f"{number}.tif" for number in range(4)]


def _same_place(mask, source):
    """By tifffile, which did not write it."""
    with tifffile.TiffFile(mask) as made, tifffile.TiffFile(source) as given:
        tags = [[page.tags.get(code) for code in GEO_TAGS] for page in (made.pages[0], given.pages[0])]
        kept = [[None if tag is None else tag.value for tag in row] for row in tags]
        assert kept[0] == kept[1]
        assert any(value is not None for value in kept[0][:3])
        labels = made.pages[0].asarray()
    assert labels.shape == (HEIGHT, WIDTH)
    assert (labels[:6, :9] == 255).all()
    assert set(np.unique(labels)) <= {0, 1, 2, 255}


def _scene_numbers(source):
    with tifffile.TiffFile(source) as file:
        found = file.pages[0].asarray().astype(np.float32)
    bands = found if found.shape[0] == 5 else found.transpose(2, 0, 1)
    return np.where(bands == 0, np.nan, bands)


def _correct_raster(mask, source, top=0, left=0):
    rows, columns = FIX
    window = ((top + rows.start, top + rows.stop), (left + columns.start, left + columns.stop))
    with rasterio.open(mask, "r+") as file:
        file.write(np.full((16, 22), 2, np.uint8), 1, window=window)


def _volumes(root):
    for number in range(2):
        image = nibabel.Nifti1Image(values(number, SLICES).transpose(2, 1, 0).astype(np.int16), AFFINE)
        image.header.set_xyzt_units("mm")
        image.set_qform(AFFINE, code=1)
        image.set_sform(AFFINE, code=2)
        nibabel.save(image, root / f"head{number}.nii.gz")
    return [f"head{number}.nii.gz" for number in range(2)]


def _same_affine(mask, source):
    """By the header's own bytes: sizes, voxels, codes and both transforms."""
    heads = [gzip.decompress(path.read_bytes()) for path in (mask, source)]
    for form, start in (("<8h", 40), ("<8f", 76), ("<2h", 252), ("<18f", 256), ("<B", 123)):
        made, given = (struct.unpack_from(form, head, start) for head in heads)
        assert made == given
    assert set(heads[0][352:]) <= {0, 1, 2}


def _voxels(source):
    content = gzip.decompress(source.read_bytes())[352:]
    return np.frombuffer(content, np.int16).reshape(SLICES, HEIGHT, WIDTH)[:1].astype(np.float32)


def _correct_volume(mask, source):
    image = nibabel.load(mask)
    labels = np.asarray(image.dataobj).copy()
    labels[FIX[1], FIX[0], 0] = 2
    nibabel.save(nibabel.Nifti1Image(labels, image.affine, image.header), mask)


def _series(root):
    for number in range(2):
        folder, series = root / f"scan{number}", pydicom.uid.generate_uid()
        folder.mkdir()
        for k in range(SLICES):
            one = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))
            one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
            one.SeriesInstanceUID = series
            one.Rows, one.Columns, one.PixelSpacing = HEIGHT, WIDTH, [0.8, 0.7]
            one.ImagePositionPatient = [1.5, -2.25, 2.5 * k]
            one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
            one.PixelData = values(number, SLICES)[k].astype(np.int16).tobytes()
            one.save_as(folder / f"{(k + 1) % SLICES}.dcm")
    return [f"scan{number}" for number in range(2)]


def _same_patient(mask, source):
    """By pydicom, of what highdicom wrote."""
    made = pydicom.dcmread(mask)
    given = {file.SOPInstanceUID: file for file in map(pydicom.dcmread, source.iterdir())}
    first = next(iter(given.values()))
    shared = made.SharedFunctionalGroupsSequence[0]
    assert shared.PixelMeasuresSequence[0].PixelSpacing == first.PixelSpacing
    assert shared.PixelMeasuresSequence[0].SpacingBetweenSlices == 2.5
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == first.ImageOrientationPatient
    assert (made.Rows, made.Columns, made.FrameOfReferenceUID) == (HEIGHT, WIDTH, first.FrameOfReferenceUID)
    assert [segment.SegmentLabel for segment in made.SegmentSequence] == ["a", "b"]
    places = set()
    for frame in made.PerFrameFunctionalGroupsSequence:
        place = tuple(frame.PlanePositionSequence[0].ImagePositionPatient)
        origin = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert place == tuple(given[origin].ImagePositionPatient)
        places.add(place)
    assert len(places) == SLICES


def _stored(source):
    file = pydicom.dcmread(source / "1.dcm")  # the slice at 0 mm
    values = np.frombuffer(file.PixelData, np.int16).reshape(1, HEIGHT, WIDTH).astype(np.float32)
    return values * float(file.RescaleSlope) + float(file.RescaleIntercept)


def _correct_series(mask, source):
    """A segmentation by somebody else: another order of the segments, and no frames without any."""
    seg, codes = highdicom.seg, pydicom.sr.codedict.codes
    images = sorted(map(pydicom.dcmread, source.iterdir()), key=lambda one: one.ImagePositionPatient[2])
    labels = np.zeros((SLICES, HEIGHT, WIDTH), np.uint8)
    labels[0][FIX] = 1
    kinds = (codes.SCT.Tissue, codes.SCT.Tissue, seg.SegmentAlgorithmTypeValues.MANUAL)
    segments = [seg.SegmentDescription(k, name, *kinds) for k, name in enumerate("ba", 1)]
    uids = pydicom.uid.generate_uid(), 1, pydicom.uid.generate_uid(), 1
    made = seg.Segmentation(images, labels, "BINARY", segments, *uids, "maker", "model", "1", "0")
    made.save_as(mask)


def _scans(root):
    pytest.importorskip("openslide")
    for number in range(2):
        rgb = np.full((500, 900, 3), 240, np.uint8)
        rgb[60:440, 60:840] = (170, 60, 140) if number else (60, 60, 190)
        with tifffile.TiffWriter(root / f"scan{number}.tif") as file:
            for level in range(3):
                step = 2**level
                head = {"photometric": "rgb", "tile": (256, 256), "subfiletype": int(level > 0)}
                file.write(rgb[::step, ::step], resolution=(40_000 / step,) * 2, **head)
    return [f"scan{number}.tif" for number in range(2)]


def _same_pyramid(mask, source):
    """By OpenSlide and tifffile, of what rasterio wrote."""
    openslide = pytest.importorskip("openslide")
    with openslide.OpenSlide(mask) as made, openslide.OpenSlide(source) as given:
        assert made.dimensions == given.dimensions
        assert made.level_count > 1
        for axis in "xy":
            key = f"openslide.mpp-{axis}"
            # GDAL keeps it as a single-precision number.
            assert float(made.properties[key]) == pytest.approx(float(given.properties[key]), rel=1e-7)
    with tifffile.TiffFile(mask) as made:
        assert set(np.unique(made.pages[0].asarray())) <= {0, 1, 2}


def _first_tile(source):
    with tifffile.TiffFile(source) as file:
        tile = file.pages[0].asarray()[:, :512].transpose(2, 0, 1).astype(np.float32)
    return np.pad(tile, ((0, 0), (0, 12), (0, 0)), constant_values=255)


KINDS = {
    "GeoTIFF": Kind(
        _scenes, "0", ".tif", _same_place, _scene_numbers, _correct_raster, ("--set=data.bands=all",)
    ),
    "NIfTI": Kind(_volumes, "head0/0000", ".nii.gz", _same_affine, _voxels, _correct_volume),
    "DICOM": Kind(_series, "scan0/0000", ".dcm", _same_patient, _stored, _correct_series),
    "scans": Kind(_scans, "scan0/0000-0000", ".tif", _same_pyramid, _first_tile, _correct_raster),
}

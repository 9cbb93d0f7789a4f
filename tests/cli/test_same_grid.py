"""Files of every kind go in with tags only, and masks come out in their grid, as other libraries read it."""

from __future__ import annotations

import gzip
import json
import struct

import numpy as np
import pytest

from tests.cli import tagmask, train_args

rasterio = pytest.importorskip("rasterio")
tifffile = pytest.importorskip("tifffile")
nibabel = pytest.importorskip("nibabel")
pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
pytest.importorskip("pyogrio")
HEIGHT, WIDTH, SLICES = 64, 72, 3
PLACE = rasterio.Affine(0.3, 0.02, 500_000.125, -0.01, -0.3, 5_400_000.5)
AFFINE = np.array([[0.7, 0.1, 0, -3], [0, -0.8, 0.05, 5], [0.02, 0, 2.5, 7], [0, 0, 0, 1]])
GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737)
"""Where a TIFF keeps its scale, tie points, transform and the keys of its coordinate system."""


def _values(number, depth=1):
    """Two kinds of stripes in noise, (depth, H, W) of 12 bits."""
    rng = np.random.default_rng(number)
    noise = rng.integers(200, 900, (depth, HEIGHT, WIDTH))
    noise[..., 8 * number : 8 * number + 24, :: 2 + number % 2] += 3000
    return noise.astype(np.uint16)


def _scenes(root):
    for number in range(4):
        head = {"height": HEIGHT, "width": WIDTH, "count": 4, "dtype": "uint16", "nodata": 0}
        a, b, c, d, e, f = PLACE[:6]
        place = rasterio.Affine(a, b, c + a * WIDTH * number, d, e, f + d * WIDTH * number)
        with rasterio.open(
            root / f"{number}.tif", "w", driver="GTiff", crs="EPSG:32632", transform=place, **head
        ) as file:
            file.write(_values(number, 4))
    return [f"{number}.tif" for number in range(4)]


def _volumes(root):
    for number in range(2):
        values = _values(number, SLICES).transpose(2, 1, 0).astype(np.int16)
        image = nibabel.Nifti1Image(values, AFFINE)
        image.header.set_xyzt_units("mm")
        image.set_qform(AFFINE, code=1)
        image.set_sform(AFFINE, code=2)
        nibabel.save(image, root / f"head{number}.nii.gz")
    return [f"head{number}.nii.gz" for number in range(2)]


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
            one.PixelData = _values(number + k)[0].astype(np.int16).tobytes()
            one.save_as(folder / f"{(k + 1) % SLICES}.dcm")
    return [f"scan{number}" for number in range(2)]


def _same_place(mask, source):
    """By tifffile, which did not write it."""
    with tifffile.TiffFile(mask) as made, tifffile.TiffFile(source) as given:
        tags = [[page.tags.get(code) for code in GEO_TAGS] for page in (made.pages[0], given.pages[0])]
        kept = [[None if tag is None else tag.value for tag in row] for row in tags]
        assert kept[0] == kept[1]
        assert any(value is not None for value in kept[0][:3])
        labels = made.pages[0].asarray()
    assert labels.shape == (HEIGHT, WIDTH)
    assert labels.max() <= 2


def _same_affine(mask, source):
    """By the header's own bytes: sizes, voxels, codes and both transforms."""
    heads = [gzip.decompress(path.read_bytes())[:348] for path in (mask, source)]
    for form, start in (("<8h", 40), ("<8f", 76), ("<2h", 252), ("<18f", 256), ("<B", 123)):
        made, given = (struct.unpack_from(form, head, start) for head in heads)
        assert made == given
    labels = np.asarray(nibabel.load(mask).dataobj)
    assert labels.max() <= 2


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
    places = set()
    for frame in made.PerFrameFunctionalGroupsSequence:
        place = tuple(frame.PlanePositionSequence[0].ImagePositionPatient)
        origin = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert place == tuple(given[origin].ImagePositionPatient)
        places.add(place)
    assert len(places) == SLICES


def _scans(root):
    pytest.importorskip("openslide")
    for number in range(2):
        rgb = np.full((1100, 1300, 3), 240, np.uint8)
        rgb[100:1000, 500 * number : 500 * number + 600] = (170, 60, 140)
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
        labels = made.pages[0].asarray()
    assert set(np.unique(labels)) <= {0, 1, 2}


KINDS = {
    "scans": (_scans, ".tif", _same_pyramid, []),
    "GeoTIFF": (_scenes, ".tif", _same_place, ["--set=data.bands=all"]),
    "NIfTI": (_volumes, ".nii.gz", _same_affine, []),
    "DICOM": (_series, ".dcm", _same_patient, []),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_has_the_grid_of_its_file(tmp_path, kind):
    make, ending, same, more = KINDS[kind]
    root = tmp_path / "data"
    root.mkdir()
    files = make(root)
    rows = [f"{file},{('a', 'b', 'a b')[k % 3]}" for k, file in enumerate(files)]
    (root / "tags.csv").write_text("\n".join(["image,tags", *rows]) + "\n")
    run = tmp_path / "run"
    for words in (
        ["data", "check", root, *more],
        train_args(root, run, 3, "--set=data.holdout=0", *more),
        ["segment", run],
        ["annotate", "export", run, "--format", "native", "--out", tmp_path / "masks"],
        ["predict", run, root, "--out", tmp_path / "out"],
    ):
        done = tagmask(*words)
        assert done.exit_code == 0, (words, done.stderr)
    assert (
        kind in tagmask("annotate", "export", run, "--format", "native", "--out", tmp_path / "masks").stdout
    )
    for folder in (tmp_path / "masks", tmp_path / "out/masks"):
        for file in files:
            name = file.partition(".")[0]
            same(folder / f"{name}{ending}", root / file)
    if kind == "GeoTIFF":
        assert (tmp_path / "masks/0.gpkg").is_file()
    if kind == "scans":
        for folder in ("masks", "out/polygons"):
            json.loads((tmp_path / folder / "scan0.geojson").read_text())["features"]


def test_data_check_takes_bands_and_range_alone(tmp_path):
    (tmp_path / "tags.csv").write_text(
        "\n".join(["image,tags", *(f"{name},a" for name in _scenes(tmp_path))])
    )
    assert "4 bands" in tagmask("data", "check", tmp_path).stdout
    told = tagmask("data", "check", tmp_path, "--set", "data.bands=[4,1,2]", "--set", "data.range=[0,4095]")
    assert told.exit_code == 0, told.stdout
    assert "bands 4, 1, 2; black to white 0 to 4095" in told.stdout
    refused = tagmask("data", "check", tmp_path, "--set", "train.size=3")
    assert refused.exit_code == 2
    assert "takes --set data.bands=" in refused.stderr


def test_only_the_masks_of_a_run_with_a_grid_are_native(tmp_path):
    refused = tagmask("annotate", "export", tmp_path, "--format", "native", "--out", tmp_path / "x")
    assert refused.exit_code == 2
    assert "is no run folder" in refused.stderr
